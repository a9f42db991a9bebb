"""Modules are short enough to be read at a sitting."""

from __future__ import annotations

from tests.house.conftest import ROOT

MOST_LINES = 400


def test_no_module_is_longer_than_can_be_read() -> None:
    package = ROOT / "pytest_manifest"
    lengths = {
        path.relative_to(package).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in package.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
