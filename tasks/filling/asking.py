"""Make one call for a few passages, in a thread of a batch."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from loguru import logger

from pytest_manifest.redaction import redact
from tasks.filling.answers import Reading, read_answer
from tasks.filling.prompts import Prompt, Wanted
from tasks.filling.shares import Spent
from tasks.text_model.base import TextModel
from tasks.text_model.failures import MalformedAnswer, ModelFailure, Stopped, Unexpected
from tasks.text_model.limits import Limiter
from tasks.text_model.prices import Price
from tasks.text_model.retrying import CallCounts, RetryPolicy, call


@dataclass(frozen=True, slots=True)
class Asker:
    """A model with its limits, retries and price (None: not known)."""

    model: TextModel
    limiter: Limiter
    policy: RetryPolicy
    price: Price | None
    prompt: Prompt

    def cost_nanos(self, tokens_in: int, tokens_out: int) -> int:
        """Return the cost in nano dollars; 0 where the price is not known."""
        return 0 if self.price is None else self.price.cost_nanos(tokens_in, tokens_out)


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


def ask(asker: Asker, group: Group, *, timeout: float, stop: threading.Event) -> Outcome:
    """Ask for a group, with retries; never raises what a model can do. ``timeout`` in seconds."""
    counts = CallCounts()
    asked = asker.prompt.ask(group.items, timeout=timeout, room=1 + group.asked)

    def spent() -> Spent:
        cost = asker.cost_nanos(counts.tokens_in, counts.tokens_out)
        return Spent(counts.tokens_in, counts.tokens_out, cost)

    try:
        answer = call(
            asker.model,
            asked.request,
            policy=asker.policy,
            limiter=asker.limiter,
            counts=counts,
            stop=stop,
        )
    except Stopped:
        return Outcome(group, counts, spent())
    except ModelFailure as failure:
        return Outcome(group, counts, spent(), failure=failure)
    except Exception as error:  # it must not take paid and written answers with it
        strange = Unexpected(f"{type(error).__name__}: {redact(str(error))}")
        logger.error("the model raised what no model should: {}", strange)
        counts.failures[strange.kind] += 1
        return Outcome(group, counts, spent(), failure=strange)
    try:
        reading = read_answer(answer.text, asked.by_key)
    except MalformedAnswer as failure:
        counts.failures[failure.kind] += 1
        return Outcome(group, counts, spent(), failure=failure, answered_by=answer.model)
    paid = Spent(
        answer.tokens_in,
        answer.tokens_out,
        asker.cost_nanos(answer.tokens_in, answer.tokens_out),
    )
    return Outcome(group, counts, spent(), paid, reading, answered_by=answer.model)
