"""Prices: a dated table, exact to the billionth of a dollar."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text_model.base import Tier
from tasks.text_model.failures import TextModelError
from tasks.text_model.prices import PRICES, Price, PriceTable, Rates, today
from tasks.text_model.settings import DEFAULT_GEMINI, DEFAULT_OFFLINE


def price_of(input_usd: str, output_usd: str, cached_usd: str | None = None) -> Price:
    return Price(Rates(*map(Decimal, (input_usd, output_usd, cached_usd or input_usd))))


LITE = price_of("0.30", "2.50", "0.03")
PRO = Price(
    Rates(Decimal("1.25"), Decimal(10), Decimal("0.125")),
    200_000,
    Rates(Decimal("2.50"), Decimal(15), Decimal("0.25")),
)


def table(path: Path, **changes: object) -> Path:
    document = json.loads(PRICES.read_bytes()) | changes
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_the_table_of_the_project_can_be_read() -> None:
    """It has a date and a source, says what it leaves out, and has both default models."""
    prices = PriceTable.load()
    assert prices.as_of <= today()
    assert "ai.google.dev" in prices.source
    assert "Check them" in prices.note
    assert prices.price(DEFAULT_GEMINI) == LITE
    assert prices.price("gemini-2.5-pro") == PRO
    offline = prices.price(DEFAULT_OFFLINE)
    assert offline is not None
    assert offline.is_free


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
    assert prices.price("m-001") == price_of("2", "2")
    assert prices.price("m-002") == price_of("1", "1")


@pytest.mark.parametrize(
    ("price", "tokens", "nanos"),
    [
        (LITE, (1_000_000, 0, 0), 300_000_000),
        (LITE, (0, 1_000_000, 0), 2_500_000_000),
        (LITE, (1234, 567, 0), 1234 * 300 + 567 * 2500),
        (LITE, (1234, 567, 1000), 234 * 300 + 1000 * 30 + 567 * 2500),
        (LITE, (10, 0, 11), 10 * 30),
        (LITE, (0, 0, 0), 0),
        (PRO, (200_000, 1, 0), 200_000 * 1250 + 10_000),
        (PRO, (200_001, 1, 0), 200_001 * 2500 + 15_000),
        (PRO, (200_001, 1, 200_000), 1 * 2500 + 200_000 * 250 + 15_000),
        (price_of("0.0005", "0"), (1, 0, 0), 1),  # half a billionth, rounded up
        (price_of("0.0004", "0"), (1, 0, 0), 0),
    ],
)
def test_a_cost_is_exact(price: Price, tokens: tuple[int, int, int], nanos: int) -> None:
    """In billionths of a dollar; all tokens of a prompt make it a long one, cached ones too."""
    assert price.cost_nanos(*tokens) == nanos


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=20))
def test_costs_of_list_prices_add_up(calls: list[tuple[int, int]]) -> None:
    """No call of such a price is rounded, so the sum is the cost of the sums."""
    total = sum(LITE.cost_nanos(tokens_in, tokens_out) for tokens_in, tokens_out in calls)
    assert total == LITE.cost_nanos(sum(one for one, _ in calls), sum(two for _, two in calls))


@pytest.mark.parametrize(
    ("model", "tier", "rates"),
    [
        (DEFAULT_GEMINI, "flex", ("0.15", "1.25", "0.015")),
        (DEFAULT_GEMINI, "batch", ("0.15", "1.25", "0.015")),
        (DEFAULT_OFFLINE, "flex", None),
    ],
)
def test_a_tier_has_its_own_price(
    model: str, tier: Tier, rates: tuple[str, str, str] | None
) -> None:
    """Half of the standard one; a tier that the table does not name has none."""
    price = PriceTable.load().price(model, tier)
    assert price == (None if rates is None else price_of(*rates))


def test_long_prompts_have_a_price_at_each_tier() -> None:
    price = PriceTable.load().price("gemini-2.5-pro", "flex")
    assert price is not None
    assert price.cost_nanos(200_001, 0) == 200_001 * 1250


@pytest.mark.parametrize(
    ("day", "dollars"),
    [(date(2026, 12, 31), "0.75"), (date(2027, 1, 1), "1.50"), (date(2030, 1, 1), "1.50")],
)
def test_a_price_holds_from_one_day_to_another(day: date, dollars: str) -> None:
    """Both of them included, in UTC."""
    price = PriceTable.load().price("gemini-3.8-flash", day=day)
    assert price is not None
    assert price.rates.input_usd == Decimal(dollars)


def test_between_two_prices_nothing_is_known(tmp_path: Path) -> None:
    """Nor after the last one: an old price would be a false one."""
    one = {"input": "1", "output": "1"}
    models = {
        "m": [
            one | {"valid_until": "2026-01-31"},
            one | {"valid_from": "2026-03-01", "valid_until": "2026-04-30"},
        ]
    }
    prices = PriceTable.load(table(tmp_path / "p.json", models=models))
    days = [date(2026, 1, 31), date(2026, 2, 1), date(2026, 3, 1), date(2026, 5, 1)]
    assert [prices.price("m", day=day) is not None for day in days] == [True, False, True, False]
    assert prices.all_prices(day=days[1]) == {}


def test_cached_input_without_a_price_costs_what_other_input_does(tmp_path: Path) -> None:
    """A table of before is read as it is."""
    prices = PriceTable.load(
        table(tmp_path / "p.json", models={"m": {"input": "1", "output": "2"}})
    )
    price = prices.price("m")
    assert price is not None
    assert price.cost_nanos(10, 0, 10) == 10_000


def test_a_table_knows_how_old_it_is() -> None:
    prices = PriceTable.load()
    assert prices.days_old(prices.as_of + timedelta(days=91)) == 91


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"currency": "EUR"}, "currency"),
        ({"as_of": "lately"}, "as_of"),
        ({"models": {"m": {"input": "-1", "output": "1"}}}, "models.m.0.input"),
        ({"models": {"m": {"input": "1"}}}, "models.m.0.output"),
        ({"models": {"m": {"input": "NaN", "output": "1"}}}, "models.m.0.input"),
        ({"models": {"m": []}}, "models.m"),
        (
            {"models": {"m": {"input": "1", "output": "1", "shares": {"express": "2"}}}},
            "models.m.0.shares.express",
        ),
        (
            {
                "models": {
                    "m": {
                        "input": "1",
                        "output": "1",
                        "valid_from": "2026-01-02",
                        "valid_until": "2026-01-01",
                    }
                }
            },
            "valid_until is before valid_from",
        ),
        (
            {
                "models": {
                    "m": [
                        {"input": "1", "output": "1"},
                        {"input": "2", "output": "1", "valid_from": "2026-01-02"},
                    ]
                }
            },
            "two prices hold on 2026-01-02",
        ),
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
