"""What the tasks of batch jobs refuse before anything is done."""

from __future__ import annotations

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
