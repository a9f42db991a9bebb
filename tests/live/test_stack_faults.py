"""The embedded stack when something dies, or cannot start."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import EmbeddedStack
from tests.live.stack_support import (
    READY_SECONDS,
    alive,
    assert_gone,
    call,
    client,
    embedded,
    family,
    python,
    write_app,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(120)

# A process that owns a stack, says so, and waits for a word or a signal.
OWNER = """
import json, os, sys, time
from pathlib import Path
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.settings import Settings

stack = EmbeddedStack(Settings("stackapp:app", 1, str(Path.cwd())))
stack.start()
try:
    stack.wait_workers(60)
    if sys.argv[1:] == ["fork"] and os.fork() == 0:
        time.sleep(600)
    print(json.dumps([stack.supervisor_pid, str(stack.directory)]), flush=True)
    sys.stdin.readline()
finally:
    if os.getpid() == os.getpgid(0):
        stack.stop()
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """A ready stack with one worker."""
    with embedded(write_app(tmp_path)) as started:
        started.wait_workers(READY_SECONDS)
        yield started


def pool_child(worker: int) -> int:
    """The pid of a worker's one pool child."""
    children: list[psutil.Process] = eventually(
        psutil.Process(worker).children, within=READY_SECONDS, what="a pool child"
    )
    return int(children[0].pid)


def run_busy(stack: EmbeddedStack, folder: Path) -> list[int]:
    """Start a job of minutes; returns the pids of its worker, pool child, and a tool it runs."""
    mark = folder / "busy"
    with client(stack.wait_broker(1.0)) as app:
        app.send_task("stackapp.busy", [str(mark), 300])
    eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), within=READY_SECONDS)
    return [int(pid) for pid in mark.read_text().split()]


@pytest.mark.ring(1)
def test_a_killed_worker_is_restarted(stack: EmbeddedStack) -> None:
    """A worker that was killed comes back under its name, is noted, and jobs run on."""
    pid = stack.worker_pid or 0

    os.kill(pid, signal.SIGKILL)
    eventually(lambda: stack.exits, within=READY_SECONDS, what="the death is noted")

    died = stack.exits[0]
    assert (died.name, died.pid, died.returncode) == ("manifest1", pid, -signal.SIGKILL)
    eventually(lambda: stack.worker_pid not in (None, pid), within=READY_SECONDS)
    assert call(stack.wait_broker(1.0), "add", 1, 2) == 3
    assert stack.failure is None


def test_a_worker_may_be_killed_again_and_again(stack: EmbeddedStack) -> None:
    """A worker that has been ready once is restarted however often it dies."""
    for count in range(1, 7):
        pid = eventually(lambda: stack.worker_pid or 0, within=READY_SECONDS)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda n=count: len(stack.exits) == n, within=READY_SECONDS)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    assert call(stack.wait_broker(1.0), "add", 1, 2) == 3


def test_a_killed_worker_leaves_no_orphan(stack: EmbeddedStack, tmp_path: Path) -> None:
    """The pool child of a killed worker ends with it, and so does a tool that its job runs."""
    worker, child, tool = run_busy(stack, tmp_path)
    assert worker == stack.worker_pid

    os.kill(worker, signal.SIGKILL)

    eventually(
        lambda: not alive(child) and not alive(tool),
        within=READY_SECONDS,
        what="the pool child and its tool end",
    )


def test_a_killed_pool_child_is_replaced(stack: EmbeddedStack) -> None:
    """The worker itself replaces its child, and at the end neither is left."""
    worker = stack.worker_pid or 0
    child = pool_child(worker)

    os.kill(child, signal.SIGKILL)

    assert call(stack.wait_broker(1.0), "pids") != [worker, child]
    assert stack.worker_pid == worker
    assert stack.exits == []
    pids = [child, *family(stack.supervisor_pid or 0)]
    stack.stop()
    assert_gone(pids, stack.directory)


@pytest.mark.ring(1)
def test_stop_does_not_wait_for_a_job(stack: EmbeddedStack, tmp_path: Path) -> None:
    """A job of minutes does not hold up the end of a private stack."""
    pids = [*run_busy(stack, tmp_path), *family(stack.supervisor_pid or 0)]

    stack.stop()

    assert_gone(pids, stack.directory)


@pytest.mark.ring(1)
def test_a_killed_broker_comes_back_with_its_data(stack: EmbeddedStack) -> None:
    """Valkey is restarted on its port, from its append-only file."""
    address = stack.wait_broker(1.0)
    with redis.Redis.from_url(address.broker_url) as broker:
        broker.set("kept", "yes")
        pid = int(broker.info("server")["process_id"])

    os.kill(pid, signal.SIGKILL)

    def value() -> object:
        try:
            with redis.Redis.from_url(address.broker_url) as broker:
                return broker.get("kept")
        except redis.RedisError:
            return None

    eventually(lambda: not alive(pid), within=READY_SECONDS)
    assert eventually(value, within=READY_SECONDS, what="the broker is back") == b"yes"
    assert call(address, "add", 1, 2) == 3


