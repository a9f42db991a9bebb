"""Compute what a call costs: list prices from a dated data file, in billionths of a dollar."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from typing_extensions import Self

from tasks.text_model.base import STANDARD, Tier
from tasks.text_model.failures import TextModelError

PRICES: Final = Path(__file__).with_name("prices.json")
NANOS_PER_TOKEN: Final = 1000
"""A price of one dollar for a million tokens is a thousand billionths for each."""

STALE_DAYS: Final = 90
"""A table that is older is told of wherever its prices are used."""

VERSION: Final = re.compile(r"-(latest|\d{3})$")

Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[Decimal, Field(gt=0, le=10, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Rates:
    """USD for a million tokens: of input, of input that the service had cached, and of output."""

    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal

    def times(self, share: Decimal) -> Rates:
        """Return these rates for a tier that costs this share of the standard one."""
        return Rates(self.input_usd * share, self.output_usd * share, self.cached_usd * share)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model at one tier.

    ``long_rates`` are those of prompts of more than ``long_above`` tokens.
    """

    rates: Rates
    long_above: int | None = None
    long_rates: Rates | None = None

    def cost_nanos(self, tokens_in: int, tokens_out: int, cached: int = 0) -> int:
        """Return the cost of one call in billionths of a dollar, half rounded up.

        ``cached`` of the input tokens are billed as such; a long prompt is one by all of them.
        """
        rates = self.rates
        if self.long_rates is not None and self.long_above is not None:
            rates = self.long_rates if tokens_in > self.long_above else rates
        cached = min(cached, tokens_in)
        exact = (
            rates.input_usd * (tokens_in - cached)
            + rates.cached_usd * cached
            + rates.output_usd * tokens_out
        )
        return int((exact * NANOS_PER_TOKEN).quantize(Decimal(1), rounding=ROUND_HALF_UP))

    @property
    def is_free(self) -> bool:
        """Return whether it costs nothing."""
        return not (self.rates.input_usd or self.rates.output_usd)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model, as they were on ``as_of``; ``note`` says what they leave out."""

    as_of: date
    periods: dict[str, tuple[_Period, ...]]
    source: str = ""
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
        return cls(document.as_of, document.models, document.source, document.note)

    def price(self, model: str, tier: Tier = STANDARD, day: date | None = None) -> Price | None:
        """Return the price of a model on a day (UTC, today where None), None if it is not known.

        ``models/`` before a name does not count, nor do ``-latest`` and ``-001`` after it, unless
        the table has that very name.
        """
        name = model.removeprefix("models/")
        periods = self.periods.get(name) or self.periods.get(VERSION.sub("", name)) or ()
        when = day or today()
        return next((one.price(tier) for one in periods if one.holds_on(when)), None)

    def all_prices(self, tier: Tier = STANDARD, day: date | None = None) -> dict[str, Price]:
        """Return the prices of all models that have one at this tier on this day, by name."""
        found = {name: self.price(name, tier, day) for name in self.periods}
        return {name: price for name, price in found.items() if price is not None}

    def days_old(self, day: date | None = None) -> int:
        """Return how many days before this one (UTC, today where None) the prices were read."""
        return ((day or today()) - self.as_of).days


def today() -> date:
    """Return the day in UTC, by which prices begin and end."""
    return datetime.now(timezone.utc).date()


class _Rates(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    output: Dollars
    cached: Dollars | None = None

    @property
    def rates(self) -> Rates:
        """Return the rates; cached input without a price costs what other input does."""
        cached = self.input if self.cached is None else self.cached
        return Rates(self.input, self.output, cached)


class _Long(_Rates):
    above: PositiveInt


class _Period(_Rates):
    """Prices from one day to another, both of them included; ``shares`` of them by tier."""

    valid_from: date = date.min
    valid_until: date = date.max
    long: _Long | None = None
    shares: dict[Tier, Share] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.valid_until < self.valid_from:
            raise ValueError("valid_until is before valid_from")
        return self

    def holds_on(self, day: date) -> bool:
        return self.valid_from <= day <= self.valid_until

    def price(self, tier: Tier) -> Price | None:
        share = self.shares.get(tier, Decimal(1) if tier == STANDARD else None)
        if share is None:
            return None
        if self.long is None:
            return Price(self.rates.times(share))
        return Price(self.rates.times(share), self.long.above, self.long.rates.times(share))


def _as_list(value: object) -> object:
    """Take one period for a list of one: most prices hold until further notice."""
    return [value] if isinstance(value, dict) else value


def _apart(periods: tuple[_Period, ...]) -> tuple[_Period, ...]:
    ordered = sorted(periods, key=lambda one: one.valid_from)
    for before, after in pairwise(ordered):
        if after.valid_from <= before.valid_until:
            raise ValueError(f"two prices hold on {after.valid_from}")
    return periods


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: Literal["USD"]
    as_of: date
    source: str = ""
    note: str = ""
    models: dict[
        str,
        Annotated[
            tuple[_Period, ...],
            Field(min_length=1),
            BeforeValidator(_as_list),
            AfterValidator(_apart),
        ],
    ]
