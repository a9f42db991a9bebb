"""Say what is known of the prices that a plan or a run goes by, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Final

from pydantic import JsonValue

from pytest_manifest.errors import DispatchError
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry
from tasks.filling.order import BadOrderError, PlannedModel
from tasks.filling.report import usd
from tasks.judging.order import read_judge_order
from tasks.text_model.accepting import UNNAMED
from tasks.text_model.base import STANDARD, Tier
from tasks.text_model.choosing import read_settings
from tasks.text_model.failures import TextModelError
from tasks.text_model.prices import STALE_DAYS, Price, PriceTable
from tasks.text_model.settings import OFFLINE, last_tier
from workflows.gap_fill.accounts import order_of

TAG: Final = "gap_fill"
JUDGE_TASK: Final = "tasks.judge.grade_rows_task"


@dataclass(frozen=True, slots=True)
class Pricing:
    """The prices of all models that may answer for the planned one; ``day`` in UTC, None today.

    They are those of the dearest tier at which a call may be answered.
    """

    table: PriceTable
    model: PlannedModel
    day: date | None = None

    @property
    def tier(self) -> Tier:
        """Return the dearest tier at which a call may be answered."""
        return last_tier(self.model.tier)

    @property
    def unknown(self) -> list[str]:
        """Return the names of the models that may answer and have no price."""
        return [name for name, price in self._prices().items() if price is None]

    @property
    def price(self) -> Price | None:
        """Return the price of the dearest model that may answer; None if one is not known."""
        prices = list(self._prices().values())
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        return max(known, key=lambda price: price.cost_nanos(1000, 1000))

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for a price that is not known, and for a table that is old."""
        found = []
        if self.unknown:
            found.append(f"{self.no_price()}: name a price table with TEXT_MODEL_PRICES")
        days = self.table.days_old(self.day)
        if days > STALE_DAYS and not (self.price is not None and self.price.is_free):
            found.append(
                f"the list prices are those of {self.table.as_of}, {days} days ago: check them"
            )
        return found

    def others(self, tokens_in: int, tokens_out: int) -> str:
        """Return what these tokens cost by each model that has a price, in one call or several.

        A prompt is taken for a short one.
        """
        return ", ".join(
            f"{name} {usd(_short(price).cost_nanos(tokens_in, tokens_out)):.4g}"
            for name, price in self.table.all_prices(self.tier, self.day).items()
            if not price.is_free
        )

    def no_price(self) -> str:
        """Return a clause on the models without a price."""
        at = "" if self.tier == STANDARD else f" at the tier {self.tier}"
        return f"no price is known for {', '.join(self.unknown)}{at}"

    def _prices(self) -> dict[str, Price | None]:
        names = [self.model.name, *(name for name in self.model.accept if name != UNNAMED)]
        return {name: self.table.price(name, self.tier, self.day) for name in names}


def _short(price: Price) -> Price:
    return Price(price.rates)


def pricings_of(entries: Iterable[Entry]) -> list[Pricing]:
    """Return the pricing of each model that is to fill something, or to grade it.

    An offline judge asks nobody; an entry that is no order is the worker's to refuse. Raises
    TextModelError for a price table that cannot be read.
    """
    models = {(one.provider, one.name, *one.accept): one for one in _planned_models(entries)}
    if not models:
        return []
    table = PriceTable.load(read_settings().prices)
    return [Pricing(table, model) for model in models.values()]


def _planned_models(entries: Iterable[Entry]) -> Iterator[PlannedModel]:
    """Yield the models of a plan: a filling has one, which its first entry names."""
    seen: list[JsonValue] = []
    for entry in entries:
        if TAG in entry.tags:
            with suppress(BadOrderError):
                yield order_of(entry).model
            return
        data = entry.kwargs.get("data")
        judge = data.get("judge") if isinstance(data, dict) else None
        if judge is not None and judge not in seen:
            seen.append(judge)
            with suppress(BadOrderError):
                _, order = read_judge_order(entry.kwargs.get("rows"), data)
                if order.judge.provider != OFFLINE:
                    yield order.judge


def warnings_of(entries: Iterable[Entry]) -> list[str]:
    """Return what a run's summary is to say of its prices, also where they cannot be read."""
    try:
        told = [warning for pricing in pricings_of(entries) for warning in pricing.warnings]
    except TextModelError as error:
        return [str(error)]
    return list(dict.fromkeys(told))


def refuse_unknown_price(manifest: Manifest, entries: Iterable[Entry], budget: float) -> None:
    """Raise DispatchError where a budget is to limit what has no price."""
    unknown = [one.no_price() for one in pricings_of(entries) if one.unknown]
    if unknown:
        raise DispatchError(
            f"{manifest.path.name}: nothing was sent: --manifest-budget is {budget:g}, and "
            f"{' and '.join(unknown)}, so nothing would keep to it; name a price table with "
            "TEXT_MODEL_PRICES, or leave --manifest-budget out"
        )
