"""Check the file that a command is to write, and make its folder."""

from __future__ import annotations

from pathlib import Path

from pytest_manifest.errors import PlanError
from pytest_manifest.manifest.writer import writing


def check_target(target: Path | None, *, force: bool, json: bool) -> None:
    """Raise PlanError for a file that is there, or for ``--json`` without a file."""
    if target is None:
        if json:
            raise PlanError("--json describes a file that was written; name one with -o FILE")
    elif target.exists() and not force:
        raise PlanError(f"{target}: is there already; name another file, or add --force")


def make_folder(target: Path) -> None:
    """Make the file's folder. Raises ManifestError, which names the file."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
