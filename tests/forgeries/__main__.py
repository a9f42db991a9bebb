"""Try each kind of forgery and put the table of what came of it into the page about security."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from tests.forgeries.kinds import KINDS
from tests.forgeries.trial import Trial, forged, name_of
from tests.page_tables import SECURITY, put
from tests.services import valkey_server


def main() -> None:
    """Write the table, and print how many turn green."""
    logger.disable("pytest_manifest")
    with valkey_server() as url, tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        without = forged(url, place / "without", KINDS, signed=False)
        signed = forged(url, place / "signed", KINDS, signed=True)
    put(SECURITY, "forgeries", "\n".join(_lines(without, signed)))
    for name, trial in (("without", without), ("with", signed)):
        print(f"{name} signatures: {_green(trial)} of {len(KINDS)} turn green")


def _lines(without: Trial, signed: Trial) -> Iterator[str]:
    yield f"| written into | {len(KINDS)} forgeries | without signatures | with |"
    yield "| --- | --- | --- | --- |"
    for number, kind in enumerate(KINDS):
        entry = name_of(number)
        said = (_shown(trial.verdicts[entry]) for trial in (without, signed))
        yield f"| {kind.where} | {kind.name} | {' | '.join(said)} |"
    yield f"| | **turn green** | **{_green(without)}** | **{_green(signed)}** |"


def _shown(verdict: str) -> str:
    return "**green**" if verdict == "passed" else f"`{verdict}`"


def _green(trial: Trial) -> int:
    return sum(trial.verdicts[name_of(n)] == "passed" for n in range(len(KINDS)))


if __name__ == "__main__":
    main()
