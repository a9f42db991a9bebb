"""Divide the cost of a call among the rows that came of it, without a remainder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens in and out, and their price in nano dollars (1e-9 USD)."""

    tokens_in: int = 0
    tokens_out: int = 0
    cost_nanos: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cost_nanos + other.cost_nanos,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.tokens_in - other.tokens_in,
            self.tokens_out - other.tokens_out,
            self.cost_nanos - other.cost_nanos,
        )

    def share(self, number: int) -> list[Spent]:
        """Equal parts whose sum is this: the first ones take what does not divide."""
        columns = zip(
            _parts(self.tokens_in, number),
            _parts(self.tokens_out, number),
            _parts(self.cost_nanos, number),
            strict=True,
        )
        return [Spent(*column) for column in columns]


def _parts(total: int, number: int) -> list[int]:
    whole, rest = divmod(total, number)
    return [whole + (position < rest) for position in range(number)]
