"""Workers and broker of the embedded stack while jobs run: what dies comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
import redis

from pytest_manifest.errors import StackError
from pytest_manifest.schema import Entry
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.urls import StackAddress
from tests.live.broker_support import attempts, publishing
from tests.live.stack_support import (
    READY_SECONDS,
    alive,
    broker_pid,
    call,
    client,
    embedded,
    write_app,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(180)

STREAM = "manifest:supervision:receipts"
APP = """
import os, sys, time
from pathlib import Path
from celery import Celery

app = Celery("stackapp")

@app.task
def add(x, y):
    return x + y

def wait(folder):
    Path(folder, "started").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    Path(folder, "ended").touch()
    return "waited"

app.task(name="stackapp.early")(wait)
app.task(name="stackapp.late", acks_late=True, reject_on_worker_lost=True)(wait)

@app.task
def last_words():
    print("from redis://:s3cret@h/0", file=sys.__stderr__, flush=True)
    print("farewell", file=sys.__stderr__, flush=True)
    os.kill(os.getppid(), 9)

@app.task
def settings():
    return {
        "always": app.backend.always_retry,
        "policy": app.backend.retry_policy["max_retries"],
        "connection": app.conf.broker_connection_max_retries,
        "startup": app.conf.broker_connection_retry_on_startup,
    }
"""


@contextmanager
def ready(folder: Path, text: str = APP) -> Iterator[EmbeddedStack]:
    """A stack with one worker that has answered."""
    with embedded(write_app(folder, text)) as stack:
        stack.wait_workers(READY_SECONDS)
        yield stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """A ready stack."""
    with ready(tmp_path) as started:
        yield started


def send(address: StackAddress, task: str, folder: Path) -> str:
    """Send a job as a run does; returns its task id when it runs."""
    plain = StackAddress(address.broker_url, address.backend_url, None, is_private=True)
    sent = attempts([Entry(id="e", task=f"stackapp.{task}", args=[str(folder)])])
    with publishing(plain, stream=STREAM) as publisher:
        assert publisher.publish(sent, datetime.now(timezone.utc)).error is None
    eventually((folder / "started").exists, within=READY_SECONDS, what="the job runs")
    return sent[0].task_id


def finished(address: StackAddress) -> list[dict[str, object]]:
    """The receipts in the stream; none while the broker is away."""
    try:
        with redis.Redis.from_url(address.backend_url) as store:
            records = [json.loads(fields[b"r"]) for _, fields in store.xrange(STREAM)]
    except redis.RedisError:
        return []
    return [record["receipt"] for record in records if record["kind"] == "finished"]


def the_receipt(address: StackAddress) -> dict[str, object]:
    """The one receipt, once it is there."""
    eventually(lambda: finished(address), within=READY_SECONDS, what="the receipt")
    (receipt,) = finished(address)
    return receipt


def test_a_result_outlives_the_brokers_death(stack: EmbeddedStack, tmp_path: Path) -> None:
    """A job that ends while the broker is away hands in its receipt when it is back, once."""
    address = stack.wait_broker(1.0)
    task_id = send(address, "early", tmp_path)
    worker, keeper, broker = stack.worker_pid, stack.supervisor_pid or 0, broker_pid(address)
    # Without the supervisor nobody brings the broker back before the job has ended.
    os.kill(keeper, signal.SIGSTOP)
    os.kill(broker, signal.SIGKILL)
    eventually(lambda: not alive(broker), within=READY_SECONDS, what="the broker is gone")
    (tmp_path / "go").touch()
    eventually((tmp_path / "ended").exists, within=READY_SECONDS, what="the job has ended")
    os.kill(keeper, signal.SIGCONT)

    receipt = the_receipt(address)

    assert (receipt["task_id"], receipt["state"]) == (task_id, "succeeded")
    assert call(address, "add", 1, 2) == 3
    assert (stack.worker_pid, stack.exits) == (worker, [])
    assert broker_pid(address) != broker


@pytest.mark.ring(1)
def test_a_brokers_death_does_not_end_a_job(stack: EmbeddedStack, tmp_path: Path) -> None:
    """A job that still runs when the broker is back hands in its receipt as if nothing had been."""
    address = stack.wait_broker(1.0)
    task_id = send(address, "early", tmp_path)
    broker = broker_pid(address)
    os.kill(broker, signal.SIGKILL)
    eventually(lambda: _back(address, broker), within=READY_SECONDS, what="the broker is back")
    (tmp_path / "go").touch()

    receipt = the_receipt(address)

    assert (receipt["task_id"], receipt["state"]) == (task_id, "succeeded")
    assert call(address, "add", 1, 2) == 3


def _back(address: StackAddress, gone: int) -> bool:
    try:
        return broker_pid(address) != gone
    except redis.RedisError:
        return False


@pytest.mark.parametrize("away", [False, True])
def test_a_late_acked_job_is_not_lost_with_the_broker(
    away: bool, stack: EmbeddedStack, tmp_path: Path
) -> None:
    """Celery's worker may end then; it comes back, and the job is done, or still in the broker."""
    address = stack.wait_broker(1.0)
    send(address, "late", tmp_path)
    keeper, broker = stack.supervisor_pid or 0, broker_pid(address)
    if away:
        os.kill(keeper, signal.SIGSTOP)
    os.kill(broker, signal.SIGKILL)
    if not away:
        eventually(lambda: _back(address, broker), within=READY_SECONDS, what="the broker is back")
    (tmp_path / "go").touch()
    eventually((tmp_path / "ended").exists, within=READY_SECONDS, what="the job has ended")
    os.kill(keeper, signal.SIGCONT)

    assert call(address, "add", 1, 2) == 3
    with redis.Redis.from_url(address.broker_url) as store:
        held = int(store.hlen("unacked")) + int(store.llen("celery"))
    assert held or finished(address)
    assert stack.failure is None


