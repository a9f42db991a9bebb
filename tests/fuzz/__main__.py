"""Fuzz what reads other people's bytes: ``python -m tests.fuzz``, or ``make fuzz``.

Arguments are names of targets; without them all take turns, one process at a time. ``--seconds``
says how long for all of them together; ``--write`` puts the figures, those of earlier sessions
included, into the page about them; ``--kinds`` writes the table of JSON there, and fuzzes nothing.
What is found is kept in build/fuzz.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS, Target
from tests.page_tables import put

FOLDER: Final = Path("build/fuzz")
FIGURES: Final = FOLDER / "figures.json"
PAGE: Final = Path("docs/evidence/fuzzing.md")
MEMORY: Final = 1_500
"""Megabytes that a process may take: an input that needs more is a finding."""
LONGEST: Final = 8_192
"""Bytes of an input."""
HANG: Final = 120
"""Seconds for one input, on however busy a machine."""
_EXECUTED: Final = re.compile(r"^stat::number_of_executed_units: (\d+)$", re.MULTILINE)
_COVERED: Final = re.compile(r" ft: (\d+) ")
NO_ATHERIS: Final = (
    "atheris is not installed here, so nothing is fuzzed (it is built for CPython 3.11 to 3.14 on "
    "Linux, x86-64); `.venv/bin/python -m pytest tests/fuzz` reads the corpus anywhere."
)


@dataclass
class Figures:
    """What became of a target: in how many executions, in how many seconds."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    features: int = 0
    findings: int = 0


def has_build() -> bool:
    """Tell whether there is an atheris for this Python here, so that it should be installed."""
    here = sys.platform, platform.machine(), sys.implementation.name
    return here == ("linux", "x86_64", "cpython") and (3, 11) <= sys.version_info < (3, 15)


def fuzz(target: Target, seconds: int, seed: int = 0) -> tuple[Figures, str]:
    """Fuzz a target in a process of its own; return the figures, and what was found, or "".

    The seed 0 is another one each time.
    """
    grown, found = FOLDER / "corpus" / target.name, FOLDER / "findings"
    grown.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    options = [
        *(f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={HANG}", f"-seed={seed}"),
        *(f"-rss_limit_mb={MEMORY}", "-print_final_stats=1", "-verbosity=1"),
        *(f"-artifact_prefix={found}/{target.name}-", str(grown), str(target.corpus)),
    ]
    log = FOLDER / f"{target.name}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.fuzz.one", target.name, *options]
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    took = time.monotonic() - began
    text = log.read_text("utf-8", "replace")
    executed, features = _EXECUTED.findall(text), _COVERED.findall(text)
    made = Figures(
        target.name,
        int(executed[-1]) if executed else 0,
        round(took, 1),
        int(features[-1]) if features else 0,
        int(code != 0),
    )
    if not code:
        return made, ""
    files = ", ".join(map(str, sorted(set(found.iterdir()) - before))) or "no input was kept"
    why = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|ERROR)\b", line)]
    return made, f"{target.name}: {why[0][:500] if why else f'ended with {code}'}\n  {files}; {log}"


def known_figures() -> dict[str, Figures]:
    """Return the figures of earlier sessions, by target."""
    if not FIGURES.exists():
        return {}
    return {one["target"]: Figures(**one) for one in json.loads(FIGURES.read_text("utf-8"))}


def table(figures: dict[str, Figures]) -> str:
    """Make the table of all targets in Markdown."""
    lines = [
        "| target | reads | who may have written it | executions | s | open findings |",
        "|---|---|---|---|---|---|",
    ]
    for name, target in TARGETS.items():
        one = figures.get(name, Figures(name))
        lines.append(
            f"| `{name}` | {target.reads} | {target.written_by} | {one.executions:,} | "
            f"{one.seconds:,.0f} | {one.findings} |"
        )
    total = sum(one.executions for one in figures.values())
    seconds = sum(one.seconds for one in figures.values())
    findings = sum(one.findings for one in figures.values())
    return "\n".join([*lines, f"| all | | | {total:,} | {seconds:,.0f} | {findings} |"])


def main() -> int:
    """Fuzz; return 1 where something was found, 2 where nothing can be fuzzed."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the same one mutates alike")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--kinds", action="store_true")
    given = parser.parse_args()
    if given.kinds:
        from tests.fuzz.reading_json import table as decisions

        put(PAGE, "json", decisions())
        return 0
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if not 0 < given.seconds < math.inf:
        parser.error(f"--seconds is {given.seconds}; give a number more than 0")
    if find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return 2 if has_build() else 0
    names = given.targets or list(TARGETS)
    known, found = known_figures(), list[str]()
    for name in names:
        made, finding = fuzz(TARGETS[name], max(1, round(given.seconds / len(names))), given.seed)
        print(f"{name}: {made.executions:,} executions in {made.seconds:,.0f} s", flush=True)
        found += [finding] if finding else []
        before = known.get(name, Figures(name))
        made.executions += before.executions
        made.seconds = round(made.seconds + before.seconds, 1)
        known[name] = made
        FIGURES.write_text(json.dumps([asdict(one) for one in known.values()], indent=1) + "\n")
    for one in found:
        print(one, file=sys.stderr)
    if given.write and not found:
        put(PAGE, "fuzzing", table(known))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
