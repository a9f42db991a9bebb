"""The embedded stack's data folder: what of it outlives a crash, and what does not."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections import Counter
from pathlib import Path

import pytest
import redis

from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import EmbeddedStack
from tests.live.stack_support import (
    READY_SECONDS,
    alive,
    assert_gone,
    broker_pid,
    call,
    client,
    embedded,
    family,
    python,
    write_app,
)
from tests.support import eventually

pytestmark = [pytest.mark.timeout(120), pytest.mark.ring(1)]

JOBS = 200
APP = """
import os, time
from celery import Celery

app = Celery("stackapp")

@app.task
def add(x, y):
    return x + y

@app.task
def note(number):
    with open("ran", "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.02)
    return number
"""

# A process that owns a stack with a data folder, sends jobs to it, and waits.
OWNER = """
import json, sys
from pathlib import Path
from celery import Celery
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.settings import Settings

data = str(Path("data").absolute())
stack = EmbeddedStack(Settings("stackapp:app", 2, str(Path.cwd()), data=data))
stack.start()
stack.wait_workers(60)
url = stack.wait_broker(1).broker_url
app = Celery(broker=url, backend=url)
app.backend.client.xadd("kept:receipts", {"r": "one"})
ids = [app.send_task("stackapp.note", [n]).id for n in range(int(sys.argv[1]))]
print(json.dumps([stack.supervisor_pid, str(stack.directory), ids]), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's folder, with an app in it."""
    return write_app(tmp_path / "project", APP)


@pytest.fixture
def data(folder: Path) -> Path:
    """Where the data go; not made yet."""
    return folder / "data"


def put(stack: EmbeddedStack, key: str) -> None:
    """Write one key; the broker has written it down when it answers."""
    with redis.Redis.from_url(stack.wait_broker(READY_SECONDS).broker_url) as broker:
        broker.set(key, "yes")


def has(stack: EmbeddedStack, key: str) -> bool:
    """Whether the broker has this key."""
    with redis.Redis.from_url(stack.wait_broker(READY_SECONDS).broker_url) as broker:
        return bool(broker.get(key) == b"yes")


def keep(folder: Path, data: Path, *keys: str) -> None:
    """Leave a data folder with these keys, as a crash would leave it."""
    with embedded(folder, data=data) as stack:
        for key in keys:
            put(stack, key)
        stack.stop(keep_data=True)


def ran(folder: Path) -> Counter[int]:
    """How often each job has run."""
    path = folder / "ran"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


@pytest.mark.ring(2)
def test_a_killed_client_leaves_its_data(folder: Path, data: Path) -> None:
    """After kill -9 in the middle of a batch a new stack runs the rest, once, and has all results.

    The jobs that are running when the client is gone may end, and what they came to is kept.
    """
    with python(OWNER, str(JOBS), cwd=folder) as owner:
        assert owner.stdout is not None
        keeper, directory, ids = json.loads(owner.stdout.readline())
        pids = family(keeper)
        eventually(lambda: len(ran(folder)) >= JOBS // 10, within=READY_SECONDS)
        os.kill(owner.pid, signal.SIGKILL)
        assert_gone(pids, Path(directory))
    before = len(ran(folder))
    assert before < JOBS

    with embedded(folder, workers=2, data=data) as stack:
        with client(stack.wait_broker(READY_SECONDS)) as app:
            # All are kept: one that is collected while another is waited for can block both, as
            # older Celery unsubscribes from the one within redis-py's lock of the other.
            results = [app.AsyncResult(task_id) for task_id in ids]
            assert [one.get(timeout=READY_SECONDS) for one in results] == list(range(JOBS))
            ((_, record),) = app.backend.client.xrange("kept:receipts")
        assert record == {b"r": b"one"}
        assert ran(folder) == Counter(range(JOBS))


def test_the_folder_is_private(folder: Path, data: Path) -> None:
    """It is made for its owner alone, with the broker's files and the workers' spool in it."""
    with embedded(folder, data=data) as stack:
        stack.wait_workers(READY_SECONDS)
        assert stack.directory is not None
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert (data / "appendonlydir").is_dir()
        assert (data / "spool").is_dir()
        assert not (stack.directory / "spool").exists()
        assert not (stack.directory / "appendonlydir").exists()


def test_an_orderly_stop_removes_the_data(folder: Path, data: Path) -> None:
    """After stop nothing is left of the folder, whether it was there before or not."""
    keep(folder, data, "first")
    with embedded(folder, data=data) as stack:
        assert has(stack, "first")
        stack.stop()

    assert not data.exists()


def test_a_stop_can_keep_the_data(folder: Path, data: Path) -> None:
    """Who wants to go on later says so; an early word counts when the stop is waited for."""
    with embedded(folder, data=data) as stack:
        put(stack, "kept")
        stack.begin_stop(keep_data=True)
        stack.stop()
    assert data.exists()

    with embedded(folder, data=data) as stack:
        assert has(stack, "kept")


@pytest.mark.ring(1)
def test_a_stack_knows_no_worker_of_the_one_before(folder: Path, data: Path) -> None:
    """Names of killed workers, under any prefix and namespace: what they held would wait for them.

    Other bindings stay: of queues whose jobs are yet to be run.
    """
    names = [f"{prefix}_kombu.binding.{{}}" for prefix in ("", "app:")]
    boxes = [name.format(box) for name in names for box in ("celery.pidbox", "own.pidbox")]
    queue = names[1].format("celery")
    with embedded(folder, data=data) as stack:
        url = stack.wait_broker(READY_SECONDS).broker_url
        with redis.Redis.from_url(url) as broker:
            for key in (*boxes, queue):
                broker.sadd(key, "\x06\x16\x06\x16gone@host.celery.pidbox")
        stack.stop(keep_data=True)

    with embedded(folder, data=data) as stack:
        url = stack.wait_broker(READY_SECONDS).broker_url
        with redis.Redis.from_url(url) as broker:
            assert not [key for key in boxes if b"gone@" in b"".join(broker.smembers(key))]
            assert broker.scard(queue) == 1


@pytest.mark.ring(2)
def test_a_killed_keeper_leaves_the_data(folder: Path, data: Path) -> None:
    """kill -9 of the supervisor ends all, keeps the folder, and the next stack waits for that."""
    with embedded(folder, data=data) as stack:
        stack.wait_workers(READY_SECONDS)
        put(stack, "kept")
        pids = family(stack.supervisor_pid or 0)
        os.kill(pids[0], signal.SIGKILL)
        with embedded(folder, data=data) as again:
            assert has(again, "kept")
            assert not any(alive(pid) for pid in pids)
            assert call(again.wait_broker(1.0), "add", 1, 2) == 3
        assert_gone(pids, stack.directory)


@pytest.mark.ring(2)
def test_a_paused_broker_holds_nothing_up(folder: Path, data: Path) -> None:
    """A broker paused while the supervisor is killed ends, too, and frees the folder."""
    with embedded(folder, data=data) as stack:
        stack.wait_workers(READY_SECONDS)
        put(stack, "kept")
        pids = family(stack.supervisor_pid or 0)
        os.kill(broker_pid(stack.wait_broker(1.0)), signal.SIGSTOP)
        os.kill(pids[0], signal.SIGKILL)
        assert_gone(pids, stack.directory)

    with embedded(folder, data=data) as stack:
        assert has(stack, "kept")


def test_a_folder_in_use_is_refused(folder: Path, data: Path) -> None:
    """A second stack on the folder of a live one is an error with both names, and harms nothing."""
    with embedded(folder, data=data) as stack:
        put(stack, "mine")
        with (
            embedded(folder, data=data) as second,
            pytest.raises(
                StackError,
                match=rf"{data} are in use by .*supervisor {stack.supervisor_pid}.*wait until",
            ),
        ):
            second.wait_broker(READY_SECONDS)
        assert has(stack, "mine")
        assert data.exists()


def test_a_truncated_file_still_loads(folder: Path, data: Path) -> None:
    """Where the last write was cut short, all before it is there."""
    keep(folder, data, "first", "last")
    (path,) = (data / "appendonlydir").glob("*.incr.aof")
    os.truncate(path, path.stat().st_size - 3)

    with embedded(folder, data=data) as stack:
        assert has(stack, "first")
        assert not has(stack, "last")


def test_a_damaged_file_is_one_clear_error(folder: Path, data: Path) -> None:
    """Data that cannot be read are named and kept, with what to do to start without them."""
    keep(folder, data, "first", "last")
    (path,) = (data / "appendonlydir").glob("*.incr.aof")
    text = path.read_bytes()
    path.write_bytes(b"no such thing\r\n" + text)

    with embedded(folder, data=data) as stack:
        with pytest.raises(StackError, match=rf"the data in {data} \(move that folder away"):
            stack.wait_broker(READY_SECONDS)
        stack.stop()
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_of_ours_is_refused(kind: str, folder: Path, data: Path) -> None:
    """A file, or a link to somewhere else, is not used."""
    if kind == "file":
        data.write_text("")
    else:
        (folder / "elsewhere").mkdir()
        data.symlink_to(folder / "elsewhere")

    with (
        embedded(folder, data=data) as stack,
        pytest.raises(StackError, match=rf"the broker's data, {data}, cannot be used \("),
    ):
        stack.wait_broker(READY_SECONDS)


# No file may grow beyond the size given: what a full disk does, for this process and its children.
FULL = """
import os, resource, signal, sys
from pathlib import Path
from pytest_manifest.errors import StackError
from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.settings import Settings

# Byte code that is cut short would break every process after this one.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
data = str(Path(sys.argv[2]).absolute()) if sys.argv[2:] else ""
stack = EmbeddedStack(Settings("stackapp:app", 1, str(Path.cwd()), data=data))
try:
    stack.start()
    stack.wait_workers(60)
except StackError as error:
    print(error, flush=True)
finally:
    stack.stop()
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["0"], "no temporary directory for the private stack can be made"),
        (["100"], "the private stack cannot write to"),
        (["0", "data"], "the folder for the broker's data"),
    ],
)
def test_a_full_disk_is_one_clear_error(arguments: list[str], said: str, folder: Path) -> None:
    """Where there is no room to start, the place is named, and that room is needed."""
    with python(FULL, *arguments, cwd=folder) as process:
        shown, _ = process.communicate(timeout=READY_SECONDS)

    assert said in shown
    assert "space" in shown or "room" in shown
    assert len(shown.splitlines()) == 1
