"""Count how far a session's runs are, with as few and as cheap readings as possible."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_manifest.verdict import outcome

if TYPE_CHECKING:
    from pytest_manifest.ledger import EntryVerdict, Ledger
    from pytest_manifest.run import Run
    from pytest_manifest.schema import VerdictStatus

NEVER_SENT: Final = frozenset({"skipped", "unknown_task"})
SPAN: Final = 20.0
"""Seconds over which a rate is measured; more if fewer than ENOUGH verdicts came in them."""
ENOUGH: Final = 10
SPACING: Final = 1.0
"""Seconds between the samples that rates are computed from."""
SAMPLES: Final = 600


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of entries; ``rate`` in entries per second, ``eta`` and ``elapsed`` in seconds.

    ``eta`` is None without a verdict yet, if all that is left is running, and after a time without
    verdicts longer than itself. ``held``: taken by workers that do not answer. ``failed``: shown by
    pytest as failed; ``unknown``: that could not be judged, apart from the ``lost``; ``slowest``:
    the entry that has been running longest, and its seconds.
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
    held: int = 0


class Pace:
    """Measure how fast a number grows, by samples; the first is ``number`` at ``began``, in s."""

    def __init__(self, began: float, number: int) -> None:
        self._samples = deque([(began, number)], maxlen=SAMPLES)

    def note(self, now: float, number: int) -> None:
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
    """Read the figures of ``runs``, in the thread that made it; :meth:`close` it at the end.

    ``anew``: the runs have just been made. In a run that is resumed or audited, the verdicts from
    before count neither as new nor for the rate.
    """

    def __init__(self, runs: Sequence[Run], *, anew: bool = True) -> None:
        self._pages = [_Page(run) for run in runs]
        self._total = sum(page.entries for page in self._pages)
        self._began = time.monotonic()
        before = 0 if anew else sum(sum(page.kinds().values()) for page in self._pages)
        self._pace = Pace(self._began, before)
        self._gained = (self._began, before)
        self._said: dict[int, int] = {}

    @property
    def over(self) -> bool:
        """Return whether all runs have ended."""
        return all(page.run.ended.is_set() for page in self._pages)

    def read(self) -> Figures:
        """Return the present figures. Raises LedgerError."""
        now = time.monotonic()
        kinds: Counter[VerdictStatus] = Counter()
        flying = running = held = 0
        slowest: tuple[str, float] | None = None
        for page in self._pages:
            kinds.update(page.kinds())
            flights = page.run.in_flight()
            held += sum(flight.stranded for flight in flights)
            begun = [(f.started, f.entry.id) for f in flights if f.started is not None]
            flying, running = flying + len(flights), running + len(begun)
            if begun:
                since, entry = min(begun)
                if slowest is None or now - since > slowest[1]:
                    slowest = (entry, now - since)
        return self._figures(now, kinds, flying, running, held, slowest)

    def _figures(
        self,
        now: float,
        kinds: Counter[VerdictStatus],
        flying: int,
        running: int,
        held: int,
        slowest: tuple[str, float] | None,
    ) -> Figures:
        shown = Counter[str]()
        for kind, count in kinds.items():
            shown["lost" if kind == "lost" else outcome(kind)] += count
        done = sum(kinds.values())
        self._pace.note(now, done)
        rate = self._pace.rate(now, done)
        left = self._total - done
        never = sum(count for kind, count in kinds.items() if kind in NEVER_SENT)
        return Figures(
            total=self._total,
            done=done,
            sent=min(done - never + flying, self._total),
            running=running,
            passed=shown["passed"],
            failed=shown["failed"],
            lost=shown["lost"],
            unknown=shown["error"],
            skipped=shown["skipped"],
            elapsed=now - self._began,
            rate=rate,
            eta=self._eta(now, done, rate, left, apart=running + held),
            slowest=slowest,
            held=held,
        )

    def _eta(
        self, now: float, done: int, rate: float | None, left: int, *, apart: int
    ) -> float | None:
        """Return the seconds until all waiting entries have a verdict, None without an estimate.

        The rate says nothing about entries that run or are held (``apart``). There is no estimate
        after a time without verdicts that is longer than SPAN and than the estimate.
        """
        if done != self._gained[1]:
            self._gained = (now, done)
        if rate is None or left <= apart:
            return None
        eta = left / rate
        return None if now - self._gained[0] > max(SPAN, eta) else eta

    def remarks(self) -> list[str]:
        """Return the runs' warnings since the last call."""
        fresh: list[str] = []
        for number, page in enumerate(self._pages):
            known, told = self._said.get(number, 0), list(page.run.live_warnings)
            self._said[number] = len(told)
            fresh += told[known:]
        return fresh

    def fresh(self) -> list[EntryVerdict]:
        """Return the verdicts, with receipts, that came between the last two readings."""
        return [
            settled
            for page in self._pages
            for entry in page.fresh
            if (settled := page.ledger.verdicts.of_entry(entry)) is not None
        ]

    def close(self) -> None:
        for page in self._pages:
            page.ledger.close()


class _Page:
    """Read one run's verdicts; each reading takes the new rows alone."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ledger: Ledger = run.read()
        self.entries = self.ledger.attempts.count_entries()
        self.fresh: list[str] = []
        self._position = 0
        self._kinds: dict[str, VerdictStatus] = {}
        self._counts: Counter[VerdictStatus] = Counter()

    def kinds(self) -> Counter[VerdictStatus]:
        """Read the new verdicts; return the number of entries by verdict."""
        self.fresh = []
        for seq, entry, kind in self.ledger.verdicts.statuses_since(self._position):
            self._position = seq
            before = self._kinds.get(entry)
            if before is not None:  # a late receipt has corrected it
                self._counts[before] -= 1
            self._kinds[entry] = kind
            self._counts[kind] += 1
            self.fresh.append(entry)
        return self._counts
