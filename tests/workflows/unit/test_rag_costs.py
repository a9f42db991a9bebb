"""What a batch tells of its cost that ends before it has asked anything."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import JsonValue

from tasks.filling import batch as filling_batch
from tasks.filling.batch import BatchStoppedError
from tasks.filling.cap import CapReachedError
from tasks.movie_bible.fields import FIELDS
from tasks.rag import process_batch_task
from tasks.text_model.base import TextRequest
from tests.workflows.filling_support import (
    PROMPT,
    Ending,
    Item,
    ScriptedModel,
    batch_of,
    bible_at,
    documents,
    order,
)

SECONDS = 60.0
MODEL = "gemini-3.5-flash-lite"


def test_a_batch_that_may_ask_nothing_has_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is sent again when its cap is reached: its estimate would count else."""
    environment = {
        "GAP_FILL_DATABASE_URL": f"sqlite:///{tmp_path}/bible.sqlite3",
        "GEMINI_API_KEY": "k",
        "TEXT_MODEL": "google-genai",
        "TEXT_MODEL_NAME": MODEL,
        "TEXT_MODEL_BASE_URL": "http://127.0.0.1:9",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told: dict[str, JsonValue] = {}
    monkeypatch.setattr("tasks.rag.evidence", told.update)
    data: dict[str, JsonValue] = {
        "fields": [*FIELDS],
        "prompt": PROMPT.version,
        "prompt_digest": PROMPT.digest,
        "model": {"provider": "google-genai", "name": MODEL},
        "cap": 0.000001,
    }
    with bible_at(tmp_path, documents(2)), pytest.raises(CapReachedError):
        process_batch_task([one.id for one in documents(2)], data)
    assert told["cost"] == 0.0


def test_a_call_of_which_nothing_is_heard_may_have_cost_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch ends before it is answered."""
    ending = Ending(monkeypatch, filling_batch, is_patient=False)
    ended = threading.Event()

    def slow(request: TextRequest, items: list[Item]) -> list[Item]:
        ending.over.set()
        assert ended.wait(SECONDS)
        return items

    with bible_at(tmp_path, documents(2)) as bible:
        batch = batch_of(bible, ScriptedModel(slow))
        assert not batch.may_have_cost
        try:
            with pytest.raises(BatchStoppedError):
                batch.run([one.id for one in documents(2)], order(), seconds=SECONDS)
            assert batch.may_have_cost
        finally:
            ended.set()
