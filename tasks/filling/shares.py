"""Add up what calls cost, and divide it among the rows that came of one, without a remainder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from operator import add, sub

from tasks.text_model.base import Billed
from tasks.text_model.prices import PriceTable


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens in and out, and their price in nano dollars (1e-9 USD).

    ``cached`` is part of the tokens in. ``unpriced_in`` and ``unpriced_out`` are those tokens whose
    price is not known, which the cost does not hold.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    cost_nanos: int = 0
    cached: int = 0
    unpriced_in: int = 0
    unpriced_out: int = 0

    def __add__(self, other: Spent) -> Spent:
        return self._with(other, add)

    def __sub__(self, other: Spent) -> Spent:
        return self._with(other, sub)

    def share(self, number: int) -> list[Spent]:
        """Equal parts whose sum is this: the first ones take what does not divide."""
        columns = zip(*(_parts(total, number) for total in astuple(self)), strict=True)
        return [Spent(*column) for column in columns]

    def _with(self, other: Spent, of: Callable[[int, int], int]) -> Spent:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Spent(*(of(ours, theirs) for ours, theirs in pairs))


def _parts(total: int, number: int) -> list[int]:
    whole, rest = divmod(total, number)
    return [whole + (position < rest) for position in range(number)]


def spent_on(bills: Iterable[Billed], prices: PriceTable, asked: str) -> Spent:
    """Add up what calls were billed, each at the price of what answered, else of what was asked."""
    return sum((_spent_on(bill, prices, asked) for bill in bills), Spent())


def _spent_on(bill: Billed, prices: PriceTable, asked: str) -> Spent:
    price = prices.price(bill.model or asked, bill.tier)
    if price is None:
        tokens = bill.tokens_in, bill.tokens_out
        return Spent(*tokens, 0, bill.cached, *tokens)
    cost = price.cost_nanos(bill.tokens_in, bill.tokens_out, bill.cached)
    return Spent(bill.tokens_in, bill.tokens_out, cost, bill.cached)
