"""The layers: import-linter holds them, and ARCHITECTURE.md shows the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def layers(root: Path) -> list[str]:
    """The layers in import-linter's configuration, top first, as bare names."""
    config = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    contract = next(c for c in config["contracts"] if c["type"] == "layers")
    assert contract["exhaustive"] is True
    return [layer.strip("()") for layer in contract["layers"]]


def test_every_contract_is_kept(root: Path) -> None:
    """Layers, who may import pytest and Celery, and no cycle at any depth."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_architecture_page_shows_these_layers(root: Path, layers: list[str]) -> None:
    """Its table has each layer once, in the same order."""
    text = (root / "ARCHITECTURE.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert rows == layers


def test_the_architecture_page_is_one_page(root: Path) -> None:
    """A newcomer reads it first, so it is short."""
    assert len((root / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 100
