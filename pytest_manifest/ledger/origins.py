"""Which run an attempt is of: a merged ledger has the attempts of several."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_manifest.schema.wire import RUN8_LENGTH


class TaskRuns:
    """The runs that a ledger has attempts of: its own, and those that it was merged of."""

    def __init__(self, run: str, merged: Iterable[str]) -> None:
        self._run = run
        self._merged = {one[-RUN8_LENGTH:]: one for one in merged}

    def run_of(self, task_id: str) -> str:
        """The id of the run that sent the attempt: all its task ids begin with the run's last
        characters. The ledger's own run, where it was merged of none of that name."""
        return self._merged.get(task_id[:RUN8_LENGTH], self._run)
