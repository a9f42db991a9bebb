"""A batch finds how many calls a service bears, fills every row, and tells what was refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from pydantic import JsonValue

from tasks.movie_bible.fields import FIELDS
from tasks.rag import process_batch_task
from tests.workflows.filling_support import PROMPT, bible_at, documents
from tests.workflows.gemini_server import KEY, GeminiServer, gemini_server

pytestmark = pytest.mark.live

PASSAGES = 40
MODEL = "gemini-3.5-flash-lite"


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    """Answers three calls at a time, and refuses the others."""
    with gemini_server({"latency": 0.05, "at_once": [3], "retry": None}) as serving:
        yield serving


@pytest.mark.ring(1)
def test_a_batch_tells_what_was_allowed_and_refused(
    tmp_path: Path, valkey: str, server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its evidence, where the run's page finds it: as often as the service has refused."""
    environment = {
        "GAP_FILL_DATABASE_URL": f"sqlite:///{tmp_path}/bible.sqlite3",
        "GAP_FILL_PASSAGES_PER_CALL": "1",
        "GEMINI_API_KEY": KEY,
        "TEXT_MODEL": "google-genai",
        "TEXT_MODEL_NAME": MODEL,
        "TEXT_MODEL_BASE_URL": server.url,
        "TEXT_MODEL_CONCURRENCY": "8",
        "TEXT_MODEL_MOST_AT_ONCE": "16",
        "TEXT_MODEL_LIMITS_URL": valkey,
        "TEXT_MODEL_ATTEMPTS": "50",
        "TEXT_MODEL_FIRST_WAIT": "0.02",
        "TEXT_MODEL_LONGEST_WAIT": "0.2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told: dict[str, JsonValue] = {}
    monkeypatch.setattr("tasks.rag.evidence", told.update)
    ids = [one.id for one in documents(PASSAGES)]
    data: dict[str, JsonValue] = {
        "fields": [*FIELDS],
        "prompt": PROMPT.version,
        "prompt_digest": PROMPT.digest,
        "model": {"provider": "google-genai", "name": MODEL},
    }
    with bible_at(tmp_path, documents(PASSAGES)) as bible:
        result = process_batch_task(ids, data)
        assert result["unfilled"] == []
        rows = bible.annotations(ids, PROMPT.version)
        assert [row.revision for row in rows.values()] == [1] * PASSAGES
    refused = sum(call.crowded for call in server.calls)
    assert refused > 0, "the service was never asked for more than it bears"
    series = cast("dict[str, dict[str, list[list[float]]]]", told["over_time"])
    assert sum(count for _, count in series["calls refused"]["points"]) == refused
    levels = [level for _, level in series["calls allowed at a time"]["points"]]
    assert 1 <= min(levels) <= max(levels) <= 16
