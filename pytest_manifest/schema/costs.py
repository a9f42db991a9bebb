"""What jobs cost, in the entries' unit: as receipts tell it, and added up exactly."""

from __future__ import annotations

import math
from decimal import Decimal

from pydantic import JsonValue

from pytest_manifest.schema.receipts import Receipt

_DIGITS = 9


def actual_cost(receipt: Receipt) -> float | None:
    """What the receipt says that its job has cost, None where it says nothing.

    It is said by ``cost``, a finite number from 0: in the evidence or, where that has none, in a
    result that is a JSON object.
    """
    return told_cost(receipt.evidence, receipt.result)


def told_cost(evidence: JsonValue, result: JsonValue) -> float | None:
    """As :func:`actual_cost`, of these two fields of a receipt."""
    for place in (evidence, result):
        if isinstance(place, dict) and (told := _number(place.get("cost"))) is not None:
            return told
    return None


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def exact(cost: float | None) -> Decimal:
    """A cost as it is written, so that three times 0.1 is 0.3; None counts nothing."""
    return Decimal(0) if cost is None else Decimal(str(cost))


def cost_text(cost: float | Decimal) -> str:
    """A cost for people: up to nine digits that count, without an exponent."""
    text = format(Decimal(f"{cost:.{_DIGITS}g}"), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
