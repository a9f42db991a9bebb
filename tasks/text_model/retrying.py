"""Ask a model until it answers, as far as a policy allows, and count what happened."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from tasks.text_model.accepting import Accepted
from tasks.text_model.base import (
    FLEX,
    STANDARD,
    Billed,
    TextAnswer,
    TextModel,
    TextRequest,
    Tier,
)
from tasks.text_model.failures import ModelFailure, Stopped
from tasks.text_model.limits import REFUSALS, Limiter, Slot
from tasks.text_model.settings import TextModelSettings

SALVAGE_SECONDS: Final = 2.0
"""How long answers that are on their way are waited for where those who asked end early."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of tries, and the patience between them: ``attempts`` in all, waits in seconds."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0

    @classmethod
    def of(cls, settings: TextModelSettings, tier: Tier = STANDARD) -> RetryPolicy:
        """Make the policy from the settings, for calls of a tier."""
        times = settings.times(tier)
        return cls(settings.attempts, times.first_wait, times.longest_wait)


@dataclass(frozen=True, slots=True)
class Fallback:
    """The way on, at the standard tier, of a call that flex has not taken; seconds for one call."""

    policy: RetryPolicy
    timeout: float


@dataclass(slots=True)
class CallCounts:
    """The calls of a batch, counted; any number of threads may count at once.

    ``failures`` counts by ``ModelFailure.kind``; ``bills`` has one for each call of the model,
    failed ones included; ``latencies`` are the seconds of each, ``waited`` those before its turn.
    ``fallbacks`` are calls that flex did not take, and that were asked again as standard ones.
    ``begun`` are all calls that were begun, of ``known`` it is known what they were billed.
    ``allowed`` has how many calls might be made at a time, ``refused`` a 1 for each call that the
    service refused as it had too much to do; both with seconds since 1970.
    """

    retries: int = 0
    fallbacks: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    bills: list[Billed] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    waited: float = 0.0
    begun: int = 0
    known: int = 0
    allowed: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def calls(self) -> int:
        """Return the number of calls of the model."""
        return len(self.bills)

    @property
    def tokens_in(self) -> int:
        """Return the input tokens of all calls."""
        return sum(one.tokens_in for one in self.bills)

    @property
    def tokens_out(self) -> int:
        """Return the output tokens of all calls."""
        return sum(one.tokens_out for one in self.bills)

    @property
    def unknown_bills(self) -> int:
        """Return how many calls may have been billed, and nobody has told.

        They are under way, have timed out or broken off, or ended as no call should.
        """
        return self.begun - self.known

    def so_far(self) -> CallCounts:
        """Return a copy, of counts that a call under way may yet change."""
        with self._lock:
            return replace(
                self,
                failures=Counter(self.failures),
                bills=[*self.bills],
                latencies=[*self.latencies],
                allowed=[*self.allowed],
                refused=[*self.refused],
            )

    def begins(self) -> None:
        """Count a call of the model before it is made."""
        with self._lock:
            self.begun += 1

    def called(self, seconds: float, billed: Billed, *, may_be_billed: bool = False) -> None:
        """Count a call of the model that has ended, and what it was billed.

        ``may_be_billed``: nobody has told that, and it may have been.
        """
        with self._lock:
            self.bills.append(billed)
            self.latencies.append(seconds)
            self.known += not may_be_billed

    def failed(self, failure: ModelFailure) -> None:
        """Count a failure, and note when a call was refused."""
        with self._lock:
            self.failures[failure.kind] += 1
            if isinstance(failure, REFUSALS):
                self.refused.append((time.time(), 1))

    def has_slot(self, slot: Slot) -> None:
        """Count time before a place, and note how many calls may be made at a time by then."""
        with self._lock:
            self.waited += slot.waited
            if slot.allowed is not None:
                self.allowed.append((time.time(), slot.allowed))

    def retried(self) -> None:
        """Count an attempt after the first."""
        with self._lock:
            self.retries += 1

    def fell_back(self) -> None:
        """Count a call that goes on at the standard tier."""
        with self._lock:
            self.fallbacks += 1

    def has_waited(self, seconds: float) -> None:
        """Count time before a turn."""
        with self._lock:
            self.waited += seconds


