"""How far the runs of a session are, in figures; read as seldom and as cheaply as can be."""

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
"""Seconds that a rate is of, or more where fewer than ENOUGH entries settled in them."""
ENOUGH: Final = 10
SPACING: Final = 1.0
"""Seconds between the samples that rates are computed from."""
SAMPLES: Final = 600


@dataclass(frozen=True, slots=True)
class Figures:
    """Entries by what is known of them; ``rate`` per second, ``eta`` and ``elapsed`` in seconds.

    ``eta`` None: nothing has settled yet, all that is left is running, or nothing has settled for
    longer than it would be to the end. ``held`` were taken by workers that do not answer.

    ``failed`` are those that pytest shows as such, ``unknown`` those that nobody can judge, apart
    from the ``lost``; ``slowest``: the entry that has been running longest, and for how long.
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
    """How fast a number grows, by samples of it. ``began`` is the first: a moment and a number."""

    def __init__(self, began: float, number: int) -> None:
        self._samples = deque([(began, number)], maxlen=SAMPLES)

    def note(self, now: float, number: int) -> None:
        if now - self._samples[-1][0] >= SPACING:
            self._samples.append((now, number))

    def rate(self, now: float, number: int) -> float | None:
        """Per second of late, None where nothing has come yet."""
        for moment, before in reversed(self._samples):
            if now - moment >= SPAN and number - before >= ENOUGH:
                break
        gained, took = number - before, now - moment
        return gained / took if gained > 0 and took > 0 else None


class Meter:
    """Reads the figures of ``runs``; for the thread that made it. :meth:`close` it at the end.

    ``anew``: the runs have just been made. Of earlier ones that are gone on with, what had settled
    by now is no news, and no pace.
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
        """Whether nothing more will happen."""
        return all(page.run.ended.is_set() for page in self._pages)

    def read(self) -> Figures:
        """What there is now. Raises LedgerError."""
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
        """A rate tells of what waits: nobody knows how long what runs will, or what is held.

        Where nothing has settled for longer than it says, it says nothing.
        """
        if done != self._gained[1]:
            self._gained = (now, done)
        if rate is None or left <= apart:
            return None
        eta = left / rate
        return None if now - self._gained[0] > max(SPAN, eta) else eta

    def remarks(self) -> list[str]:
        """What runs have remarked since this was asked last."""
        fresh: list[str] = []
        for number, page in enumerate(self._pages):
            known, told = self._said.get(number, 0), list(page.run.live_warnings)
            self._said[number] = len(told)
            fresh += told[known:]
        return fresh

    def fresh(self) -> list[EntryVerdict]:
        """What has settled between the last two readings, with its receipt."""
        return [
            settled
            for page in self._pages
            for entry in page.fresh
            if (settled := page.ledger.entry_verdict(entry)) is not None
        ]

    def close(self) -> None:
        for page in self._pages:
            page.ledger.close()


class _Page:
    """What has been read of one run; only rows that are new are read again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ledger: Ledger = run.read()
        self.entries = self.ledger.count_entries()
        self.fresh: list[str] = []
        self._position = 0
        self._kinds: dict[str, VerdictStatus] = {}
        self._counts: Counter[VerdictStatus] = Counter()

    def kinds(self) -> Counter[VerdictStatus]:
        """Entries that have a verdict, by its kind."""
        self.fresh = []
        for seq, entry, kind in self.ledger.statuses_since(self._position):
            self._position = seq
            before = self._kinds.get(entry)
            if before is not None:  # a late receipt has corrected it
                self._counts[before] -= 1
            self._kinds[entry] = kind
            self._counts[kind] += 1
            self.fresh.append(entry)
        return self._counts
