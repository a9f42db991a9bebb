"""Decide which ring each test is of, and which tests one run of a ring plays.

Ring 1 is what everyone waits for (``make test``): rules, sessions, the contract, a smoke of each
part. Ring 2 is everything else (``make test-all`` runs both). A test is of its folder's ring;
``@pytest.mark.ring(1)`` or ``ring(2)`` on a test, a class, a module or a ``pytest.param`` says
otherwise, and the innermost mark counts.

Options of this suite (they are in ``tests/conftest.py``'s namespace):

- ``--ring=1`` or ``--ring=2`` runs the tests of that ring alone; without it all that are named.
- ``--part=K/N`` runs the K-th of N parts of them, K counted from 0 and taken modulo N, so that the
  number of a commit may be given. Each test is in one part, by its id; samples that take turns by
  the day are whole then, as the parts are what takes turns.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.turns import WHOLE_VARIABLE

ROOT: Final = Path(__file__).resolve().parent.parent
RINGS: Final = (1, 2)
OF_FOLDERS: Final = {
    **dict.fromkeys(("unit", "house", "typing", "contract", "plugin"), 1),
    **dict.fromkeys(("simulation", "model", "fuzz", "mutants"), 1),
    **dict.fromkeys(("live", "docs", "stacks", "frameworks", "neighbours"), 2),
    **dict.fromkeys(("pipelines", "writes", "chaos"), 2),
    "workflows": 2,
    "workflows/unit": 1,
}
"""The ring of each folder of tests; a folder that is not here cannot be collected."""
SPELLINGS: Final = {1: ("mark.ring(1)",), 2: ("mark.ring(2)", "_LATER")}
"""How a file names a ring; parameters that files share, some of ring 2, end in ``_LATER``."""
ORDINARY: Final = 100
"""How many examples Hypothesis tries of itself."""
FEW: Final = 20
"""How many it tries in ring 1."""
RECORDS_ARE_CHECKED: Final = frozenset({"simulation", "contract", "live", "workflows"})
"""The folders whose tests' records of runs are checked in ring 1, too."""


def folder_of(nodeid: str) -> str:
    """Return the folder below ``tests`` of a test's id; "" for a test outside."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if parts[0] == "tests" and len(parts) > 2 else ""


def _of_folders(nodeid: str) -> int | None:
    """Return the ring of the innermost folder that has one."""
    folders = nodeid.partition("::")[0].split("/")[1:-1]
    names = ("/".join(folders[:deep]) for deep in range(len(folders), 0, -1))
    return next((OF_FOLDERS[name] for name in names if name in OF_FOLDERS), None)


def ring_of(nodeid: str, marked: int | None) -> int:
    """Return a test's ring: that of its innermost mark, else that of its innermost folder.

    Raises ``pytest.UsageError`` for a folder without a ring and for a mark of no ring.
    """
    ring = _of_folders(nodeid) if marked is None else marked
    if ring not in RINGS:
        where = "is marked with no ring" if marked is not None else "is in a folder of no ring"
        raise pytest.UsageError(f"{nodeid} {where}: {ring}; see tests/rings.py")
    return ring


def part_of(text: str) -> tuple[int, int]:
    """Read ``K/N`` as the number of a part and how many there are; ``ValueError`` for others."""
    number, _, parts = text.partition("/")
    if int(parts) < 1:
        raise ValueError(text)
    return int(number) % int(parts), int(parts)


def is_in_part(nodeid: str, number: int, parts: int) -> bool:
    """Return whether a test is in a part; a test keeps its part while it keeps its id."""
    return zlib.crc32(nodeid.encode()) % parts == number


def mark_of(item: pytest.Item) -> int | None:
    """Return the ring of a test's innermost mark."""
    mark = item.get_closest_marker("ring")
    return int(mark.args[0]) if mark is not None else None


def chosen(
    items: Sequence[pytest.Item], ring: int | None, part: tuple[int, int] | None
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests that a run plays, and those it does not."""
    played: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        is_played = (ring is None or ring == ring_of(item.nodeid, mark_of(item))) and (
            part is None or is_in_part(item.nodeid, *part)
        )
        (played if is_played else left).append(item)
    return played, left


def is_without(path: Path, ring: int) -> bool:
    """Return whether no test of a file is of a ring: by its folder, and as no mark names the ring.

    Importing the tests of the other ring takes each process longer than many of them take to run.
    """
    place = path.relative_to(ROOT).as_posix()
    if not path.name.startswith("test_") or _of_folders(place) in (None, ring):
        return False
    text = path.read_text("utf-8")
    return not any(spelling in text for spelling in SPELLINGS[ring])


def refuse_hidden(items: Sequence[pytest.Item]) -> None:
    """Raise ``pytest.UsageError`` for a test whose mark stands elsewhere than in its file.

    A run of its ring would pass over the file, and nobody would miss the test.
    """
    found = {(item.path, mark): item for item in items if (mark := mark_of(item)) is not None}
    for (path, ring), item in found.items():
        if path.is_relative_to(ROOT / "tests") and is_without(path, ring):
            raise pytest.UsageError(f"{item.nodeid}: write mark.ring({ring}) into {path.name}")


def add_options(parser: pytest.Parser) -> None:
    """Add ``--ring`` and ``--part``."""
    group = parser.getgroup("rings", "rings of this suite")
    group.addoption("--ring", type=int, choices=RINGS, help="run the tests of this ring alone")
    group.addoption("--part", metavar="K/N", help="run the K-th of N parts of the tests")


def configure(config: pytest.Config) -> None:
    """Refuse a part that is none; have samples be whole where parts take turns; choose examples."""
    choose_examples(1 if config.getoption("ring", None) == 1 else 2)
    text = config.getoption("part", None)
    if text is None:
        return
    try:
        part_of(text)
    except ValueError:
        raise pytest.UsageError(f"--part={text}: give K/N, like 3/12") from None
    os.environ[WHOLE_VARIABLE] = "1"


def choose_examples(ring: int) -> None:
    """Load Hypothesis' profile of a ring, before the modules of tests read it.

    Ring 1 tries a few examples, the same ones each time: no run draws another end. Ring 2 tries as
    many as Hypothesis does of itself. Neither asks how long one takes: that is the machine's.
    """
    fewer = {"max_examples": FEW, "derandomize": True} if ring == 1 else {}
    name = f"ring {ring}"
    settings.register_profile(name, settings(), deadline=None, **fewer)
    settings.load_profile(name)


def examples(count: int) -> int:
    """Return how many of the examples that a test asks for are tried in the ring that is run."""
    return max(count * settings().max_examples // ORDINARY, 1)


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not of the ring or the part that is asked for."""
    text = config.getoption("part", None)
    played, left = chosen(items, config.getoption("ring", None), text and part_of(text))
    refuse_hidden(items)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = played


def ignore(path: Path, config: pytest.Config) -> bool | None:
    """Have a file passed over of which the ring that is asked for has no test."""
    ring = config.getoption("ring", None)
    is_ours = ring is not None and path.is_file() and path.is_relative_to(ROOT / "tests")
    return True if is_ours and is_without(path, ring) else None


def checks_records(config: pytest.Config, nodeid: str) -> bool:
    """Return whether the record of each run that a test has made is checked after it.

    It always is, but in a run of ring 1 alone: there in the folders whose runs are like no others.
    """
    return config.getoption("ring", None) != 1 or folder_of(nodeid) in RECORDS_ARE_CHECKED