def test_a_paused_broker_is_waited_for(stack: EmbeddedStack, tmp_path: Path) -> None:
    """A job that ends while the broker does not answer hands in its receipt when it goes on."""
    address = stack.wait_broker(1.0)
    task_id = send(address, "early", tmp_path)
    worker, broker = stack.worker_pid, broker_pid(address)
    os.kill(broker, signal.SIGSTOP)
    (tmp_path / "go").touch()
    eventually((tmp_path / "ended").exists, within=READY_SECONDS, what="the job has ended")
    os.kill(broker, signal.SIGCONT)

    receipt = the_receipt(address)

    assert (receipt["task_id"], receipt["state"]) == (task_id, "succeeded")
    assert call(address, "add", 1, 2) == 3
    assert (stack.worker_pid, stack.exits) == (worker, [])


def test_a_broker_that_cannot_come_back_is_one_clear_error(stack: EmbeddedStack) -> None:
    """Valkey that dies at each start is given up, with its own last words."""
    address = stack.wait_broker(1.0)
    assert stack.directory is not None
    with (stack.directory / "valkey.conf").open("a") as file:
        file.write("no-such-word yes\n")
    os.kill(broker_pid(address), signal.SIGKILL)

    failure = str(eventually(lambda: stack.failure, within=READY_SECONDS, what="the end"))

    assert "Valkey server ends again and again" in failure
    assert "no-such-word" in failure
    with pytest.raises(StackError, match="again and again"):
        stack.wait_workers(1.0)


def test_last_words_are_kept(stack: EmbeddedStack) -> None:
    """The end of a dead worker's log comes along, without passwords."""
    with client(stack.wait_broker(1.0)) as app:
        app.send_task("stackapp.last_words")
    (died,) = eventually(lambda: stack.exits, within=READY_SECONDS, what="the death is noted")

    assert died.returncode == -signal.SIGKILL
    assert {"from redis://:***@h/0", "farewell"} <= set(died.tail)


def test_own_workers_insist(stack: EmbeddedStack) -> None:
    """Workers of the embedded stack try again for ever where the app does not say otherwise."""
    assert call(stack.wait_broker(1.0), "settings") == {
        "always": True,
        "policy": 20,
        "connection": None,
        "startup": True,
    }


def test_what_the_app_sets_stays(tmp_path: Path) -> None:
    """An app's own words on the same settings are not overruled."""
    text = APP + (
        "app.conf.result_backend_always_retry = False\n"
        "app.conf.broker_connection_max_retries = 7\n"
        "app.conf.broker_connection_retry_on_startup = False\n"
        'app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 3}}\n'
    )
    with ready(tmp_path, text) as stack:
        found = call(stack.wait_broker(1.0), "settings")

    assert found == {"always": False, "policy": 3, "connection": 7, "startup": False}
