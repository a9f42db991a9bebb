"""What a batch pays: cached input, models of other prices, and the cap of an entry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.environment import SettingsError
from tasks.filling.batch import Limits
from tasks.filling.cap import Cap, CapReachedError
from tasks.filling.equipment import equip
from tasks.filling.order import PlannedModel
from tasks.filling.prompts import output_tokens, passage_tokens
from tasks.filling.report import NANO
from tasks.filling.shares import Spent
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import FIELDS
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import FLEX, TextRequest
from tasks.text_model.failures import Shed
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import Fallback, RetryPolicy
from tasks.text_model.settings import TierChoice
from tests.workflows.filling_support import (
    PROMPT,
    QUICK,
    TOKENS_IN,
    TOKENS_OUT,
    Item,
    ScriptedModel,
    batch_of,
    bible_at,
    documents,
    order,
    raising,
)

IDS = [one.id for one in documents(8)]
ONE_BY_ONE = Limits(concurrency=1, per_call=1)


@pytest.fixture
def bible(tmp_path: Path) -> Iterator[MovieBible]:
    with bible_at(tmp_path, documents(8)) as opened:
        yield opened


def nanos(tokens_in: int, tokens_out: int, cached: int = 0, name: str = "gemini-2.5-flash") -> int:
    price = PriceTable.load().price(name)
    assert price is not None
    return price.cost_nanos(tokens_in, tokens_out, cached)


ONE_CALL = nanos(TOKENS_IN, TOKENS_OUT)


def test_cached_input_is_billed_as_such(bible: MovieBible) -> None:
    """In the rows' shares, in the report, and to the last nano dollar."""
    batch = batch_of(bible, ScriptedModel(cached=90), Limits(concurrency=1, per_call=4))
    batch.run(IDS, order())
    rows = bible.annotations(IDS, PROMPT.version).values()
    cost = 2 * nanos(TOKENS_IN, TOKENS_OUT, 90)
    assert cost < 2 * ONE_CALL
    assert sum(row.cost_nanos for row in rows) == batch.report.spent.cost_nanos == cost
    assert sum(row.tokens_cached or 0 for row in rows) == 180
    told = batch.report.document()["tokens"]
    assert told == {"in": 2 * TOKENS_IN, "out": 2 * TOKENS_OUT, "cached": 180}


def test_a_call_costs_what_the_model_costs_that_answered(bible: MovieBible) -> None:
    """And not what the planned one would have cost."""
    dear = ScriptedModel(answers_as="gemini-3.5-flash")
    batch = batch_of(bible, dear, accepted=Accepted("gemini-2.5-flash", ("gemini-3.5-flash",)))
    batch.run(IDS[:4], order())
    cost = nanos(TOKENS_IN, TOKENS_OUT, name="gemini-3.5-flash")
    assert batch.report.spent.cost_nanos == cost > ONE_CALL
    assert batch.report.document()["unpriced"] == {"in": 0, "out": 0}


def test_what_has_no_price_is_told_and_not_made_up(bible: MovieBible) -> None:
    """Tokens that an unknown model was paid are no part of the cost, and are not hidden."""
    strange = ScriptedModel(answers_as="gemini-9-flash")
    batch = batch_of(bible, strange, accepted=Accepted("gemini-2.5-flash", ("gemini-9-flash",)))
    batch.run(IDS[:4], order())
    assert batch.report.spent.cost_nanos == 0
    told = batch.report.document()
    assert told["unpriced"] == {"in": TOKENS_IN, "out": TOKENS_OUT}


