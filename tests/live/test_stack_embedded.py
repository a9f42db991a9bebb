"""The embedded stack when all goes well."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis
from billiard.exceptions import WorkerLostError
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.settings import Settings
from pytest_manifest.stack.valkey import ping, unblock_clients
from pytest_manifest.urls import StackAddress
from tests.live.stack_support import (
    READY_SECONDS,
    assert_gone,
    call,
    client,
    command_lines,
    embedded,
    family,
    write_app,
)
from tests.support import eventually

pytestmark = [pytest.mark.timeout(120), pytest.mark.ring(1)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """One stack with two processes for the tests that only look at it."""
    with embedded(write_app(tmp_path_factory.mktemp("project")), workers=2) as started:
        started.wait_workers(READY_SECONDS)
        yield started


@pytest.fixture
def address(stack: EmbeddedStack) -> StackAddress:
    return stack.wait_broker(READY_SECONDS)


def test_it_runs_jobs(address: StackAddress) -> None:
    """A job that is sent when the workers are ready comes back."""
    assert call(address, "add", 2, 3) == 5


def test_one_worker_has_as_many_processes_as_are_asked_for(
    stack: EmbeddedStack, address: StackAddress
) -> None:
    """As a user starts it: one node, known by name and pid, whose pool Celery keeps full."""
    with client(address) as app:
        replies = app.control.inspect(timeout=READY_SECONDS, limit=1).stats()
    ((name, said),) = replies.items()

    assert (name.partition("@")[0], said["pid"]) == ("manifest1", stack.worker_pid)
    assert (said["pool"]["max-concurrency"], said["prefetch_count"]) == (2, 2)


def test_a_process_that_is_killed_takes_no_other_job_with_it(tmp_path: Path) -> None:
    """Its job has failed, as lost; one that another process of the same worker runs goes on."""
    with embedded(write_app(tmp_path, TOGETHER), workers=2) as stack:
        stack.wait_workers(READY_SECONDS)
        with client(stack.wait_broker(1.0)) as app:
            waits = app.send_task("stackapp.wait", [str(tmp_path)])
            eventually((tmp_path / "started").exists, within=READY_SECONDS, what="it runs")
            with pytest.raises(WorkerLostError):
                app.send_task("stackapp.die").get(timeout=READY_SECONDS)
            (tmp_path / "go").touch()
            assert waits.get(timeout=READY_SECONDS) == "waited"
            assert app.send_task("stackapp.wait", [str(tmp_path)]).get(timeout=READY_SECONDS)
        assert stack.exits == []


TOGETHER = """
import os, time
from pathlib import Path
from celery import Celery

app = Celery("stackapp")

@app.task
def wait(folder):
    Path(folder, "started").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return "waited"

@app.task
def die():
    os.kill(os.getpid(), 9)
"""


def test_the_address_is_owned(address: StackAddress) -> None:
    """The address names the app, and says that the stack ends with this process."""
    assert address.is_private
    assert address.app == "stackapp:app"
    assert address.backend_url == address.broker_url


def test_the_broker_is_private(stack: EmbeddedStack, address: StackAddress) -> None:
    """It listens on loopback only, keeps its data on disk, and lets nobody in without password."""
    with redis.Redis.from_url(address.broker_url, decode_responses=True) as broker:
        assert broker.config_get("bind") == {"bind": "127.0.0.1"}
        assert broker.config_get("append*") | {"appendonly": "yes", "appendfsync": "no"} == (
            broker.config_get("append*")
        )
        port = int(broker.connection_pool.connection_kwargs["port"])
    once = Retry(NoBackoff(), 0)
    with redis.Redis(port=port, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert ping(port, "wrong") == "silent"


def test_no_password_is_on_any_command_line(stack: EmbeddedStack, address: StackAddress) -> None:
    """What everybody can read of our processes does not have the password."""
    password = address.broker_url.partition("://:")[2].partition("@")[0]
    assert stack.supervisor_pid is not None
    shown = command_lines(family(stack.supervisor_pid))

    assert "valkey-server" in shown
    assert "celery -A stackapp:app worker" in shown
    assert password not in shown


def test_files_are_for_the_owner_only(stack: EmbeddedStack) -> None:
    """The directory, the configuration with the password, and the logs are closed to others."""
    directory = stack.directory
    assert directory is not None
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes["valkey.conf"] == 0o600
    assert modes["worker-1.log"] == 0o600
    assert "password" not in (directory / "worker-1.log").read_text()


def test_a_second_start_is_refused(stack: EmbeddedStack) -> None:
    """One object is one stack."""
    with pytest.raises(StackError, match="started already"):
        stack.start()


def test_the_broker_is_there_before_the_workers(tmp_path: Path) -> None:
    """One can talk to the broker while the workers are still booting, and stop at that point."""
    with embedded(write_app(tmp_path)) as stack:
        address = stack.wait_broker(READY_SECONDS)
        with redis.Redis.from_url(address.broker_url) as broker:
            assert broker.ping()
        pids = family(stack.supervisor_pid or 0)
        directory = stack.directory
    assert_gone(pids, directory)


def test_stop_ends_everything(tmp_path: Path) -> None:
    """After stop no process and no file is left; again, it does no harm."""
    with embedded(write_app(tmp_path), workers=2) as stack:
        stack.wait_workers(READY_SECONDS)
        pids = family(stack.supervisor_pid or 0)
        directory = stack.directory
        assert directory is not None
        stack.stop()
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        assert left == []
        assert not directory.exists()
        stack.stop()
        with pytest.raises(StackError, match="was stopped"):
            stack.wait_workers(1.0)


LAST_WORDS = """
import atexit, os, time
from celery import Celery, signals

