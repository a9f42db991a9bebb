"""``--manifest-rate``, ``--manifest-queue-depth`` and ``manifest_health``: sending is held back."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from kombu import Connection

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.run_facts import Segment, Throttled
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.plugin.test_key_limits import of_tenants
from tests.support import eventually

MEMORY = "--manifest-broker=memory://"
M = "--manifest=m.jsonl"
HEALTH = """
from pathlib import Path

import pytest

ASKED = Path(__file__).with_name("asked.txt")


@pytest.fixture(scope="session")
def manifest_health():
    return {}


def health():
    with ASKED.open("a") as file:
        file.write("asked\\n")
    return Path(__file__).with_name("health.txt").read_text("utf-8"), "as the file says"
"""


def throttled(project: Project) -> list[tuple[str, str, bool]]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return [(one.why, one.key, one.is_over) for one in ledger.facts.of_kind(Throttled)]


def sent_at(project: Project) -> list[datetime]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return sorted(row.sent_at for row in ledger.attempts.all() if row.sent_at is not None)


def held_within(times: list[datetime], per_second: float, most: float) -> bool:
    """Whether no stretch of time has more sendings than a rate with what is saved up."""
    return all(
        last - first + 1
        <= (times[last] - times[first]).total_seconds() * per_second + most + per_second * 0.05
        for first in range(len(times))
        for last in range(first, len(times))
    )


def test_a_rate_is_kept_recorded_and_told(project: Project) -> None:
    """In the terminal, in JSON, in Markdown, on the page and by ``manifest show``."""
    of_tenants(project, "aab....")
    result = project.run(
        *(M, MEMORY, "--manifest-rate=3/s", "--manifest-rate=tenant=a:2/s"),
        *(f"--manifest-report=r.{one}" for one in ("json", "md", "html")),
    )
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(
        ["  at most 3/s, tenant=a 2/s", "  slowed by its rate*no more than 3/s"]
    )
    run = json.loads((project.path / "r.json").read_text("utf-8"))["run"]
    assert run["rates"] == {"": "3/s", "tenant=a": "2/s"}
    assert {(one["why"], one["key"]) for one in run["throttled"]} >= {("rate", "")}
    assert all(one["ended"] is not None for one in run["throttled"])
    assert "slowed by its rate" in (project.path / "r.md").read_text("utf-8")
    assert "slowed by its rate" in (project.path / "r.html").read_text("utf-8")
    assert ("rate", "", True) in throttled(project)
    with Ledger.open(project.ledgers()[-1]) as ledger:
        (segment,) = ledger.facts.of_kind(Segment)
        assert segment.rates == {"": "3/s", "tenant=a": "2/s"}


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        ("tenat:5/s", "--manifest-rate tenat:5/s: no entry of m.jsonl has a key 'tenat'; their *"),
        (
            "tenant=c:5/s",
            "--manifest-rate tenant=c:5/s: of no entry of m.jsonl the key 'tenant' is 'c'; they *",
        ),
    ],
)
def test_a_key_that_no_entry_has_is_refused(project: Project, rate: str, sentence: str) -> None:
    """A rate that holds nothing back is a mistake."""
    of_tenants(project, "ab")
    result = project.run(M, MEMORY, f"--manifest-rate={rate}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: nothing was sent: {sentence}"])
    assert project.ledgers() == []


@pytest.mark.ring(2)
def test_shards_share_a_rate_and_a_resume_has_its_own(project: Project) -> None:
    """The fact of each stretch of the run says what held in it."""
    of_tenants(project, "aaaa")
    broken = project.break_("e0")
    gates = ("--manifest-shard=1/2", "--manifest-max-failed=0", "--manifest-rate=100/s")
    project.run(M, MEMORY, *gates, "--manifest-queue-depth=50")
    broken.unlink()
    project.run(
        M, MEMORY, "--manifest-shard=1/2", "--manifest-resume=unsafe", "--manifest-rate=90/m"
    )
    with Ledger.open(project.ledgers()[-1]) as ledger:
        found = [(one.rates, one.queue_depth) for one in ledger.facts.of_kind(Segment)]
    assert found == [({"": "50/s"}, 50), ({"": "45/m"}, None)]


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("gives", "sentence"),
    [
        (
            "{}",
            "*nothing was sent: the fixture manifest_health gave {}; have it return a function*",
        ),
        (
            "lambda: 1 / 0",
            "*manifest_health raised ZeroDivisionError: *: there is no answer*",
        ),
        ("lambda: 'fine'", "*manifest_health answered 'fine', which is not 'ok', 'slow' or *"),
    ],
)
def test_a_health_that_is_none(project: Project, gives: str, sentence: str) -> None:
    """No function is refused; what says nothing holds nothing back, and is said once."""
    project.write("conftest.py", HEALTH.replace("return {}", f"return {gives}"))
    of_tenants(project, "ab")
    result = project.run(M, MEMORY)
    if gives == "{}":
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([sentence])
        assert project.ledgers() == []
    else:
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines([sentence])
        assert result.stdout.str().count("manifest_health") <= 2, "at once, and in the summary"


def test_health_stops_and_lets_go_on(project: Project) -> None:
    """manifest_health: nothing is sent while it says stop, in a session with xdist too."""
    project.write("conftest.py", HEALTH.replace("return {}", "return health"))
    of_tenants(project, "abc")
    health = project.write("health.txt", "stop")
    with pytest_beside(project, M, "-n1", "-p", "no:cacheprovider") as session:
        eventually(
            lambda: project.ledgers() and throttled(project) == [("health", "", False)],
            within=60,
            what="the run has heard that it must not send",
        )
        assert sent_at(project) == []
        health.write_text("ok", "utf-8")
        output, _ = session.communicate(timeout=120)
    assert "3 passed" in output, output
    assert "slowed by manifest_health for" in output
    assert "stop: as the file says" in output
    assert throttled(project) == [("health", "", False), ("health", "", True)]


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize("kind", ["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def test_real_workers_get_no_more_than_the_rate(
    project: Project, broker: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """By the ledger's times of sending; of the key that is slow the others do not wait."""
    url = broker if kind == "valkey" else request.getfixturevalue("rabbitmq_url")
    of_tenants(project, "aaaa" + "b" * 26)
    with worker(project, url, *INSTRUMENTED, backend=broker):
        result = project.run(
            *(M, f"--manifest-broker={url}", f"--manifest-backend={broker}"),
            *("--manifest-rate=40/s", "--manifest-rate=tenant=a:2/s", "--manifest-queue-depth=25"),
        )
    result.assert_outcomes(passed=30)
    assert project.ran() == {f"e{n}": 1 for n in range(30)}
    assert held_within(sent_at(project), 40, 10)
    found = throttled(project)
    assert {("rate", "", False), ("rate", "tenant=a", False)} <= set(found)
    assert sum(one[2] for one in found) * 2 == len(found)
    order = project.order()
    assert order.index("e3") > order.index("e29"), "the slow tenant came last"


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize("kind", ["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def test_messages_of_others_count_for_the_depth(
    project: Project, broker: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Nothing is sent while the queue is full of them; once they are gone all is run."""
    url = broker if kind == "valkey" else request.getfixturevalue("rabbitmq_url")
    of_tenants(project, "ab")
    with Connection(url) as connection, connection.SimpleQueue("celery") as queue:
        for _ in range(7):
            queue.put({"nobody": "takes it"})
        gates = (f"--manifest-broker={url}", f"--manifest-backend={broker}")
        options = (M, *gates, "--manifest-queue-depth=5", "--manifest-deadline=100s")
        with pytest_beside(project, *options) as session:
            eventually(
                lambda: project.ledgers() and throttled(project) == [("queue", "", False)],
                within=60,
                what="the run has seen the queue",
            )
            assert sent_at(project) == []
            queue.clear()
            with worker(project, url, *INSTRUMENTED, backend=broker):
                output, _ = session.communicate(timeout=120)
    assert "2 passed" in output, output
    with Ledger.open(project.ledgers()[-1]) as ledger:
        said = {one.detail for one in ledger.facts.of_kind(Throttled)}
    assert said == {"7 messages in queue 'celery', of 5 at most"}
    assert project.ran() == {"e0": 1, "e1": 1}
