"""``--manifest-dispatch-only``: it returns when all is sent; giving up, it says what is left."""

from __future__ import annotations

import pytest
import redis

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.run_facts import Throttled
from tests.plugin.conftest import Project

pytestmark = pytest.mark.live


def test_it_sends_more_than_any_window_and_returns(project: Project, broker: str) -> None:
    """Nobody works, so nothing that is in flight lands; its deadline is for its red."""
    project.doubles(count=12)
    options = (f"--manifest-broker={broker}", "--manifest-window=4", "--manifest-deadline=30s")
    sent = project.run("--manifest=m.jsonl", *options, "--manifest-dispatch-only")
    assert sent.ret == pytest.ExitCode.OK
    sent.stdout.fnmatch_lines(["*run *, 12 entries: no verdict yet", "*--manifest-audit=wait*"])
    with redis.Redis.from_url(broker) as client:
        assert client.llen("celery") == 12
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert (ledger.info.status, ledger.attempts.send_states()) == ("detached", {"sent": 12})


def test_it_stays_until_all_is_sent_at_its_rate(project: Project, broker: str) -> None:
    """What waits for the rate of its key is not left behind."""
    rows = [
        {"id": f"e{n}", "task": "jobs.flaky", "args": [f"e{n}"], "key": {"tenant": "a"}}
        for n in range(4)
    ]
    project.manifest("m.jsonl", rows)
    options = (f"--manifest-broker={broker}", "--manifest-rate=tenant:4/s")
    sent = project.run("--manifest=m.jsonl", *options, "--manifest-dispatch-only")
    assert sent.ret == pytest.ExitCode.OK
    with redis.Redis.from_url(broker) as client:
        assert client.llen("celery") == 4
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert ledger.attempts.send_states() == {"sent": 4}
        held = [(one.key, one.is_over) for one in ledger.facts.of_kind(Throttled)]
    assert held == [("tenant=a", False), ("tenant=a", True)]


def test_giving_up_is_no_success_and_judges_nothing_that_was_sent(
    project: Project, broker: str
) -> None:
    """What has left is the workers', what has not can be sent by --manifest-resume."""
    project.doubles(count=30)
    url = f"--manifest-broker={broker}"
    result = project.run(
        "--manifest=m.jsonl", url, "--manifest-dispatch-only", "--manifest-deadline=0.001s"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*run *, 30 entries: no verdict yet",
            "*the run gave up: the run's deadline of 0.001 s is over, and 10 entries had not been*",
            "*to send the rest: pytest --manifest=m.jsonl --manifest-resume --manifest-broker=*",
        ]
    )
    with redis.Redis.from_url(broker) as client:
        assert client.llen("celery") == 20
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert (ledger.info.status, ledger.verdicts.statuses()) == ("detached", {})
        assert ledger.attempts.send_states() == {"sent": 20, "planned": 10}
    rest = project.run("--manifest=m.jsonl", url, "--manifest-resume", "--manifest-dispatch-only")
    assert rest.ret == pytest.ExitCode.OK
    with redis.Redis.from_url(broker) as client:
        assert client.llen("celery") == 30
