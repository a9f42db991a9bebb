"""The floors: import-linter holds them, and ARCHITECTURE.md shows the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib


@pytest.fixture(scope="session")
def floors(root: Path) -> list[set[str]]:
    """The floors in import-linter's configuration, top first, each with its modules' names."""
    config = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    contract = next(c for c in config["contracts"] if c["type"] == "layers")
    assert contract["exhaustive"] is True
    return [set(re.findall(r"\w+", floor)) for floor in contract["layers"]]


def test_every_contract_is_kept(root: Path) -> None:
    """Floors, who may import pytest and Celery, and no cycle at any depth."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_architecture_page_shows_these_floors(root: Path, floors: list[set[str]]) -> None:
    """Its table has each module once, floor by floor down to the ground."""
    text = (root / "ARCHITECTURE.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", text, re.MULTILINE)
    numbers = [int(floor) for floor, _ in rows]
    assert numbers == sorted(numbers, reverse=True)
    shown = [{name for floor, name in rows if int(floor) == one} for one in range(len(floors))]
    assert shown[::-1] == floors
    assert len(rows) == sum(map(len, floors))


def test_the_architecture_page_is_one_page(root: Path) -> None:
    """A newcomer reads it first, so it is short."""
    assert len((root / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 100