def test_flex_is_half_the_price_and_each_row_says_it(bible: MovieBible) -> None:
    """In the row, its history and the receipt; calls are counted by their tier."""
    batch = batch_of(bible, ScriptedModel(), tier=FLEX)
    batch.run(IDS[:4], order())
    assert 2 * batch.report.spent.cost_nanos == ONE_CALL
    row = bible.annotations(IDS[:1], PROMPT.version)[IDS[0]]
    (writing,) = bible.writings(IDS[:1], PROMPT.version)[IDS[0]]
    told = batch.report.rows[IDS[0]]
    assert isinstance(told, dict)
    assert row.service_tier == writing.service_tier == told["service_tier"] == "flex"
    document = batch.report.document()
    assert (document["tiers"], document["fallbacks"]) == ({"flex": 1}, 0)


def test_what_flex_turns_away_is_bought_at_the_whole_price(bible: MovieBible) -> None:
    """Where that is chosen; the rows tell which of them were."""

    def turn_away(request: TextRequest) -> bool:
        return request.tier == FLEX and request.texts[0].text == "text 1"

    model = ScriptedModel(raising(Shed("no room"), turn_away))
    limits = Limits(concurrency=1, per_call=4)
    batch = batch_of(bible, model, limits, tier=FLEX, fallback=Fallback(QUICK, 7.0))
    batch.run(IDS, order())
    rows = bible.annotations(IDS, PROMPT.version)
    tiers = [rows[one].service_tier for one in IDS]
    assert tiers == ["standard"] * 4 + ["flex"] * 4
    assert [request.timeout for request in model.requests] == [60.0] * 3 + [7.0, 60.0]
    assert batch.report.spent.cost_nanos == ONE_CALL + ONE_CALL // 2
    document = batch.report.document()
    assert (document["tiers"], document["fallbacks"]) == ({"flex": 4, "standard": 1}, 1)
    assert document["failures"] == {"shed": 3}


def test_what_flex_turns_away_is_given_up_where_nothing_else_is_chosen(bible: MovieBible) -> None:
    """It is never bought at the whole price unasked."""
    model = ScriptedModel(raising(Shed("no room"), lambda request: True))
    batch = batch_of(bible, model, Limits(concurrency=1, per_call=8), tier=FLEX)
    batch.run(IDS, order())
    assert {kind for kind, _ in batch.report.unfilled.values()} == {"shed"}
    assert {request.tier for request in model.requests} == {"flex"}
    assert batch.report.spent == Spent()


def test_the_cap_of_a_batch_that_may_fall_back_goes_by_the_whole_price(bible: MovieBible) -> None:
    half = batch_of(bible, ScriptedModel(), tier=FLEX)
    both = batch_of(bible, ScriptedModel(), tier=FLEX, fallback=Fallback(QUICK, 7.0))
    whole = PriceTable.load().price("gemini-2.5-flash")
    assert both._asker.price == whole  # by which calls are estimated
    assert half._asker.price == PriceTable.load().price("gemini-2.5-flash", FLEX)


@pytest.mark.parametrize(
    ("tier", "times", "fallback"),
    [
        ("standard", (60.0, RetryPolicy(6, 0.5, 60.0)), None),
        ("flex", (900.0, RetryPolicy(6, 5.0, 120.0)), None),
        ("flex-or-standard", (900.0, RetryPolicy(6, 5.0, 120.0)), Fallback(RetryPolicy(), 60.0)),
    ],
)
def test_a_worker_does_as_it_was_planned(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tier: TierChoice,
    times: tuple[float, RetryPolicy],
    fallback: Fallback | None,
) -> None:
    """Whatever its own environment says of the tier; with the patience that the tier needs."""
    monkeypatch.setenv("TEXT_MODEL", "tests.workflows.filling_support:own_model")
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "flex")
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", f"sqlite:///{tmp_path}/bible.sqlite3")
    planned = PlannedModel(provider="scripted", name="own-1", tier=tier)
    equipment = equip(order(model=planned))
    assert (equipment.timeout, equipment.asker.policy) == times
    assert equipment.asker.tier == ("standard" if tier == "standard" else "flex")
    assert equipment.asker.fallback == fallback


