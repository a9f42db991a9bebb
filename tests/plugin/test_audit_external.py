"""``--manifest-audit`` on a stack that outlives pytest: it looks and waits, and sends nothing."""

from __future__ import annotations

import pytest
import redis

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

AUDIT = ("--manifest=m.jsonl", "--manifest-audit")


@pytest.fixture
def url(broker: str) -> str:
    return f"--manifest-broker={broker}"


def queued(broker: str) -> int:
    with redis.Redis.from_url(broker) as client:
        return int(client.llen("celery"))


@pytest.mark.parametrize("wait", [(), ("--manifest-audit=wait",)], ids=["look", "wait"])
def test_an_audit_sends_nothing_again(
    project: Project, broker: str, url: str, wait: tuple[str, ...]
) -> None:
    """An idempotent entry with retries whose message is gone gets no second attempt, though nobody
    knows what became of it: there was no worker yet when it was sent."""
    entry = {"id": "a", "task": "jobs.double", "args": [1, "a"], "idempotent": True, "retries": 2}
    project.manifest("m.jsonl", [entry])
    assert (
        project.run("--manifest=m.jsonl", url, "--manifest-dispatch-only").ret == pytest.ExitCode.OK
    )
    with redis.Redis.from_url(broker) as client:
        client.delete("celery")
    with worker(project, broker, *INSTRUMENTED):
        project.run(*AUDIT, url, *wait).assert_outcomes(errors=1)
    assert queued(broker) == 0
    assert not project.ran()
    assert project.verdicts() == {"a": "unknown"}
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert [row.attempt for row in ledger.attempts.of_entry("a")] == [1]


def test_a_run_whose_deadline_is_over_is_left_to_the_workers(project: Project, url: str) -> None:
    """Nobody worked: the summary says how to go on, and the same work is not sent a second time."""
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", url, "--manifest-deadline=1s")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "  the workers go on without pytest",
            "  to go on: pytest * --manifest-audit=wait --manifest-broker=*redis://*",
        ]
    )
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert ledger.info.status == "detached"
    refused = project.run("--manifest=m.jsonl", url)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*is unfinished*--manifest-audit=wait*--manifest-resume*--manifest-rerun*"]
    )
    assert len(project.ledgers()) == 1


def test_what_ran_after_the_deadline_passes_an_audit(
    project: Project, broker: str, url: str
) -> None:
    """A worker came late and ran everything once: by its receipts all have passed."""
    project.doubles(count=3)
    project.run("--manifest=m.jsonl", url, "--manifest-deadline=1s").assert_outcomes(errors=3)
    with worker(project, broker, *INSTRUMENTED):
        project.run(*AUDIT, url, "--manifest-audit=wait").assert_outcomes(passed=3)
    project.run(*AUDIT, url).assert_outcomes(passed=3)
    assert project.ran() == {f"d-{n}": 1 for n in range(3)}
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert ledger.info.status == "finished"


def test_a_look_finds_what_came_after_it_was_given_up(
    project: Project, broker: str, url: str
) -> None:
    """What no worker came for is pending; once one has run it, a mere look finds it passed."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", url, "--manifest-deadline=1s").assert_outcomes(errors=2)
    project.run(*AUDIT, url).assert_outcomes(errors=2)
    with worker(project, broker, *INSTRUMENTED):
        eventually(lambda: len(project.ran()) == 2, what="both have run")
    project.run(*AUDIT, url).assert_outcomes(passed=2)
    assert project.ran() == {"d-0": 1, "d-1": 1}


@pytest.mark.ring(1)
def test_what_ran_again_after_the_end_is_found_where_the_stack_is_named(
    project: Project, broker: str, url: str
) -> None:
    """The broker has given a message to a worker a second time; the ledger alone knows nothing."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", url, "--manifest-dispatch-only")
    with redis.Redis.from_url(broker) as client:
        again = client.lrange("celery", 0, 0)
        with worker(project, broker, *INSTRUMENTED):
            project.run(*AUDIT, url, "--manifest-audit=wait").assert_outcomes(passed=2)
            client.rpush("celery", *again)
            eventually(lambda: sum(project.ran().values()) == 3, what="one has run again")
            eventually(lambda: client.llen("celery") == 0, what="it was taken")
    project.run(*AUDIT).assert_outcomes(passed=2)
    project.run(*AUDIT, url).assert_outcomes(passed=1, failed=1)
    assert sorted(project.verdicts().values()) == ["duplicated", "passed"]
    project.run(*AUDIT).assert_outcomes(passed=1, failed=1)