def call(
    model: TextModel,
    request: TextRequest,
    *,
    policy: RetryPolicy,
    limiter: Limiter,
    counts: CallCounts,
    stop: threading.Event,
    accepted: Accepted | None = None,
    fallback: Fallback | None = None,
) -> TextAnswer:
    """Ask ``model`` until it answers; each attempt waits for its turn at the ``limiter`` first.

    An answer counts if ``accepted`` takes the name of what answered; without it, if it is of the
    model's own name. Waits between attempts are random, grow exponentially, and are at least what
    the service asks for; where that is more than the policy's longest wait, nothing is asked again.
    Raises the last ModelFailure, or Stopped as soon as ``stop`` is set: a call that is under way is
    not cut. A flex call that does not get through in all its attempts, as it is shed or takes too
    long, goes on as a standard one where there is a ``fallback``, with all attempts of that.
    """
    takes = accepted or Accepted(model.name)
    one = _Call(model, request, policy, limiter, counts, stop, takes)
    if request.tier != FLEX or fallback is None:
        return _until_answered(one)
    try:
        return _until_answered(one)
    except ModelFailure as failure:
        if not failure.retryable or failure.fatal:
            raise
        counts.fell_back()
    standard = replace(request, tier=STANDARD, timeout=fallback.timeout)
    return _until_answered(replace(one, request=standard, policy=fallback.policy))


@dataclass(frozen=True, slots=True)
class _Call:
    """One call at one tier, with all that its attempts share."""

    model: TextModel
    request: TextRequest
    policy: RetryPolicy
    limiter: Limiter
    counts: CallCounts
    stop: threading.Event
    accepted: Accepted

    def pause(self, seconds: float) -> None:
        """Wait before a further attempt, and count it. Raises Stopped."""
        began = time.monotonic()
        stopped = self.stop.wait(seconds)
        self.counts.has_waited(time.monotonic() - began)
        if stopped:
            raise Stopped
        self.counts.retried()

    def attempt(self) -> TextAnswer:
        """Wait for a turn and a place, and ask once. Raises Stopped and ModelFailure."""
        if self.stop.is_set():
            raise Stopped
        try:
            turn = self.limiter.acquire(self.request.estimated_tokens, self.stop)
            self.counts.has_waited(turn)
            with self.limiter.slot(self.stop, self.request.timeout) as slot:
                self.counts.has_slot(slot)
                return self._generate()
        except ModelFailure as failure:
            self.counts.failed(failure)
            raise

    def _generate(self) -> TextAnswer:
        """Ask, and count it; raise OtherModel also where another one has not answered well."""
        began = time.monotonic()
        self.counts.begins()
        try:
            answer = self.model.generate(self.request)
        except ModelFailure as failure:
            billed, failed = failure.billed, failure
        else:
            self.counts.called(time.monotonic() - began, answer.billed)
            if self.accepted.takes(answer.model):
                return answer
            raise self.accepted.refusal(answer.billed)
        is_billed = billed.tokens_in or billed.tokens_out
        if not is_billed:
            billed = replace(billed, tier=self.request.tier)
        untold = failed.may_be_billed and not is_billed
        self.counts.called(time.monotonic() - began, billed, may_be_billed=untold)
        if billed.model and not self.accepted.takes(billed.model):
            raise self.accepted.refusal(billed)
        raise failed


def _until_answered(one: _Call) -> TextAnswer:
    """Ask at one tier, as often as the policy allows."""
    policy = one.policy
    retrying = Retrying(
        sleep=one.pause,
        stop=stop_after_attempt(policy.attempts),
        wait=_Wait(policy),
        retry=retry_if_exception(lambda error: _is_worth_it(error, policy)),
        reraise=True,
    )
    try:
        return retrying(one.attempt)
    except ModelFailure as failure:
        hopeless = _hopeless(failure, policy)
        if hopeless is None:
            raise
    raise hopeless


def _is_worth_it(error: BaseException, policy: RetryPolicy) -> bool:
    return isinstance(error, ModelFailure) and error.retryable and not _asks_too_long(error, policy)


def _asks_too_long(failure: ModelFailure, policy: RetryPolicy) -> bool:
    return failure.retry_after is not None and failure.retry_after > policy.longest_wait


def _hopeless(failure: ModelFailure, policy: RetryPolicy) -> ModelFailure | None:
    """Return the failure with its requested wait in the message, if that is too long; else None."""
    if not failure.retryable or not _asks_too_long(failure, policy):
        return None
    return type(failure)(
        f"{failure}; it asks to wait {failure.retry_after:g} s, which is longer than "
        f"TEXT_MODEL_LONGEST_WAIT allows ({policy.longest_wait:g} s)",
        retry_after=failure.retry_after,
        billed=failure.billed,
    )


class _Wait(wait_random_exponential):
    """Random exponential waits; those that the service asks for are the least, and spread a bit."""

    def __init__(self, policy: RetryPolicy) -> None:
        super().__init__(multiplier=policy.first_wait, max=policy.longest_wait)
        self._spread = policy.first_wait

    def __call__(self, retry_state: RetryCallState) -> float:
        seconds = super().__call__(retry_state)
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after if isinstance(error, ModelFailure) else None
        if asked is None:
            return seconds
        # Not all workers at the same moment: they were all told the same time.
        return max(seconds, asked + random.uniform(0, self._spread))  # noqa: S311 - no secret
