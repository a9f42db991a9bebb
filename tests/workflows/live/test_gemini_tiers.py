"""500 passages at each tier, by the real SDK, from a service that fails in every way.

Without a stack: a batch in this process. Rows, failures, tiers and cost are held against what the
service itself has noted of each call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from pydantic import JsonValue

import tasks.filling.batch
from tasks.filling.asking import Asker
from tasks.filling.batch import Batch, Limits
from tasks.filling.order import PlannedModel
from tasks.filling.report import Report
from tasks.filling.shares import Spent
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import FIELDS
from tasks.text_model.choosing import open_model
from tasks.text_model.failures import OtherModel
from tasks.text_model.limits import NoLimit
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import Fallback, RetryPolicy
from tasks.text_model.settings import (
    DEFAULT_GEMINI,
    GOOGLE_GENAI,
    TierChoice,
    first_tier,
    last_tier,
)
from tests.workflows.filling_support import PROMPT, bible_at, documents, order
from tests.workflows.gemini_server import Call, GeminiServer, filled, gemini_server
from tests.workflows.gemini_support import cost_nanos, settings_of, show
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.live.test_gap_fill_faults import FAILURE_OF, OF_ITEMS, SHAPES

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]

PASSAGES: Final = 500
IDS: Final = [one.id for one in documents(PASSAGES)]
RATES: Final[Mapping[str, float]] = {
    **dict.fromkeys([*FAILURE_OF, *OF_ITEMS], 0.05),
    "timeout": 0.01,
    "other_model": 0.005,
}
SHED: Final = ("rate_limited", "unavailable")
TIMEOUT: Final = 10.0
"""Seconds for a call: long for a server in this process, which one call in a hundred lets pass."""

PATIENT: Final = RetryPolicy(attempts=20, first_wait=0.001, longest_wait=0.1)
"""No call is given up for failures that may pass."""
SHORT: Final = RetryPolicy(attempts=6, first_wait=0.001, longest_wait=0.1)
"""Some calls do not get through at flex where most of them are turned away."""


@dataclass
class Told:
    """What the attempts of one entry have reported, added up."""

    failures: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    spent: Spent = field(default_factory=Spent)
    in_rows: Spent = field(default_factory=Spent)
    calls: int = 0
    fallbacks: int = 0
    unfilled: list[str] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.failures += report.failures
        self.tiers += report.tiers
        self.spent += report.spent
        self.in_rows += report.in_rows
        self.calls += report.calls
        self.fallbacks += report.fallbacks
        self.unfilled += report.unfilled


@pytest.mark.parametrize("tier", ["standard", "flex", "flex-or-standard"])
def test_every_fault_at_each_tier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: TierChoice
) -> None:
    """Every row is right and was bought once; every failure and every nano dollar is told.

    Where another model ends a batch, its calls under way are waited for: of those that are not,
    nobody knows what they cost.
    """
    monkeypatch.setattr(tasks.filling.batch, "SALVAGE_SECONDS", 2 * TIMEOUT)
    rates: dict[str, JsonValue] = {**RATES}
    script: dict[str, JsonValue] = {
        "rates": rates,
        "seed": 1979,
        "cached": 0.3,
        "retry": "0.001s",
        "shed": 0.6 if tier == "flex-or-standard" else 0.0,
    }
    with gemini_server(script) as server, bible_at(tmp_path, documents(PASSAGES)) as bible:
        told = fill(server, bible, tier)
        rows = bible.annotations(IDS, PROMPT.version)
        check_rows(bible, tier, told.fallbacks)
        assert told.unfilled == []
        assert told.calls == len(server.calls)
        assert told.tiers == Counter(call.tier for call in server.calls)
        assert told.failures == Counter(k for one in server.calls if (k := failure_of(one)))
        assert {*FAILURE_OF, *OF_ITEMS} <= set(server.faults), "a fault has not happened"
        cost = sum(map(cost_nanos, server.calls))
        assert (told.spent.cost_nanos, told.spent.unpriced_in) == (cost, 0)
        assert (told.spent.tokens_in, told.spent.tokens_out) == server.billed
        assert told.spent.cached == sum(call.cached for call in server.calls) > 0
        assert sum(row.cost_nanos for row in rows.values()) == told.in_rows.cost_nanos
        assert (told.fallbacks > 0) is (tier == "flex-or-standard")
        show(tier, len(rows), told.calls, told.failures, told.spent, told.in_rows)


def fill(server: GeminiServer, bible: MovieBible, tier: TierChoice) -> Told:
    """Fill all gaps; a batch that another model has ended is sent again, as its entry would be."""
    model = open_model(settings_of(GOOGLE_GENAI, server.url))
    planned = PlannedModel(provider=GOOGLE_GENAI, name=DEFAULT_GEMINI, tier=tier)
    falls_back = first_tier(tier) != last_tier(tier)
    asker = Asker(
        model,
        NoLimit(),
        SHORT if falls_back else PATIENT,
        PriceTable.load(),
        PROMPT,
        planned.accepted,
        first_tier(tier),
        Fallback(PATIENT, TIMEOUT) if falls_back else None,
    )
    limits = Limits(concurrency=8, per_call=5, asks_alone=12, timeout=TIMEOUT)
    told = Told()
    try:
        for attempt in range(1, 17):
            batch = Batch(bible, asker, limits, Provenance("R", "E", attempt), lambda _: None)
            try:
                batch.run(IDS, order(model=planned))
            except OtherModel:
                continue
            else:
                return told
            finally:
                told.add(batch.report)
    finally:
        model.close()
    raise AssertionError("another model has answered in each of 16 attempts")


def check_rows(bible: MovieBible, tier: TierChoice, fallbacks: int) -> None:
    """Each row is what the planned model says of its very passage, and was written once."""
    rows = bible.annotations(IDS, PROMPT.version)
    assert sorted(rows) == IDS
    for one in documents(PASSAGES):
        row = rows[one.id]
        assert row.values == {name: filled(name, one.text, SHAPES[name]) for name in FIELDS}
        assert (row.revision, row.model, row.answered_by) == (1, DEFAULT_GEMINI, DEFAULT_GEMINI)
    tiers = {row.service_tier for row in rows.values()}
    assert tiers == ({"flex", "standard"} if fallbacks else {tier})


def failure_of(call: Call) -> str | None:
    """The failure that must be counted for a call; None where its answer can be read."""
    if call.tier == "flex" and call.fault in SHED:
        return "shed"
    return FAILURE_OF.get(call.fault)
