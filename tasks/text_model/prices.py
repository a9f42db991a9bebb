"""Compute what a call costs: list prices from a dated data file, in billionths of a dollar."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.text_model.failures import TextModelError

PRICES: Final = Path(__file__).with_name("prices.json")
NANOS_PER_TOKEN: Final = 1000
"""A price of one dollar for a million tokens is a thousand billionths for each."""

VERSION: Final = re.compile(r"-(latest|\d{3})$")

Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens in, and out."""

    input_usd: Decimal
    output_usd: Decimal

    def cost_nanos(self, tokens_in: int, tokens_out: int) -> int:
        """Return the cost in billionths of a dollar, half rounded up."""
        exact = (self.input_usd * tokens_in + self.output_usd * tokens_out) * NANOS_PER_TOKEN
        return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model, as they were on ``as_of``; ``note`` says what they leave out."""

    as_of: date
    prices: dict[str, Price]
    note: str = field(default="", repr=False)

    @classmethod
    def load(cls, path: Path | None = None) -> PriceTable:
        """Read ``path``, or the table that comes with the project. Raises TextModelError."""
        path = path or PRICES
        try:
            document = _Document.model_validate_json(path.read_bytes())
        except OSError as error:
            raise TextModelError(
                f"{path}: the price table cannot be read ({error.strerror}); "
                "set TEXT_MODEL_PRICES to a file that can, or leave it unset"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the document"
            raise TextModelError(
                f"{path}: the price table is not as it must be: {place}: {first['msg']}; "
                f"compare it with {PRICES}"
            ) from None
        prices = {name: Price(one.input, one.output) for name, one in document.models.items()}
        return cls(document.as_of, prices, document.note)

    def price(self, model: str) -> Price | None:
        """Return the price of a model, or None where the table has none.

        ``models/`` before a name does not count, nor do ``-latest`` and ``-001`` after it, unless
        the table has that very name.
        """
        name = model.removeprefix("models/")
        found = self.prices.get(name)
        return found if found is not None else self.prices.get(VERSION.sub("", name))


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Dollars
    output: Dollars


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: Literal["USD"]
    as_of: date
    note: str = ""
    models: dict[str, _Row]