app = Celery("stackapp")

def write(word):
    with open("words", "a") as file:
        file.write(f"{word}\\n")

@app.task
def job():
    write("job")

atexit.register(write, "atexit")
signals.worker_shutdown.connect(lambda **_: write("shutdown"), weak=False)
def end_slowly(**_):
    time.sleep(2.5)  # as one that uploads what it has measured
    write("process")

signals.worker_process_shutdown.connect(end_slowly, weak=False)
"""


@pytest.mark.ring(1)
def test_a_worker_has_its_last_words(tmp_path: Path) -> None:
    """An app's own handlers of the end are run, in the pool's process and in the main one."""
    with embedded(write_app(tmp_path, LAST_WORDS)) as stack:
        stack.wait_workers(READY_SECONDS)
        call(stack.wait_broker(1.0), "job")
        stack.stop()

    words = (tmp_path / "words").read_text().split()
    assert sorted(words) == ["atexit", "job", "process", "shutdown"]
    assert (words[0], words[-1]) == ("job", "atexit")


def test_who_waits_in_the_broker_can_be_released(address: StackAddress) -> None:
    """A client in a blocking command goes on as if its time were over; an idle worker is one."""
    name = "waits"
    with (
        redis.Redis.from_url(address.broker_url) as broker,
        redis.Redis.from_url(address.broker_url, client_name=name) as client,
        ThreadPoolExecutor() as threads,
    ):
        waiting = threads.submit(client.brpop, ["nothing"], 300)
        eventually(
            lambda: [c for c in broker.client_list() if c["name"] == name and "b" in c["flags"]]
        )
        server = broker.connection_pool.connection_kwargs
        unblock_clients(server["port"], server["password"])
        assert waiting.result(READY_SECONDS) is None


def test_stop_can_be_begun_early(tmp_path: Path) -> None:
    """A stop that was begun goes on while something else is done."""
    with embedded(write_app(tmp_path)) as stack:
        stack.wait_broker(READY_SECONDS)
        pids = family(stack.supervisor_pid or 0)
        stack.begin_stop()
        assert_gone(pids[1:], stack.directory)


def test_an_unstarted_stack_can_be_stopped(tmp_path: Path) -> None:
    """Stopping what was never started does nothing; waiting for it is an error."""
    stack = EmbeddedStack(Settings("stackapp:app", 1, str(tmp_path)))
    stack.stop()

    with pytest.raises(StackError, match="not started"):
        stack.wait_broker(1.0)
    assert (stack.exits, stack.worker_pid, stack.failure) == ([], None, None)


@pytest.mark.ring(2)
def test_workers_log_json_when_asked(tmp_path: Path) -> None:
    """With the JSON format each line of a worker's log is an object, from its first record on."""
    with embedded(write_app(tmp_path), log_format="json") as stack:
        stack.wait_workers(READY_SECONDS)
        assert call(stack.wait_broker(1.0), "add", 1, 1) == 2
        assert stack.directory is not None
        lines = (stack.directory / "worker-1.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]

    assert any("ready" in record["message"] for record in records)
    # Celery warns of the superuser before any logging is set up.
    if os.getuid() != 0:
        assert len(records) == len(lines)
