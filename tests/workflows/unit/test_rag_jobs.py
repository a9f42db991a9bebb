"""What the tasks of batch jobs refuse before anything is done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import JsonValue

from tasks.filling.order import BadOrderError
from tasks.movie_bible.fields import FIELDS
from tasks.rag import collect_batch_task, process_batch_task, submit_batch_task
from tests.workflows.filling_support import PROMPT


def data(tier: str) -> dict[str, JsonValue]:
    return {
        "fields": [*FIELDS],
        "prompt": PROMPT.version,
        "prompt_digest": PROMPT.digest,
        "model": {"provider": "google-genai", "name": "gemini-3.5-flash-lite", "tier": tier},
    }


def test_an_order_of_calls_is_none_of_jobs() -> None:
    with pytest.raises(BadOrderError, match="none of the tier batch"):
        submit_batch_task(["a"], data("flex"))
    with pytest.raises(BadOrderError, match="none of the tier batch"):
        submit_batch_task(["a"], {"action": "remove_orphans"})


def test_an_order_of_jobs_is_none_of_calls() -> None:
    with pytest.raises(BadOrderError, match="is for submit_batch_task"):
        process_batch_task(["a"], data("batch"))


def test_jobs_are_those_of_an_entry() -> None:
    """Else nobody would find them again."""
    with pytest.raises(BadOrderError, match="runs for none"):
        submit_batch_task(["a"], data("batch"))
    with pytest.raises(BadOrderError, match="runs for none"):
        collect_batch_task(["a"], data("batch"), "submit-1")


def test_loading_is_a_part_of_a_batchs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first one loads for seconds, and must end by itself before it is ended."""
    now = [1000.0]
    left: list[float] = []

    def load(_order: object) -> SimpleNamespace:
        now[0] += 3.0
        report = SimpleNamespace(over_time=dict)
        return SimpleNamespace(
            asker=SimpleNamespace(price=None),
            batch=lambda *_: SimpleNamespace(report=report, may_have_cost=False),
            document=lambda _: {},
            seconds=lambda _: 10.0,
        )

    monkeypatch.setattr("tasks.rag.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("tasks.rag._equipment", load)
    monkeypatch.setattr("tasks.rag._run", lambda *given: left.append(given[-1]))
    process_batch_task(["a"], data("flex"))
    assert left == [7.0]