def test_a_cap_ends_the_batch_before_it_is_passed(bible: MovieBible) -> None:
    """What was paid until then is committed, and the error says what is left."""
    model = ScriptedModel()
    batch = batch_of(bible, model, ONE_BY_ONE)
    with pytest.raises(CapReachedError, match=r"of a cap of 0\.001.*of 8 passages.*cap=MORE"):
        batch.run(IDS, order(cap=0.001))
    paid = batch.report.spent.cost_nanos
    assert 0 < paid <= 0.001 * NANO
    assert len(batch.report.rows) == len(model.requests) == paid // ONE_CALL < 8
    assert bible.count_annotations(IDS, PROMPT.version) == len(batch.report.rows)


def test_a_cap_counts_what_is_in_flight(bible: MovieBible) -> None:
    """Of four calls that may be made at once only two are begun, as the cap has room for no more.

    They wait for one another, so that neither is counted before both are begun.
    """
    both, begun = threading.Barrier(2, timeout=20), list[int]()
    model = ScriptedModel()

    def together(_: TextRequest, items: list[Item]) -> list[Item]:
        if not begun:
            both.wait()
        return items

    model.change = together
    price = PriceTable.load().price("gemini-2.5-flash")
    assert price is not None
    text = documents(1)[0]
    tokens_in = PROMPT.overhead_tokens() + passage_tokens(text.text, FIELDS, text.film)
    cap = 2.5 * price.cost_nanos(tokens_in, output_tokens(FIELDS)) / NANO
    batch = batch_of(
        bible,
        model,
        Limits(concurrency=4, per_call=1),
        progress=lambda _: begun.append(len(model.requests)),
    )
    batch.run(IDS[:6], order(cap=cap))
    assert begun[0] == 2
    assert batch.report.spent.cost_nanos <= cap * NANO


def test_a_cap_counts_what_earlier_attempts_have_paid_for_rows(bible: MovieBible) -> None:
    """Of the same run and entry, and of no other."""
    cap = 0.001
    with pytest.raises(CapReachedError):
        batch_of(bible, ScriptedModel(), ONE_BY_ONE).run(IDS, order(cap=cap))
    again = ScriptedModel()
    batch = batch_of(bible, again, ONE_BY_ONE, provenance=Provenance("RUN", "ENTRY", 2))
    with pytest.raises(CapReachedError, match="by earlier attempts"):
        batch.run(IDS, order(cap=cap))
    assert again.requests == []
    other = ScriptedModel()
    batch = batch_of(bible, other, ONE_BY_ONE, provenance=Provenance("RUN", "OTHER", 1))
    batch.run(IDS, order(cap=cap))
    assert other.requests


def test_a_cap_that_is_enough_is_not_noticed(bible: MovieBible) -> None:
    batch = batch_of(bible, ScriptedModel())
    batch.run(IDS, order(cap=1))
    assert len(batch.report.rows) == 8


def test_a_cap_without_a_price_is_refused_by_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its price table may be another one than the plan's."""
    monkeypatch.setenv("TEXT_MODEL", "tests.workflows.filling_support:own_model")
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", f"sqlite:///{tmp_path}/bible.sqlite3")
    planned = PlannedModel(provider="scripted", name="own-1")
    with pytest.raises(SettingsError, match=r"may cost 1 USD at most, .* no price for own-1"):
        equip(order(model=planned, cap=1))


def test_a_cap_allows_what_just_fits() -> None:
    cap = Cap.of(0.000_000_010, earlier=3)
    assert cap.allows(4, 3)
    assert not cap.allows(4, 4)


parts = st.builds(Spent, *[st.integers(0, 10**9)] * 6)


@given(parts, st.integers(1, 50))
def test_shares_add_up(whole: Spent, number: int) -> None:
    """Of every count, and none is more than one from another."""
    shares = whole.share(number)
    assert sum(shares, Spent()) == whole
    assert max(shares, key=lambda one: one.cached).cached - whole.cached // number <= 1
    assert whole - whole == Spent()