@pytest.mark.ring(1)
@pytest.mark.parametrize("mode", ["plain", "fork"])
def test_everything_ends_with_a_killed_client(mode: str, tmp_path: Path) -> None:
    """kill -9 of the owner ends the stack, also while a fork of it holds the pipe open."""
    with python(OWNER, mode, cwd=write_app(tmp_path)) as owner:
        assert owner.stdout is not None
        supervisor, directory = json.loads(owner.stdout.readline())
        pids = family(supervisor)
        os.kill(owner.pid, signal.SIGKILL)
        assert_gone(pids, Path(directory))


@pytest.mark.ring(1)
def test_ctrl_c_is_for_the_client(tmp_path: Path) -> None:
    """A Ctrl-C in the terminal interrupts the owner, which stops the stack in its own time."""
    with python(OWNER, cwd=write_app(tmp_path)) as owner:
        assert owner.stdout is not None
        supervisor, directory = json.loads(owner.stdout.readline())
        pids = family(supervisor)
        assert os.getpgid(supervisor) != os.getpgid(owner.pid)
        assert os.getsid(supervisor) != os.getsid(owner.pid)
        os.killpg(owner.pid, signal.SIGINT)
        owner.wait(READY_SECONDS)
        assert_gone(pids, Path(directory))


def test_everything_ends_with_a_killed_keeper(stack: EmbeddedStack, tmp_path: Path) -> None:
    """kill -9 of the supervisor ends Valkey and the worker, and the client says what happened.

    Its job, and a tool that this runs, too.
    """
    supervisor = stack.supervisor_pid
    assert supervisor is not None
    pids = [*run_busy(stack, tmp_path), *family(supervisor)]

    os.kill(supervisor, signal.SIGKILL)

    assert_gone([pid for pid in pids if pid != supervisor], stack.directory)
    eventually(lambda: stack.failure, within=READY_SECONDS, what="the client has noticed")
    with pytest.raises(StackError, match=rf"supervisor \(pid {supervisor}\) has ended"):
        stack.wait_workers(1.0)


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="only Linux kills orphans by itself")  # noqa: PTH110
def test_everything_ends_with_supervisor_and_client(tmp_path: Path) -> None:
    """Without anybody who knows them the kernel still ends Valkey and the worker."""
    with python(OWNER, cwd=write_app(tmp_path)) as owner:
        assert owner.stdout is not None
        supervisor, directory = json.loads(owner.stdout.readline())
        pids = family(supervisor)
        for pid in (supervisor, owner.pid):
            os.kill(pid, signal.SIGSTOP)
        for pid in (supervisor, owner.pid):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not [pid for pid in pids if alive(pid)], within=READY_SECONDS)
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("text", "app", "said"),
    [
        (None, "nowhere:app", "nowhere"),
        ("import no_such_library\n", "stackapp:app", "No module named 'no_such_library'"),
        ("raise RuntimeError('no settings')\n", "stackapp:app", "no settings"),
        ("x = (\n", "stackapp:app", "SyntaxError"),
    ],
)
def test_a_broken_app_is_one_clear_error(
    text: str | None, app: str, said: str, tmp_path: Path
) -> None:
    """An app that cannot be imported is reported with the import's own words, and all ends."""
    folder = write_app(tmp_path, text) if text else tmp_path
    with embedded(folder, app=app, workers=2) as stack:
        with pytest.raises(StackError, match="cannot start") as caught:
            stack.wait_workers(READY_SECONDS)
        directory = stack.directory
        assert directory is not None
        eventually(lambda: not directory.exists(), within=READY_SECONDS, what="all has ended")

    assert said in str(caught.value)


def test_a_crash_loop_is_one_clear_error(tmp_path: Path) -> None:
    """A worker that dies at once, again and again, ends the attempt, with its last words."""
    text = "import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(7)\n"
    with embedded(write_app(tmp_path, text)) as stack:
        with pytest.raises(StackError, match=r"manifest1 cannot start .*code 7.*: last words"):
            stack.wait_workers(READY_SECONDS)

        assert [died.returncode for died in stack.exits] == [7, 7, 7]


@pytest.mark.ring(1)
def test_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    """A working directory that is not there is named."""
    with (
        embedded(tmp_path / "absent") as stack,
        pytest.raises(StackError, match="absent"),
    ):
        stack.wait_workers(READY_SECONDS)


def test_a_worker_that_never_answers_is_named(tmp_path: Path) -> None:
    """Where time is up, with what it said last.

    Not the folder of its log: it goes with the stack.
    """
    text = "import time\nprint('I wait for a server', flush=True)\ntime.sleep(600)\n"
    with embedded(write_app(tmp_path, text), workers=2) as stack:
        stack.wait_broker(READY_SECONDS)
        assert stack.directory is not None
        log = stack.directory / "worker-1.log"
        said = lambda: log.exists() and "I wait" in log.read_text()  # noqa: E731 - short
        eventually(said, within=READY_SECONDS, what="the worker has begun")
        with pytest.raises(StackError, match="worker manifest1 did not take jobs") as caught:
            stack.wait_workers(1.0)

    assert "I wait for a server" in str(caught.value)
    assert str(stack.directory) not in str(caught.value)
