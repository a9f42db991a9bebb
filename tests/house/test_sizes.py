"""Modules can be read at a sitting, and the whole has no more weight than is agreed.

Whoever raises a bound says why where the change is described.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from benchmarks.house import code_lines
from pytest_manifest.plugin.options import ROWS
from tests.house.conftest import ROOT
from tests.page_tables import rows

MOST_LINES = 600
BOUNDS = {
    "modules of the package": 301,
    "lines of code of the package": 50_492,
    "options": 37,
    "options and settings": 61,
    "words of the documents": 55_000,
    "lines of the tests": 128_712,
}
"""What there may be at most. Code is what is neither blank, comment nor docstring."""
MINUTES_OF_RING_1 = 42
"""What the tests of ring 1 may cost by the table of tests/README.md, all processes together."""
PAPERS = ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY")


def test_no_module_is_longer_than_can_be_read() -> None:
    package = ROOT / "pytest_manifest"
    lengths = {
        path.relative_to(package).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in package.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_code_is_what_is_neither_blank_nor_comment_nor_docstring() -> None:
    text = (
        '"""Doc\n\nstring."""\n\n# comment\ndef f():\n    """Doc."""\n    return """a\nb"""  # c\n'
    )
    assert code_lines(text) == 3


@cache
def weights() -> dict[str, int]:
    """Return the weight of everything that has a bound."""
    modules = sorted((ROOT / "pytest_manifest").rglob("*.py"))
    papers = [
        ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY")
    ]
    tests = (path for path in (ROOT / "tests").rglob("*.py") if path.is_file())
    return {
        "modules of the package": len(modules),
        "lines of code of the package": sum(code_lines(one.read_text("utf-8")) for one in modules),
        "options": sum(one.is_typed for one in ROWS.values()),
        "options and settings": len(ROWS),
        "words of the documents": sum(map(words, [*papers, *(ROOT / "docs").rglob("*.md")])),
        "lines of the tests": sum(len(one.read_text("utf-8").splitlines()) for one in tests),
    }


def words(path: Path) -> int:
    return len(path.read_text("utf-8").split())


@pytest.mark.parametrize("name", BOUNDS)
def test_nothing_is_heavier_than_is_agreed(name: str) -> None:
    """Nor has a bound become so loose that it holds nothing: within a twentieth."""
    found, bound = weights()[name], BOUNDS[name]
    assert bound * 0.95 <= found <= bound, f"{name}: {found:,} of {bound:,}"


def test_ring_1_takes_no_longer_than_is_agreed() -> None:
    """As it was measured last: make durations WRITE=after."""
    (row,) = (
        one
        for one in rows(ROOT / "tests" / "README.md", "durations after")
        if one["folder"] == "`all of ring 1`"
    )
    assert int(row["s by the clock"].replace(",", "")) <= 60 * MINUTES_OF_RING_1
