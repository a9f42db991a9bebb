"""Put passages together in batches by number and estimated tokens, and estimate their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from tasks.filling.prompts import Prompt, output_tokens, passage_tokens
from tasks.filling.report import usd
from tasks.text_model.prices import Price
from workflows.gap_fill.gaps import Found

ID_PART: Final = 70
"""Characters of a passage's id that an entry's id shows."""


@dataclass(frozen=True, slots=True)
class Estimator:
    """Tokens and cost of a batch before it is run; ``per_call``: passages in one call."""

    prompt: Prompt
    price: Price | None
    per_call: int

    def tokens_in(self, found: Found) -> int:
        return passage_tokens(found.text, found.fields, found.film)

    def overhead(self, passages: int) -> int:
        """Return the input tokens of the calls themselves."""
        return -(-passages // self.per_call) * self.prompt.overhead_tokens()


@dataclass(slots=True)
class Batch:
    """Passages of one entry; ``tokens_in`` without the calls' own."""

    items: list[Found] = field(default_factory=list)
    tokens_in: int = 0

    def add(self, found: Found, tokens: int) -> None:
        self.items.append(found)
        self.tokens_in += tokens

    @property
    def ids(self) -> list[str]:
        return [found.id for found in self.items]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens in and out; cost in US dollars, None where the model's price is not known."""

    tokens_in: int
    tokens_out: int
    cost: float | None


def batches(
    found: Iterable[Found], estimator: Estimator, *, size: int, max_tokens: int
) -> Iterator[Batch]:
    """Yield batches of at most ``size`` passages and ``max_tokens`` input tokens.

    A passage that has more tokens is a batch of its own.
    """
    batch = Batch()
    for one in found:
        tokens = estimator.tokens_in(one)
        total = batch.tokens_in + tokens + estimator.overhead(len(batch.items) + 1)
        if batch.items and (len(batch.items) == size or total > max_tokens):
            yield batch
            batch = Batch()
        batch.add(one, tokens)
    if batch.items:
        yield batch


def estimate(batch: Batch, estimator: Estimator) -> Estimate:
    tokens_in = batch.tokens_in + estimator.overhead(len(batch.items))
    tokens_out = sum(output_tokens(found.fields) for found in batch.items)
    price = estimator.price
    cost = None if price is None else usd(price.cost_nanos(tokens_in, tokens_out))
    return Estimate(tokens_in, tokens_out, cost)


def entry_id(kind: str, number: int, ids: Sequence[str]) -> str:
    """Return an id like ``fill-00001:FIRST..LAST``, with the range of the entry's passages."""
    first, last = _short(ids[0]), _short(ids[-1])
    named = first if len(ids) == 1 else f"{first}..{last}"
    return f"{kind}-{number:05d}:{named}"


def facts(batch: Batch, expected: Estimate) -> dict[str, JsonValue]:
    """Return the metadata of a batch for reports and verification, as an entry's ``meta``."""
    kinds: dict[str, JsonValue] = dict(sorted(Counter(f.kind for f in batch.items).items()))
    return {
        "passages": len(batch.items),
        "rows_before": [found.id for found in batch.items if found.has_row],
        "gaps": kinds,
        "tokens_in": expected.tokens_in,
        "tokens_out": expected.tokens_out,
    }


def _short(name: str) -> str:
    return name if len(name) <= ID_PART else f"{name[: ID_PART - 1]}…"
