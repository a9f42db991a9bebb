"""Count how far a session's runs are: the figures of their readers, and what memory alone knows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.ledger import utc_now
from pytest_manifest.schema.statuses import outcome

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run


@dataclass(frozen=True, slots=True)
class ProgressStats:
    """Numbers of entries; ``rate`` in entries per second, ``eta`` and ``elapsed`` in seconds.

    ``eta`` is None without a verdict yet, if all that is left is running, and after a time without
    verdicts longer than itself. ``stranded``: taken by workers that do not answer. ``failed``:
    shown by pytest as failed; ``unknown``: that could not be judged, apart from the ``lost``;
    ``slowest``: the entry that has been running longest, and its seconds. ``unattended``: seconds
    since the last sign of a worker, where none is there. ``retrying``: that wait for a next try
    which their task asked for; ``next_try``: the seconds until the first of these is due.
    """

    total: int
    done: int
    sent: int
    running: int
    passed: int
    failed: int
    lost: int
    unknown: int
    skipped: int
    elapsed: float
    rate: float | None = None
    eta: float | None = None
    slowest: tuple[str, float] | None = None
    stranded: int = 0
    unattended: float | None = None
    retrying: int = 0
    next_try: float | None = None


class Meter:
    """Count the entries of ``runs``, in the thread that made it; :meth:`close` it at the end.

    ``anew``: the runs have just been made. In a run that is resumed or audited, the verdicts from
    before count neither as new nor for the rate; nor do those of entries that are reused.
    """

    def __init__(
        self, runs: Sequence[Run], *, anew: bool = True, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._runs = [_Followed(run, clock) for run in runs]
        self._began = time.monotonic()
        for one in self._runs:
            one.reader.read()
            if not anew:
                one.reader.pace.begin(one.reader.now)

    @property
    def over(self) -> bool:
        """Return whether all runs have ended."""
        return all(one.run.ended.is_set() for one in self._runs)

    def read(self) -> ProgressStats:
        """Return the present numbers. Raises LedgerError."""
        for one in self._runs:
            one.reader.read()
        shown = Counter[str]()
        for one in self._runs:
            for status, count in one.reader.entries.counts.items():
                shown["lost" if status == "lost" else outcome(status)] += count
        rates = [rate for one in self._runs if (rate := one.rate()) is not None]
        retries = [due for one in self._runs for due in one.retries()]
        due = [at for at in retries if at is not None]
        deserted = [at for one in self._runs if (at := one.run.signals.nobody_since) is not None]
        running = [one.running() for one in self._runs]
        longest = [first for _, first in running if first is not None]
        now = time.monotonic()
        return ProgressStats(
            total=sum(one.reader.entries.total for one in self._runs),
            done=shown.total(),
            sent=sum(one.reader.entries.sent for one in self._runs),
            running=sum(number for number, _ in running),
            passed=shown["passed"],
            failed=shown["failed"],
            lost=shown["lost"],
            unknown=shown["error"],
            skipped=shown["skipped"],
            elapsed=now - self._began,
            rate=sum(rates) if rates else None,
            eta=self._eta(),
            slowest=max(longest, key=lambda one: one[1], default=None),
            stranded=sum(one.stranded() for one in self._runs),
            unattended=now - min(deserted) if deserted else None,
            retrying=len(retries),
            next_try=min(due) - self._runs[0].reader.now if due else None,
        )

    def _eta(self) -> float | None:
        """Return the seconds until all waiting entries have a verdict, None without an estimate."""
        open_ones = [one for one in self._runs if not one.is_complete()]
        ends = [one.eta() for one in open_ones]
        known = [end for end in ends if end is not None]
        return max(known) if known and len(known) == len(ends) else None

    def new_warnings(self) -> list[str]:
        """Return the runs' warnings since the last call."""
        fresh: list[str] = []
        for one in self._runs:
            found = list(one.run.live_warnings)[one.warned :]
            one.warned += len(found)
            fresh += found
        return fresh

    def close(self) -> None:
        for one in self._runs:
            one.reader.close()


class _Followed:
    """A run of this session, with the reader of its ledger."""

    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self.run = run
        self.reader = RunReader(run.ledger_path, detail=False, clock=clock)
        self.warned = 0

    def is_complete(self) -> bool:
        return self.reader.entries.done >= self.reader.entries.total

    def rate(self) -> float | None:
        return self.reader.pace.rate(self.reader.now)

    def stranded(self) -> int:
        return sum(one.stranded for one in self.run.in_flight())

    def eta(self) -> float | None:
        found = self.reader.foreseen(self.reader.now, held=self.stranded())
        return None if found is None else found.seconds

    def running(self) -> tuple[int, tuple[str, float] | None]:
        """Return how many entries run, and the one that has longest, with its seconds."""
        going = self.reader.under_way()
        if not going:
            return 0, None
        first = going[0][1]
        name = self.reader.names([first.entry]).get(first.entry, "")
        return len({one.entry for _, one in going}), (name, self.reader.now - first.since)

    def retries(self) -> list[float | None]:
        """Return when what waits for its next try is due."""
        reader = self.reader
        waiting = reader.running.retrying.values()
        return [due for entry, due in waiting if not reader.entries.is_done(entry)]
