"""Read the costs that receipts report, in the entries' unit, and add them up exactly."""

from __future__ import annotations

import math
from decimal import Decimal

from pydantic import JsonValue

from pytest_manifest.schema.receipts import Receipt

_DIGITS = 9


def actual_cost(receipt: Receipt) -> float | None:
    """Return the cost that a receipt reports of its job, or None if it reports none.

    The cost is the field ``cost``, a finite number from 0, of the evidence or else of the result,
    if that is a JSON object.
    """
    return told_cost(receipt.evidence, receipt.result)


def told_cost(evidence: JsonValue, result: JsonValue) -> float | None:
    """Return the cost as :func:`actual_cost` does, from these two fields of a receipt."""
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
    """Convert a cost to its decimal digits, so that three times 0.1 is 0.3; None becomes 0."""
    return Decimal(0) if cost is None else Decimal(str(cost))


def cost_text(cost: float | Decimal) -> str:
    """Format a cost for people: up to nine significant digits, without an exponent."""
    text = format(Decimal(f"{cost:.{_DIGITS}g}"), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
