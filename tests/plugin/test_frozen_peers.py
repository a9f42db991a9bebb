"""A broker or store that is stopped in the middle (SIGSTOP): it accepts, and says no word more."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import redis

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import AttemptRow, Ledger
from tests import services
from tests.conftest import started_or_missing
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.services import frozen_server
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

DEADLINE = 4
WIDE = 80.0
"""Seconds within which all must be over: far more than is needed, far less than a library waits."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """Of this module alone, as it is stopped."""
    with services.valkey_server() as url:
        yield url


@pytest.fixture(scope="module")
def rabbitmq_url() -> Iterator[str]:
    """Of this module alone, as it is stopped."""
    yield from started_or_missing(services.rabbitmq_server())


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """Of this module alone, as it is stopped."""
    yield from started_or_missing(services.postgres_server())


def queued(broker: str) -> int:
    with redis.Redis.from_url(broker) as client:
        return int(client.llen("celery"))


@contextmanager
def sent(project: Project, broker: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """pytest, when its three jobs wait in the queue; nobody works on them."""
    project.doubles(count=3)
    arguments = ["--manifest=m.jsonl", f"--manifest-broker={broker}", *options]
    with pytest_beside(project, *arguments) as process:
        yield process


def judged(project: Project) -> set[str]:
    (path,) = project.ledgers()
    with Ledger.open(path) as ledger:
        kinds = ledger.verdicts.statuses()
    assert len(kinds) == 3
    return set(kinds.values())


def test_redis_is_frozen(project: Project, broker: str) -> None:
    """Broker and store stop in the middle: every entry has its verdict soon after the deadline."""
    with sent(project, broker, f"--manifest-deadline={DEADLINE}s") as process:
        eventually(lambda: queued(broker) == 3, within=60, what="the jobs wait in the queue")
        with frozen_server(broker):
            text, _ = process.communicate(timeout=DEADLINE + WIDE)
    assert "3 timed_out" in text
    assert "Traceback" not in text
    assert judged(project) == {"timed_out"}


def test_ctrl_c_while_redis_is_frozen(project: Project, broker: str) -> None:
    """Ctrl-C while nothing answers ends the session as it does otherwise."""
    with sent(project, broker) as process:
        eventually(lambda: queued(broker) == 3, within=60, what="the jobs wait in the queue")
        with frozen_server(broker):
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=WIDE)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "3 entries" in text
    assert "Traceback" not in text


@pytest.mark.rabbitmq
@pytest.mark.parametrize("store", ["redis", "rpc"])
def test_rabbitmq_is_frozen(project: Project, broker: str, rabbitmq_url: str, store: str) -> None:
    """RabbitMQ stops in the middle; its client would wait for ever."""
    backend = broker if store == "redis" else "rpc://"
    options = (f"--manifest-backend={backend}", f"--manifest-deadline={DEADLINE}s")
    with sent(project, rabbitmq_url, *options) as process:
        eventually(lambda: was_sent(project), within=60, what="the jobs were sent")
        with frozen_server(rabbitmq_url):
            text, _ = process.communicate(timeout=DEADLINE + WIDE)
    assert "3 timed_out" in text
    assert judged(project) == {"timed_out"}


@pytest.mark.postgres
def test_a_database_of_results_is_frozen(project: Project, broker: str, postgres_url: str) -> None:
    """The SQL store stops in the middle; its driver would wait for ever."""
    store = "db+" + postgres_url.replace("postgresql://", "postgresql+psycopg://")
    options = (f"--manifest-backend={store}", f"--manifest-deadline={DEADLINE}s")
    with sent(project, broker, *options) as process:
        eventually(lambda: queued(broker) == 3, within=60, what="the jobs wait in the queue")
        with frozen_server(postgres_url):
            text, _ = process.communicate(timeout=DEADLINE + WIDE)
    assert "3 pending" in text
    assert judged(project) == {"pending"}


def test_a_frozen_stack_is_said_before_anything_is_sent(project: Project, broker: str) -> None:
    """Whoever calls pytest on a stack that does not answer reads a sentence within seconds."""
    project.doubles(count=3)
    with frozen_server(broker):
        before = time.monotonic()
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
        assert time.monotonic() - before < WIDE
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*did not answer within 5 s*"])
    assert queued(broker) == 0


def was_sent(project: Project) -> bool:
    rows: list[AttemptRow] = []
    for path in project.ledgers():
        with suppress(LedgerError), Ledger.open(path) as ledger:  # it may be in the making
            rows = list(ledger.attempts.all())
    return len(rows) == 3 and all(row.state == "sent" for row in rows)
