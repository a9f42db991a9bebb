"""What a receiver of Celery's signals raises changes no job's state: the run speaks of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.frameworks.projects import INSTRUMENTED, Stranger

pytestmark = pytest.mark.live


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_work_that_was_not_stored(pool: str, tmp_path: Path, valkey: str) -> None:
    """The job has passed, as Celery has it; what its receiver did not store is said, with who."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    project = Stranger("own_command", tmp_path)
    project.use(valkey)
    with project.worker(*INSTRUMENTED, "--pool", pool):
        done = project.dispatch()
    assert (project.folder / "milk.txt").read_text("utf-8") == "two bottles"
    told = one_line(done.text)
    assert "notes.celery.commit raised ValueError: a/b is no name of a file" in told
    assert "1 time, first at 'lost'" in told
    assert "open_storage" not in told


@pytest.mark.parametrize("where", ["--manifest-broker=private", "--manifest-broker=memory://"])
def test_an_app_without_what_its_own_command_gives_it(where: str, tmp_path: Path) -> None:
    """What the worker's start lacks is named before the errors that follow from it."""
    project = Stranger("own_command", tmp_path)
    command = ("pytest", "--manifest=batch.jsonl", "--manifest-workers=1", where)
    done = project.run(*command, "--manifest-app=notes.celery")
    told = one_line(done.text)
    assert "AttributeError: 'Celery' object has no attribute 'storage'" in told
    if where.endswith("private"):
        assert (
            "when a worker started, notes.celery.open_storage raised AttributeError: 'Celery' "
            "object has no attribute 'make_storage'"
        ) in told
    assert "notes.celery.forget raised AttributeError" in told
