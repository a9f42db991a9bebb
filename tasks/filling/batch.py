"""Run a batch: find its gaps, ask for a few at a time, and commit as answers come.

Calls run in threads; everything else, above all the database, runs in the batch's own thread. A row
is committed as soon as its call is answered, so that what was paid for is never asked again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from loguru import logger

from tasks.filling.asking import Asker, Group, Outcome, ask
from tasks.filling.cap import Cap
from tasks.filling.carried import CHANGED, add_documents
from tasks.filling.gaps import Gap
from tasks.filling.order import Order
from tasks.filling.prompts import Wanted
from tasks.filling.report import Report
from tasks.filling.writing import Provenance, RowWriter
from tasks.movie_bible.bible import BibleError, MovieBible
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model.failures import ModelFailure, TooLong
from tasks.text_model.retrying import SALVAGE_SECONDS, CallCounts


class BatchStoppedError(Exception):
    """A batch that ended before it was through; what was done is committed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``concurrency``: calls at once; ``per_call``: passages in one; ``asks_alone``: tries for a
    passage alone; ``timeout``: seconds for one call."""

    concurrency: int = 4
    per_call: int = 5
    asks_alone: int = 3
    timeout: float = 60.0


class Batch:
    """One execution of ``process_batch_task``; use :meth:`run` once.

    ``progress`` is told of every answered call, before its rows are written, in the thread that
    runs the batch.
    """

    def __init__(
        self,
        bible: MovieBible,
        asker: Asker,
        limits: Limits,
        provenance: Provenance,
        progress: Callable[[Report], None],
    ) -> None:
        self._bible = bible
        self._asker = asker
        self._limits = limits
        self._progress = progress
        self._stop = threading.Event()
        self._waiting: deque[Group] = deque()
        self._flying: dict[Future[Outcome], Group] = {}
        self._counts: dict[Future[Outcome], CallCounts] = {}
        self._counted: set[Future[Outcome]] = set()
        self._given_up: set[Future[Outcome]] = set()
        self._gaps: dict[str, Gap] = {}
        self._passages: dict[str, ScannedPassage] = {}
        self._writer = RowWriter(bible, asker, provenance, self._gaps, self._passages)
        self._provenance = provenance
        self._cap: Cap | None = None
        self._fatal: ModelFailure | None = None
        self._until = float("inf")
        self.report = Report()

    def run(self, ids: Sequence[str], order: Order, *, seconds: float = float("inf")) -> None:
        """Fill what is missing, within ``seconds``.

        Raises BatchStoppedError when time is over, CapReachedError where the next call would cost
        more than the order allows, and the ModelFailure that no call can overcome.
        Whatever is raised, :attr:`report` says what is committed.
        """
        self._until = time.monotonic() + seconds
        changed = add_documents(self._bible, order, self._asker.prompt.version)
        for one in sorted(changed):
            self.report.gave_up(one, *CHANGED)
        self._find_gaps([one for one in ids if one not in changed], order)
        self._cap = self._cap_of(ids, order)
        pool = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="text-model")
        try:
            self._work(pool)
        except BibleError:
            self._await_calls()
            for future in self._answered():
                self._count(future)
            self._count_given_up()
            raise
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def may_have_cost(self) -> bool:
        """Return whether a call was made, be it one of which nothing was heard."""
        return bool(self.report.calls or self._flying)

    def salvage(self) -> bool:
        """Commit, after an interruption, the answers that are there or come within a moment.

        Returns whether nothing is left to be done. What is given up may be billed: it is counted.
        """
        self._await_calls()
        for future in self._answered():
            self._settle(future, again=True)
        self._count_given_up()
        complete = not (self._waiting or self._flying)
        self._waiting.clear()
        return complete

    def _await_calls(self) -> None:
        self._stop.set()
        wait(list(self._flying), timeout=SALVAGE_SECONDS)

    def _answered(self) -> list[Future[Outcome]]:
        there = (f for f in self._flying if f.done() and not f.cancelled())
        return [f for f in there if f not in self._given_up]

    def _count_given_up(self) -> None:
        """Report, once, what the groups have cost that are not waited for, as far as is known."""
        for future, group in self._flying.items():
            if future not in self._counted:
                self._counted.add(future)
                self._given_up.add(future)
                counts = self._counts[future].so_far()
                self.report.count(Outcome(group, counts, self._asker.spent(counts.bills)))
                self._progress(self.report)

    # Gaps

    def _find_gaps(self, ids: Sequence[str], order: Order) -> None:
        self._passages.update(self._bible.scan_ids(ids, order.prompt))
        wanted: list[Wanted] = []
        for passage_id in ids:
            passage = self._passages.get(passage_id)
            if passage is None:
                self.report.gave_up(
                    passage_id, "no_passage", "the database has no passage of this id"
                )
                continue
            gap = order.gap_of(passage)
            if gap is None:
                self.report.was_there(passage_id, passage.current)
                continue
            self._gaps[passage_id] = gap
            wanted.append(Wanted(passage_id, passage.text, gap.fields, passage.film))
        size = self._limits.per_call
        for start in range(0, len(wanted), size):
            self._waiting.append(Group(tuple(wanted[start : start + size])))

    # The cap

    def _cap_of(self, ids: Sequence[str], order: Order) -> Cap | None:
        """Return the order's cap, which what earlier attempts have paid for rows counts towards."""
        if order.cap is None:
            return None
        whose = self._provenance
        writings = self._bible.writings(ids, order.prompt) if whose.run is not None else {}
        earlier = sum(
            one.cost_nanos
            for written in writings.values()
            for one in written
            if (one.run, one.entry) == (whose.run, whose.entry)
        )
        return Cap.of(order.cap, earlier)

    def _asked_and_spent(self) -> int:
        """Return what was paid, and what calls in flight are estimated at, in nano dollars."""
        uncounted = [group for f, group in self._flying.items() if f not in self._counted]
        return self.report.spent.cost_nanos + sum(map(self._asker.estimated_nanos, uncounted))

    def _affords(self, group: Group) -> bool:
        if self._cap is None:
            return True
        if self._asker.price is None:  # one that has ended since it was planned
            return False
        return self._cap.allows(self._asked_and_spent(), self._asker.estimated_nanos(group))

    def _stop_at_cap(self) -> None:
        """Raise CapReachedError where nothing is in flight and the next call is beyond the cap."""
        if self._cap is None or self._flying or self._affords(self._waiting[0]):
            return
        there = len(self.report.rows) + len(self.report.already)
        left = sum(len(group.items) for group in self._waiting)
        passages = there + len(self.report.unfilled) + left
        if self._asker.price is None:
            raise self._cap.unpriced(self._asker.model.name, filled=there, passages=passages)
        raise self._cap.refusal(
            self.report.spent.cost_nanos,
            self._asker.estimated_nanos(self._waiting[0]),
            filled=there,
            passages=passages,
        )

    # The loop

    def _work(self, pool: ThreadPoolExecutor) -> None:
        while self._waiting or self._flying:
            self._launch(pool)
            self._stop_at_cap()
            left = self._until - time.monotonic()
            done, _ = wait(
                list(self._flying),
                timeout=max(0.0, left) if left != float("inf") else None,
                return_when=FIRST_COMPLETED,
            )
            for future in done:
                self._settle(future)
            if self._fatal is not None:
                self.salvage()
                raise self._fatal
            if not done and not self.salvage():
                raise BatchStoppedError("its time is over")

    def _launch(self, pool: ThreadPoolExecutor) -> None:
        while self._waiting and len(self._flying) < self._limits.concurrency:
            left = self._until - time.monotonic()
            if left <= 0:
                return
            group = self._waiting[0]
            if not self._affords(group):
                return
            timeout, counts = min(self._limits.timeout, left), CallCounts()
            future = pool.submit(self._ask, group, counts, timeout)
            self._counts[future] = counts
            self._flying[future] = group
            self._waiting.popleft()

    def _ask(self, group: Group, counts: CallCounts, timeout: float) -> Outcome:
        return ask(self._asker, group, counts, timeout=timeout, stop=self._stop)

    # Answers

    def _settle(self, future: Future[Outcome], *, again: bool = False) -> None:
        """Write the rows of an answered call.

        The call stays in flight until its rows are written: an interruption in the middle leaves it
        to :meth:`salvage` (``again``), which writes nothing twice.
        """
        outcome = self._count(future)
        values = {} if outcome.reading is None else outcome.reading.values
        filled = self._writer.write(values, outcome, again=again)
        del self._flying[future], self._counts[future]
        for passage, row in filled.items():
            self.report.wrote(passage, row, values[passage])
        self._go_on(outcome)

    def _count(self, future: Future[Outcome]) -> Outcome:
        """Report the price of a call once, also where its rows cannot be written."""
        outcome = future.result()
        if future not in self._counted:
            self._counted.add(future)
            self.report.count(outcome)
            self._progress(self.report)
        return outcome

    def _go_on(self, outcome: Outcome) -> None:
        """Ask again for what is still missing, in smaller parts, or give it up."""
        group, failure = outcome.group, outcome.failure
        if failure is not None and failure.fatal:
            self._fatal = failure
        elif failure is not None and failure.splittable and len(group.items) > 1:
            logger.warning("{} passages are asked for in halves: {}", len(group.items), failure)
            self._waiting.extendleft(reversed(group.halves()))
        elif failure is not None:
            # A block may not recur; only a passage that is too long by itself stays too long.
            may_mend = failure.splittable and not isinstance(failure, TooLong)
            for item in group.items:
                self._again_or_give_up(item, group, failure.kind, str(failure), may_mend=may_mend)
        elif outcome.reading is not None:
            for item in group.items:
                problem = outcome.reading.problems.get(item.passage)
                if problem is not None:
                    self._again_or_give_up(
                        item, group, problem.kind, problem.message, may_mend=True
                    )
        else:  # it was given up while it waited for its turn, and is still to be done
            self._waiting.append(group)

    def _again_or_give_up(
        self, item: Wanted, group: Group, kind: str, message: str, *, may_mend: bool
    ) -> None:
        asked = group.asked + 1 if len(group.items) == 1 else 0
        if may_mend and asked < self._limits.asks_alone:
            logger.warning("{} is asked for alone ({}): {}", item.passage, kind, message)
            self._waiting.append(Group((item,), asked))
        else:
            logger.error("{} is given up ({}): {}", item.passage, kind, message)
            self.report.gave_up(item.passage, kind, message)
