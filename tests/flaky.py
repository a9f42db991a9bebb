"""Name the tests that are known to fail by chance: ``tests/flaky.toml``, at best empty.

Nothing else gives a test a second chance. An entry says which test, why it may fail, and until when
that is borne:

    [[test]]
    id = "tests/live/test_x.py::test_y"
    cause = "a sentence: what it meets by chance"
    until = 2026-12-31

The test (all of its parameters) is run up to three times, by pytest-rerunfailures, which counts
the reruns in the last line of the session. Past the day it fails the first time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Final

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along there

FILE: Final = Path(__file__).with_name("flaky.toml")
TRIES: Final = 3
KEYS: Final = {"id", "cause", "until"}


@dataclass(frozen=True, slots=True)
class Flaky:
    """A test's id without parameters, what it meets by chance, and the last day that bears it."""

    id: str
    cause: str
    until: date


def read(path: Path = FILE) -> list[Flaky]:
    """Return the entries of a file; raises ``pytest.UsageError`` for anything else in it."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise pytest.UsageError(f"{path.name}: {error}") from None
    entries = given.pop("test", [])
    if given or not isinstance(entries, list):
        raise pytest.UsageError(f"{path.name}: give nothing but [[test]]")
    for number, entry in enumerate(entries, 1):
        if not _is_whole(entry):
            raise pytest.UsageError(
                f"{path.name}: [[test]] {number}: give id, cause and until, a day like 2026-12-31"
            )
    return [Flaky(**entry) for entry in entries]


def _is_whole(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == KEYS
        and all(isinstance(entry[key], str) and entry[key].strip() for key in ("id", "cause"))
        and type(entry["until"]) is date
    )


def today() -> date:
    """Return the day by UTC."""
    return datetime.now(timezone.utc).date()


def mark(items: Iterable[pytest.Item], known: Iterable[Flaky], day: date) -> None:
    """Have pytest-rerunfailures run those tests again whose day is not past."""
    borne = {one.id for one in known if day <= one.until}
    for item in items:
        if item.nodeid.partition("[")[0] in borne:
            item.add_marker(pytest.mark.flaky(reruns=TRIES - 1))
