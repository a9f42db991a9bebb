"""Count how far a session's runs are, with as few and as cheap readings as possible."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_manifest.ledger import utc_now
from pytest_manifest.schema.statuses import UNSENT, outcome

if TYPE_CHECKING:
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.run.run import Run
    from pytest_manifest.schema import VerdictStatus

SPAN: Final = 20.0
"""Seconds over which a rate is measured; more if fewer than ENOUGH verdicts came in them."""
ENOUGH: Final = 10
SPACING: Final = 1.0
"""Seconds between the samples that rates are computed from."""
SAMPLES: Final = 600


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


class Pace:
    """Measure how fast a number grows, by samples; the first is ``number`` at ``began``, in s."""

    def __init__(self, began: float, number: int) -> None:
        self._samples = deque([(began, number)], maxlen=SAMPLES)

    def add(self, now: float, number: int) -> None:
        if now - self._samples[-1][0] >= SPACING:
            self._samples.append((now, number))

    def rate(self, now: float, number: int) -> float | None:
        """Return the recent growth per second, None if the number has not grown."""
        for moment, before in reversed(self._samples):
            if now - moment >= SPAN and number - before >= ENOUGH:
                break
        gained, took = number - before, now - moment
        return gained / took if gained > 0 and took > 0 else None


class Meter:
    """Count the entries of ``runs``, in the thread that made it; :meth:`close` it at the end.

    ``anew``: the runs have just been made. In a run that is resumed or audited, the verdicts from
    before count neither as new nor for the rate; nor do those of entries that are reused.
    """

    def __init__(self, runs: Sequence[Run], *, anew: bool = True) -> None:
        self._readers = [_RunReader(run) for run in runs]
        self._total = sum(reader.entries for reader in self._readers)
        self._began = time.monotonic()
        self._reused = counted = sum(reader.reused for reader in self._readers)
        if not anew:
            counted = sum(sum(one.status_counts().values()) for one in self._readers)
        self._pace = Pace(self._began, counted)
        self._last_gain = (self._began, counted)

    @property
    def over(self) -> bool:
        """Return whether all runs have ended."""
        return all(reader.run.ended.is_set() for reader in self._readers)

    def read(self) -> ProgressStats:
        """Return the present numbers. Raises LedgerError."""
        now = time.monotonic()
        counts: Counter[VerdictStatus] = Counter()
        for reader in self._readers:
            counts.update(reader.status_counts())
        attempts = [one for reader in self._readers for one in reader.run.in_flight()]
        # None runs what waits for its next try, and that whose process has died.
        started = [
            (one.started, one.entry.id)
            for one in attempts
            if one.is_running and one.loss is None and one.started is not None
        ]
        stranded = sum(one.stranded for one in attempts)
        retries = [end for one in attempts if (end := one.between) and end.how == "retry"]
        due = [end.next_at for end in retries if end.next_at is not None]
        deserted = [at for one in self._readers if (at := one.run.signals.nobody_since) is not None]
        shown = Counter[str]()
        for status, count in counts.items():
            shown["lost" if status == "lost" else outcome(status)] += count
        done = counts.total()
        self._pace.add(now, done)
        rate = self._pace.rate(now, done)
        ended_unsent = sum(count for status, count in counts.items() if status in UNSENT)
        in_all = done - ended_unsent + len(attempts)
        since, slowest = min(started, default=(now, ""))
        return ProgressStats(
            total=self._total,
            done=done,
            sent=max(0, min(in_all, self._total) - self._reused),
            running=len(started),
            passed=shown["passed"],
            failed=shown["failed"],
            lost=shown["lost"],
            unknown=shown["error"],
            skipped=shown["skipped"],
            elapsed=now - self._began,
            rate=rate,
            eta=self._eta(now, done, rate, apart=len(started) + stranded),
            slowest=(slowest, now - since) if started else None,
            stranded=stranded,
            unattended=now - min(deserted) if deserted else None,
            retrying=len(retries),
            next_try=(min(due) - utc_now()).total_seconds() if due else None,
        )

    def _eta(self, now: float, done: int, rate: float | None, *, apart: int) -> float | None:
        """Return the seconds until all waiting entries have a verdict, None without an estimate.

        The rate says nothing about entries that run or are stranded (``apart``). There is no
        estimate after a time without verdicts that is longer than SPAN and than the estimate.
        """
        if done != self._last_gain[1]:
            self._last_gain = (now, done)
        left = self._total - done
        if rate is None or left <= apart:
            return None
        eta = left / rate
        return None if now - self._last_gain[0] > max(SPAN, eta) else eta

    def new_warnings(self) -> list[str]:
        """Return the runs' warnings since the last call."""
        fresh: list[str] = []
        for reader in self._readers:
            found = list(reader.run.live_warnings)[reader.warned :]
            reader.warned += len(found)
            fresh += found
        return fresh

    def close(self) -> None:
        for reader in self._readers:
            reader.ledger.close()


class _RunReader:
    """Read one run's verdicts; each reading takes the new rows alone."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ledger: Ledger = run.read()
        self.entries = self.ledger.attempts.count_entries()
        self.reused = sum(self.ledger.queries.reused_runs().values())
        self.warned = 0
        self._position = 0
        self._statuses: dict[str, VerdictStatus] = {}
        self._counts: Counter[VerdictStatus] = Counter()

    def status_counts(self) -> Counter[VerdictStatus]:
        """Read the new verdicts; return the number of entries by verdict."""
        for seq, entry, status in self.ledger.verdicts.since(self._position):
            self._position = seq
            before = self._statuses.get(entry)
            if before is not None:  # a late receipt has corrected it
                self._counts[before] -= 1
            self._statuses[entry] = status
            self._counts[status] += 1
        return self._counts
