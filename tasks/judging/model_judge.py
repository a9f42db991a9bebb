"""Have a language model grade rows by a rubric, a few in each call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from loguru import logger

from pytest_manifest.redaction.texts import redact
from tasks.filling.shares import spent_on
from tasks.judging.grades import Grading, Row, in_batches
from tasks.judging.rubric import Reading, Rubric, read_grades
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import TextModel
from tasks.text_model.failures import MalformedAnswer, ModelFailure, Stopped, TooLong, Unexpected
from tasks.text_model.limits import Limiter
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import SALVAGE_SECONDS, CallCounts, RetryPolicy, call

OUT_OF_TIME: Final = "out_of_time"


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
class _Flight:
    """A group that is asked for; ``counts`` has each of its calls from its beginning on."""

    group: _Group
    counts: CallCounts


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of a call: a reading or a failure; neither where it was given up."""

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
                    flight = _Flight(group, CallCounts())
                    timeout = min(self._asking.timeout, left)
                    work.flying[pool.submit(self._ask, flight, timeout, stop)] = flight
                left = until - time.monotonic()
                done, _ = wait(
                    list(work.flying),
                    timeout=max(0.0, left) if left != float("inf") else None,
                    return_when=FIRST_COMPLETED,
                )
                for future in done:
                    group, outcome = self._land(work, future)
                    progress(work.found)
                    self._go_on(work, group, outcome)
                if not done and time.monotonic() >= until:
                    break
        finally:  # also where its job is interrupted: what was asked for is paid
            stop.set()
            self._end(work, progress)
            pool.shutdown(wait=False, cancel_futures=True)
        return work.found

    def _end(self, work: _Work, progress: Callable[[Grading], None]) -> None:
        """Take in answers that come within a moment, and give all else up.

        Of the calls that are still under way it is counted what is known of their cost.
        """
        flights = list(work.flying.items())
        done, _ = wait([future for future, _ in flights], timeout=SALVAGE_SECONDS)
        for future, flight in flights:
            if future in done:
                self._land(work, future)
            else:
                self._count(work.found, flight.counts.so_far())
            progress(work.found)
        work.end(flight.group for _, flight in flights)

    def _land(self, work: _Work, future: Future[_Outcome]) -> tuple[_Group, _Outcome]:
        """Take in what has come of a call: its grades, and what it has cost."""
        outcome, flight = future.result(), work.flying[future]
        self._count(work.found, flight.counts)
        if outcome.reading is not None:
            work.found.grades |= outcome.reading.grades
        del work.flying[future]
        return flight.group, outcome

    def _ask(self, flight: _Flight, timeout: float, stop: threading.Event) -> _Outcome:
        counts = flight.counts
        asked = self._rubric.ask(flight.group.rows, timeout=timeout)
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
            return _Outcome()
        except ModelFailure as failure:
            return _Outcome(failure=failure)
        except Exception as error:  # a model of one's own; it must not take other grades with it
            strange = Unexpected(f"{type(error).__name__}: {redact(str(error))}")
            logger.error("the model raised what no model should: {}", strange)
            counts.failed(strange)
            return _Outcome(failure=strange)
        try:
            reading = read_grades(answer.text, asked.by_key)
        except MalformedAnswer as failure:
            counts.failed(failure)
            return _Outcome(failure=failure)
        return _Outcome(reading)

    def _count(self, found: Grading, counts: CallCounts) -> None:
        """Add what the calls of a group have cost."""
        found.calls += counts.calls
        found.unknown_bills += counts.unknown_bills
        found.retries += counts.retries
        found.failures += counts.failures
        found.spent += spent_on(counts.bills, self._prices, self.name)
        found.answered_by |= {bill.model for bill in counts.bills if bill.model}

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
    flying: dict[Future[_Outcome], _Flight] = field(default_factory=dict)
    found: Grading = field(default_factory=Grading)

    def again(self, row: Row, group: _Group, problem: tuple[str, str], asking: Asking) -> None:
        """Ask for a row alone, so many times, and then give it up."""
        asked = group.asked + 1 if len(group.rows) == 1 else 0
        if asked < asking.asks_alone:
            self.waiting.append(_Group((row,), asked))
        else:
            self.found.ungraded[row.passage] = problem

    def end(self, asked: Iterable[_Group]) -> None:
        """Give up all that has no grade yet; ``asked``: what was under way."""
        late = OUT_OF_TIME, "its time was over before it was graded"
        for group in [*self.waiting, *asked]:
            for row in group.rows:
                if row.passage not in self.found.grades:
                    self.found.ungraded[row.passage] = late
        self.waiting.clear()
        self.flying.clear()
