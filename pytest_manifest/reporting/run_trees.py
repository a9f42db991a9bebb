"""Keep what was read of a run's trees for all reports of a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.reporting.descendants import RunTrees, read_trees

if TYPE_CHECKING:
    from pytest_manifest.run import Run

_TREES: Final = pytest.StashKey[dict[Path, RunTrees]]()


def trees_of(run: Run, config: pytest.Config) -> RunTrees:
    """Return the trees of a run that is over, read at the first call."""
    known = config.stash.setdefault(_TREES, {})
    if run.ledger_path not in known:
        with run.read() as ledger:
            known[run.ledger_path] = read_trees(ledger)
    return known[run.ledger_path]
