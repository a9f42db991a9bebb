"""Make one call for a few passages, in a thread of a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from loguru import logger

from pytest_manifest.redaction.texts import redact
from tasks.filling.answers import Reading, read_answer
from tasks.filling.prompts import Prompt, Wanted, output_tokens, passage_tokens
from tasks.filling.shares import Spent, spent_on
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import STANDARD, Billed, TextModel, Tier
from tasks.text_model.failures import MalformedAnswer, ModelFailure, Stopped, Unexpected
from tasks.text_model.limits import Limiter
from tasks.text_model.prices import Price, PriceTable
from tasks.text_model.retrying import CallCounts, Fallback, RetryPolicy, call


@dataclass(frozen=True, slots=True)
class Asker:
    """A model with its limits, retries and prices.

    ``accepted`` says whose answers count; None: those of the model's own name. Calls are of the
    ``tier``, and go on at the standard one where there is a ``fallback``.
    """

    model: TextModel
    limiter: Limiter
    policy: RetryPolicy
    prices: PriceTable
    prompt: Prompt
    accepted: Accepted | None = None
    tier: Tier = STANDARD
    fallback: Fallback | None = None

    @property
    def price(self) -> Price | None:
        """Return the highest price that the model may ask; None where it is not known."""
        dearest: Tier = self.tier if self.fallback is None else STANDARD
        return self.prices.price(self.model.name, dearest)

    def spent(self, bills: Iterable[Billed]) -> Spent:
        """Add up what calls were billed, each at the price of what answered it."""
        return spent_on(bills, self.prices, self.model.name)

    def estimated_nanos(self, group: Group) -> int:
        """Estimate what a call for this group costs; 0 where the price is not known."""
        if self.price is None:
            return 0
        passages = sum(passage_tokens(one.text, one.fields, one.film) for one in group.items)
        answer = sum(output_tokens(one.fields) for one in group.items)
        return self.price.cost_nanos(self.prompt.overhead_tokens() + passages, answer)


@dataclass(frozen=True, slots=True)
class Group:
    """Passages to be asked for in one call; ``asked``: how often this very group was before."""

    items: tuple[Wanted, ...]
    asked: int = 0

    def halves(self) -> list[Group]:
        middle = len(self.items) // 2
        return [Group(self.items[:middle]), Group(self.items[middle:])]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a group: a reading, or a failure, or neither where it was given up.

    ``spent`` is all that was paid, ``for_answer`` the part of the answer that was read.
    """

    group: Group
    counts: CallCounts
    spent: Spent
    for_answer: Spent = field(default_factory=Spent)
    reading: Reading | None = None
    failure: ModelFailure | None = None
    answered_by: str | None = None
    """What wrote the answer that was read, by its own word."""
    tier: Tier | None = None
    """The tier at which it was answered."""


def ask(
    asker: Asker, group: Group, counts: CallCounts, *, timeout: float, stop: threading.Event
) -> Outcome:
    """Ask for a group, with retries; never raises what a model can do. ``timeout`` in seconds.

    ``counts``: its own, to which each of its calls is added as it begins and ends.
    """
    asked = asker.prompt.ask(group.items, timeout=timeout, room=1 + group.asked)

    def spent() -> Spent:
        return asker.spent(counts.bills)

    try:
        answer = call(
            asker.model,
            replace(asked.request, tier=asker.tier),
            policy=asker.policy,
            limiter=asker.limiter,
            counts=counts,
            stop=stop,
            accepted=asker.accepted,
            fallback=asker.fallback,
        )
    except Stopped:
        return Outcome(group, counts, spent())
    except ModelFailure as failure:
        return Outcome(group, counts, spent(), failure=failure)
    except Exception as error:  # it must not take paid and written answers with it
        strange = Unexpected(f"{type(error).__name__}: {redact(str(error))}")
        logger.error("the model raised what no model should: {}", strange)
        counts.failed(strange)
        return Outcome(group, counts, spent(), failure=strange)
    try:
        reading = read_answer(answer.text, asked.by_key)
    except MalformedAnswer as failure:
        counts.failed(failure)
        return Outcome(group, counts, spent(), failure=failure)
    return Outcome(
        group,
        counts,
        spent(),
        asker.spent([answer.billed]),
        reading,
        answered_by=answer.model.removeprefix("models/") or None,
        tier=answer.tier,
    )
