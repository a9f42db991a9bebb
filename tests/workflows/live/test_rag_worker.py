"""The batch task in a worker of its own: time limits, keys, and what it refuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery
from pydantic import JsonValue

from tasks.movie_bible.fields import FIELDS
from tasks.text_model.settings import DEFAULT_GEMINI
from tests.processes import child, tail
from tests.support import eventually
from tests.workflows.crud_load import ROOT
from tests.workflows.filling_support import PROMPT, bible_at, documents
from tests.workflows.gemini_server import KEY, gemini_server

pytestmark = pytest.mark.live

TASK = "tasks.rag.process_batch_task"
IDS = [one.id for one in documents(12)]


@contextmanager
def worker(folder: Path, url: str, **environment: str) -> Iterator[Path]:
    """A worker of this project with one process; yields its log."""
    cleared = {n: v for n, v in os.environ.items() if not n.startswith(("GEMINI", "GOOGLE"))}
    ours = {
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url,
        "GAP_FILL_DATABASE_URL": f"sqlite:///{folder}/bible.sqlite3",
    }
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-l", "INFO"]
    with child(command, log=log, cwd=ROOT, env={**cleared, **ours, **environment}) as process:

        def ready() -> bool:
            assert process.poll() is None, tail(log)
            return " ready." in log.read_text()

        eventually(ready, within=60, what="the worker says that it is ready")
        yield log


def data(provider: str = "offline", name: str = "extractive-1") -> dict[str, JsonValue]:
    return {
        "fields": [*FIELDS],
        "prompt": PROMPT.version,
        "prompt_digest": PROMPT.digest,
        "model": {"provider": provider, "name": name},
    }


def send(
    url: str, data: Mapping[str, JsonValue], *, ids: Sequence[str] = IDS, **options: float
) -> object:
    """The task's result; raises what it raised."""
    app = Celery("client", broker=url, backend=url)
    try:
        kwargs = {"ids": ids, "data": data}
        return app.send_task(TASK, kwargs=kwargs, **options).get(timeout=60)
    finally:
        app.close()


SLOW = {
    "TEXT_MODEL_LATENCY": "0.4",
    "TEXT_MODEL_CONCURRENCY": "1",
    "GAP_FILL_PASSAGES_PER_CALL": "1",
}


def test_a_soft_time_limit_leaves_what_is_done_committed(tmp_path: Path, valkey: str) -> None:
    with bible_at(tmp_path, documents(12)) as bible, worker(tmp_path, valkey, **SLOW):
        # On a busy machine what a first batch loads takes longer than the limit.
        send(valkey, data(), ids=["of/nobody"])
        with pytest.raises(Exception, match=r"its soft time limit was over: \d+ of 12") as raised:
            send(valkey, data(), soft_time_limit=2)
        rows = bible.annotations(IDS, PROMPT.version)
        assert 0 < len(rows) < 12
        assert f"{len(rows)} of 12 passages" in str(raised.value)
        send(valkey, data())
        rows = bible.annotations(IDS, PROMPT.version)
        assert [row.revision for row in rows.values()] == [1] * 12


def test_a_key_that_is_refused_ends_the_batch_and_is_shown_to_nobody(
    tmp_path: Path, valkey: str
) -> None:
    wrong = "not-the-key-4711"
    with (
        bible_at(tmp_path, documents(12)) as bible,
        gemini_server() as server,
        worker(
            tmp_path,
            valkey,
            GEMINI_API_KEY=wrong,
            TEXT_MODEL_BASE_URL=server.url,
            TEXT_MODEL_CONCURRENCY="1",
        ) as log,
    ):
        with pytest.raises(Exception, match="key") as raised:
            send(valkey, data("google-genai", DEFAULT_GEMINI))
        assert type(raised.value).__name__ == "Unauthorized"
        assert len(server.calls) == 1  # no call could have succeeded
        assert bible.count_annotations(IDS, PROMPT.version) == 0
        assert wrong not in str(raised.value) + log.read_text()
        assert KEY not in log.read_text()


def test_an_order_that_is_none_says_what_is_wrong(tmp_path: Path, valkey: str) -> None:
    bible_at(tmp_path, documents(12)).close()
    with worker(tmp_path, valkey):
        with pytest.raises(Exception, match=r"process_batch_task\(ids, data\): fields"):
            send(valkey, {**data(), "fields": []})
        with pytest.raises(Exception, match="is not the one that was planned"):
            send(valkey, {**data(), "prompt_digest": "0" * 64})
        with pytest.raises(Exception, match=r"movie-bible/99.* has movie-bible/1"):
            send(valkey, {**data(), "prompt": "movie-bible/99"})
        with pytest.raises(Exception, match=r"was planned for gemini-2\.5-flash"):
            send(valkey, data("google-genai", "gemini-2.5-flash"))
