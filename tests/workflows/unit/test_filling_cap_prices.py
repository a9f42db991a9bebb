"""A cap where prices end: at midnight, in the middle of a batch."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from tasks.filling.batch import Limits
from tasks.filling.cap import CapReachedError
from tasks.text_model import prices
from tasks.text_model.base import TextRequest
from tasks.text_model.prices import PriceTable
from tests.workflows.filling_support import (
    PROMPT,
    Item,
    ScriptedModel,
    batch_of,
    bible_at,
    documents,
    order,
)

LAST_DAY, NEXT_DAY = date(2026, 6, 30), date(2026, 7, 1)


@pytest.fixture
def table(tmp_path: Path) -> PriceTable:
    """Prices that hold until ``LAST_DAY``."""
    price = {"input": 1, "output": 1, "valid_until": LAST_DAY.isoformat()}
    document = {"currency": "USD", "as_of": "2026-06-01", "models": {"gemini-2.5-flash": price}}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return PriceTable.load(path)


def test_a_price_that_ends_in_the_middle_ends_a_batch_with_a_cap(
    tmp_path: Path, table: PriceTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls without a price cost nothing by its count, so all of them would be within the cap."""
    monkeypatch.setattr(prices, "today", lambda: LAST_DAY)
    passages = documents(20)
    ids = [one.id for one in passages]

    def midnight(request: TextRequest, items: list[Item]) -> list[Item]:
        if len(model.requests) == 2:
            monkeypatch.setattr(prices, "today", lambda: NEXT_DAY)
        return items

    model = ScriptedModel(midnight)
    limits = Limits(concurrency=1, per_call=4)
    with bible_at(tmp_path, passages) as bible:
        batch = batch_of(bible, model, limits, prices=table)
        with pytest.raises(CapReachedError, match=r"no price of gemini-2.5-flash .* 8 of 20 pass"):
            batch.run(ids, order(cap=1.0))
        assert len(model.requests) == 2
        assert len(bible.annotations(ids, PROMPT.version)) == 8
        batch_of(bible, model, limits, prices=table).run(ids, order())
        assert len(bible.annotations(ids, PROMPT.version)) == 20
