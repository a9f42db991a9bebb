"""Find the runs that a command line names: by id, the beginning of one, a path, or ``last``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pytest_manifest.errors import LedgerError
from pytest_manifest.ini import pytest_setting, pytest_settings
from pytest_manifest.text import listed

NAME: Final = "runs"
"""The folder of runs in pytest's ``manifest_dir``."""
LAST: Final = "last"
_SHOWN: Final = 5
"""Runs that a message names at most."""


def runs_folder(given: Path | None) -> Path:
    """Return the folder of runs: the one given, else where pytest, started here, keeps them."""
    if given is not None:
        return given
    here = Path.cwd()
    # As pytest does, whose root folder is the nearest that has its configuration.
    roots = (place for place in (here, *here.parents) if pytest_settings(place)[0] is not None)
    root = next(roots, here)
    return root / (pytest_setting(root, "manifest_dir") or ".manifest") / NAME


def find_run(text: str, folder: Path) -> Path:
    """Return the ledger of the run that ``text`` names.

    Raises LedgerError where there is none, or several begin like that.
    """
    from pytest_manifest.ledger.run_files import find_ledger

    if text == LAST:
        return _last(folder)
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix == ".sqlite":
        raise LedgerError(f"{path}: there is no such ledger; check the path")
    found = find_ledger(folder, text)
    if found is not None:
        return found
    there = listed(run_ids(folder), _SHOWN) or "none"
    raise LedgerError(
        f"there is no file {text!r}, and no run of that name in {folder}; runs there: {there}"
    )


def run_ids(folder: Path) -> list[str]:
    """Return the ids of the runs in a folder, newest first."""
    from pytest_manifest.ledger.run_files import ledgers_in

    return [path.stem for path in reversed(ledgers_in(folder))]


def _last(folder: Path) -> Path:
    from pytest_manifest.ledger import find_runs

    runs = find_runs(folder)
    if not runs:
        raise LedgerError(
            f"there is no run in {folder}; dispatch a manifest first with pytest --manifest=FILE, "
            "or name another folder with --runs"
        )
    return runs[-1]
