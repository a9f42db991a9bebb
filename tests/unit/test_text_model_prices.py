"""Prices: a dated table, exact to the billionth of a dollar."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text_model.failures import TextModelError
from tasks.text_model.prices import PRICES, Price, PriceTable
from tasks.text_model.settings import DEFAULT_GEMINI, DEFAULT_OFFLINE

FLASH = Price(Decimal("0.30"), Decimal("2.50"))


def table(path: Path, **changes: object) -> Path:
    document = json.loads(PRICES.read_bytes()) | changes
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_the_table_of_the_project_can_be_read() -> None:
    """It has a date, says what it leaves out, and has both default models."""
    prices = PriceTable.load()
    assert prices.as_of <= date.today()  # noqa: DTZ011 - a day, wherever
    assert "Check them" in prices.note
    assert prices.price(DEFAULT_GEMINI) == FLASH
    assert prices.price(DEFAULT_OFFLINE) == Price(Decimal(0), Decimal(0))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gemini-2.5-flash", True),
        ("models/gemini-2.5-flash", True),
        ("gemini-2.5-flash-latest", True),
        ("models/gemini-2.5-flash-001", True),
        ("gemini-2.5-flash-preview-05-20", False),
        ("gemini-2.5-flash-lite-001", True),
        ("gemini-3.5-flash", True),
        ("gemini-9", False),
        ("", False),
    ],
)
def test_a_model_is_found_by_its_names(name: str, found: bool) -> None:
    """By what stands for the same model, and by nothing that may cost something else."""
    assert (PriceTable.load().price(name) is not None) is found


def test_the_very_name_goes_first(tmp_path: Path) -> None:
    """Where the table has a price for one version, that counts."""
    models = {"m": {"input": "1", "output": "1"}, "m-001": {"input": "2", "output": "2"}}
    prices = PriceTable.load(table(tmp_path / "p.json", models=models))
    assert prices.price("m-001") == Price(Decimal(2), Decimal(2))
    assert prices.price("m-002") == Price(Decimal(1), Decimal(1))


@pytest.mark.parametrize(
    ("price", "tokens_in", "tokens_out", "nanos"),
    [
        (FLASH, 1_000_000, 0, 300_000_000),
        (FLASH, 0, 1_000_000, 2_500_000_000),
        (FLASH, 1234, 567, 1234 * 300 + 567 * 2500),
        (FLASH, 0, 0, 0),
        (Price(Decimal("0.0005"), Decimal(0)), 1, 0, 1),  # half a billionth, rounded up
        (Price(Decimal("0.0004"), Decimal(0)), 1, 0, 0),
    ],
)
def test_a_cost_is_exact(price: Price, tokens_in: int, tokens_out: int, nanos: int) -> None:
    """In billionths of a dollar."""
    assert price.cost_nanos(tokens_in, tokens_out) == nanos


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=20))
def test_costs_of_list_prices_add_up(calls: list[tuple[int, int]]) -> None:
    """No call of such a price is rounded, so the sum is the cost of the sums."""
    total = sum(FLASH.cost_nanos(tokens_in, tokens_out) for tokens_in, tokens_out in calls)
    assert total == FLASH.cost_nanos(sum(one for one, _ in calls), sum(two for _, two in calls))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"currency": "EUR"}, "currency"),
        ({"as_of": "lately"}, "as_of"),
        ({"models": {"m": {"input": "-1", "output": "1"}}}, "models.m.input"),
        ({"models": {"m": {"input": "1"}}}, "models.m.output"),
        ({"models": {"m": {"input": "NaN", "output": "1"}}}, "models.m.input"),
        ({"tax": 1}, "tax"),
    ],
)
def test_a_bad_table_is_told_with_the_place(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    """File, place, and what is wrong there."""
    path = table(tmp_path / "p.json", **changes)
    with pytest.raises(TextModelError) as caught:
        PriceTable.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    """With the variable that names it."""
    with pytest.raises(TextModelError, match=r"none\.json.*TEXT_MODEL_PRICES"):
        PriceTable.load(tmp_path / "none.json")
    (tmp_path / "p.json").write_text("no json")
    with pytest.raises(TextModelError, match="the document"):
        PriceTable.load(tmp_path / "p.json")
