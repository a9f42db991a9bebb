"""Have a language model grade rows by a rubric, a few in each call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from loguru import logger

from pytest_manifest.redaction import redact
from tasks.filling.shares import spent_on
from tasks.judging.grades import Grading, Row, in_batches
from tasks.judging.rubric import Reading, Rubric, read_grades
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import TextModel
from tasks.text_model.failures import MalformedAnswer, ModelFailure, Stopped, TooLong, Unexpected
from tasks.text_model.limits import Limiter
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import CallCounts, RetryPolicy, call

OUT_OF_TIME: Final = "out_of_time"
SALVAGE_SECONDS: Final = 2.0
"""How long answers that are on their way are waited for when a batch ends early: they are paid."""


@dataclass(frozen=True, slots=True)
class Asking:
    """The way a model is asked.

    ``concurrency``: calls at once; ``per_call``: rows in one; ``asks_alone``: tries for one alone;
    ``timeout``: seconds for a call.
    """

    concurrency: int = 4
    per_call: int = 5
    asks_alone: int = 3
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one call; ``asked``: how often this very group was asked for before."""

    rows: tuple[Row, ...]
    asked: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of a call: a reading or a failure; neither where it was given up."""

    counts: CallCounts
    reading: Reading | None = None
    failure: ModelFailure | None = None


class ModelJudge:
    """Grades by a language model, at the prices of what answers."""

    def __init__(
        self,
        model: TextModel,
        rubric: Rubric,
        prices: PriceTable,
        accepted: Accepted,
        *,
        limiter: Limiter,
        policy: RetryPolicy,
        asking: Asking,
    ) -> None:
        self.provider = model.provider
        self.name = model.name
        self.has_price = prices.price(model.name) is not None
        self._model = model
        self._rubric = rubric
        self._prices = prices
        self._accepted = accepted
        self._limiter = limiter
        self._policy = policy
        self._asking = asking

    def grade(
        self, rows: Sequence[Row], *, seconds: float, progress: Callable[[Grading], None]
    ) -> Grading:
        """Grade rows; what has no grade when time is over is ``out_of_time``.

        Raises a ModelFailure that no call can overcome.
        """
        work = _Work(deque(map(_Group, in_batches(rows, self._asking.per_call))))
        until = time.monotonic() + seconds
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._asking.concurrency, thread_name_prefix="judge")
        try:
            while work.waiting or work.flying:
                while work.waiting and len(work.flying) < self._asking.concurrency:
                    left = until - time.monotonic()
                    if left <= 0:
                        break
                    group = work.waiting.popleft()
                    timeout = min(self._asking.timeout, left)
                    work.flying[pool.submit(self._ask, group, timeout, stop)] = group
                left = until - time.monotonic()
                done, _ = wait(
                    list(work.flying),
                    timeout=max(0.0, left) if left != float("inf") else None,
                    return_when=FIRST_COMPLETED,
                )
                for future in done:
                    group, outcome = work.flying.pop(future), future.result()
                    self._count(work.found, outcome)
                    progress(work.found)
                    self._go_on(work, group, outcome)
                if not done and time.monotonic() >= until:
                    break
        finally:
            stop.set()
            self._salvage(work, progress)
            pool.shutdown(wait=False, cancel_futures=True)
        work.end()
        return work.found

    def _salvage(self, work: _Work, progress: Callable[[Grading], None]) -> None:
        """Take in what is answered, or is within a moment, after the last call was begun."""
        done, _ = wait(list(work.flying), timeout=SALVAGE_SECONDS)
        for future in done:
            work.waiting.append(work.flying.pop(future))  # for what it has no grade for
            self._count(work.found, future.result())
        if done:
            progress(work.found)

    def _ask(self, group: _Group, timeout: float, stop: threading.Event) -> _Outcome:
        counts = CallCounts()
        asked = self._rubric.ask(group.rows, timeout=timeout)
        try:
            answer = call(
                self._model,
                asked.request,
                policy=self._policy,
                limiter=self._limiter,
                counts=counts,
                stop=stop,
                accepted=self._accepted,
            )
        except Stopped:
            return _Outcome(counts)
        except ModelFailure as failure:
            return _Outcome(counts, failure=failure)
        except Exception as error:  # a model of one's own; it must not take other grades with it
            strange = Unexpected(f"{type(error).__name__}: {redact(str(error))}")
            logger.error("the model raised what no model should: {}", strange)
            counts.failed(strange)
            return _Outcome(counts, failure=strange)
        try:
            reading = read_grades(answer.text, asked.by_key)
        except MalformedAnswer as failure:
            counts.failed(failure)
            return _Outcome(counts, failure=failure)
        return _Outcome(counts, reading)

    def _count(self, found: Grading, outcome: _Outcome) -> None:
        """Add what a call has cost and what it has graded."""
        counts = outcome.counts
        found.calls += counts.calls
        found.retries += counts.retries
        found.failures += counts.failures
        found.spent += spent_on(counts.bills, self._prices, self.name)
        found.answered_by |= {bill.model for bill in counts.bills if bill.model}
        if outcome.reading is not None:
            found.grades |= outcome.reading.grades

    def _go_on(self, work: _Work, group: _Group, outcome: _Outcome) -> None:
        """Ask again for what is still missing, or give it up. Raises a failure that is fatal."""
        if outcome.reading is not None:
            for row in group.rows:
                if row.passage in outcome.reading.problems:
                    work.again(row, group, outcome.reading.problems[row.passage], self._asking)
        elif outcome.failure is not None:
            self._after_failure(work, group, outcome.failure)

    def _after_failure(self, work: _Work, group: _Group, failure: ModelFailure) -> None:
        if failure.fatal:
            raise failure
        if failure.splittable and len(group.rows) > 1:
            middle = len(group.rows) // 2
            work.waiting.extendleft([_Group(group.rows[middle:]), _Group(group.rows[:middle])])
            return
        problem = failure.kind, str(failure)
        for row in group.rows:
            if failure.splittable and not isinstance(failure, TooLong):
                work.again(row, group, problem, self._asking)
            else:
                work.found.ungraded[row.passage] = problem


@dataclass(slots=True)
class _Work:
    """Groups that wait for their call, calls under way, and what was found so far."""

    waiting: deque[_Group]
    flying: dict[Future[_Outcome], _Group] = field(default_factory=dict)
    found: Grading = field(default_factory=Grading)

    def again(self, row: Row, group: _Group, problem: tuple[str, str], asking: Asking) -> None:
        """Ask for a row alone, so many times, and then give it up."""
        asked = group.asked + 1 if len(group.rows) == 1 else 0
        if asked < asking.asks_alone:
            self.waiting.append(_Group((row,), asked))
        else:
            self.found.ungraded[row.passage] = problem

    def end(self) -> None:
        """Give up all that has no grade yet."""
        late = OUT_OF_TIME, "its time was over before it was graded"
        for group in [*self.waiting, *self.flying.values()]:
            left = [row.passage for row in group.rows if row.passage not in self.found.grades]
            self.found.ungraded |= dict.fromkeys(left, late)
        self.waiting.clear()
        self.flying.clear()
