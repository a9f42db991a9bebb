"""A store that refuses the end of a job: that is no end of the job's, and costs it no time."""

from __future__ import annotations

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

REFUSING = """
from celery.signals import task_internal_error

app.conf.update(
    result_backend_always_retry=True,
    result_backend_max_retries=4,
    result_backend_base_sleep_between_retries_ms=400,
    result_backend_max_sleep_between_retries_ms=800,
)


def memory(limit):
    app.backend.client.config_set("maxmemory", limit)


@task_internal_error.connect
def free(**_):
    memory(0)


@app.task(name="jobs.ends")
def ends(key, fails):
    count(key)
    memory(1)
    if fails:
        raise ValueError("its own")
    return {"key": key}
"""


@pytest.mark.parametrize(
    ("fails", "expect"),
    [(False, {"result": {"key": "a"}}), (True, {"state": "failed", "error": {"match": "its own"}})],
)
def test_the_own_end_of_a_job_counts_where_the_store_had_no_memory_for_it(
    project: Project, broker: str, fails: bool, expect: dict[str, object]
) -> None:
    """Celery tries for longer than the entry's timeout, and then takes the store's refusal for the
    task's failure."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + REFUSING)
    entry = {"id": "a", "task": "jobs.ends", "args": ["a", fails], "timeout": 1, "expect": expect}
    project.manifest("m.jsonl", [entry])
    with worker(project, broker, *INSTRUMENTED, slots=1):
        project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    assert project.ran() == {"a": 1}
    with Ledger.open(project.ledgers()[-1]) as ledger:
        (settled,) = ledger.queries.all_verdicts()
    assert settled.verdict.verdict == "passed", settled.verdict.sentence
    assert settled.receipt is not None
    assert settled.receipt.runtime is not None
    assert settled.receipt.runtime < 1
    assert "OutOfMemoryError" in str(settled.receipt.evidence["store_refused"])


@pytest.mark.parametrize("fails", [False, True])
def test_of_a_stock_worker_only_the_refusal_is_known(
    project: Project, broker: str, fails: bool
) -> None:
    """Its store has that as the task's failure; an entry that expects one does not pass by it."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + REFUSING)
    expect = {"state": "failed"} if fails else {}
    entry = {"id": "a", "task": "jobs.ends", "args": ["a", fails], "timeout": 20, "expect": expect}
    project.manifest("m.jsonl", [entry])
    with worker(project, broker, slots=1):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    assert project.ran() == {"a": 1}
    assert project.verdicts() == {"a": "unknown"}
    result.stdout.fnmatch_lines(["*The result store refused what the job ended with*"])
