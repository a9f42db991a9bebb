"""Modules are short enough to be read at a sitting."""

from __future__ import annotations

from tests.house.conftest import ROOT

MOST_LINES = 400
TO_BE_SPLIT = {"plugin/session.py": 470}
"""Modules that hold too much, and the lines that each may have until then: never more."""


def test_no_module_is_longer_than_can_be_read() -> None:
    package = ROOT / "pytest_manifest"
    lengths = {
        path.relative_to(package).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in package.rglob("*.py")
    }
    too_long = {
        name: lines for name, lines in lengths.items() if lines > TO_BE_SPLIT.get(name, MOST_LINES)
    }
    assert too_long == {}
    assert {name for name in TO_BE_SPLIT if lengths[name] <= MOST_LINES} == set()
