"""Locks between processes: one holds, the others wait or are told, and no crash keeps one."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psutil
import pytest

from pytest_manifest.errors import DispatchError
from pytest_manifest.processes import is_held
from pytest_manifest.run.locks import RunLock, one_dispatch_at_a_time, remove_unmade_runs
from tests.processes import talking
from tests.support import eventually
from tests.unit.ledger_support import INFO, ROOT


def process(what: str, path: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process of the module ``lock_holder``."""
    return talking("-m", "tests.unit.lock_holder", what, str(path), cwd=ROOT)


def told(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline()


def go_on(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def test_two_processes_exclude_one_another(path: Path) -> None:
    """The second is told so in a sentence, until the first has given the lock back."""
    lock = RunLock(path)
    with process("hold", path) as holder:
        assert told(holder) == "held\n"
        assert is_held(path)
        with pytest.raises(DispatchError, match=r"run a-b is being followed by another.*wait"):
            lock.acquire("a-b")
        go_on(holder)
        assert told(holder) == "released\n"
        assert not is_held(path)
        lock.acquire("a-b")
        assert is_held(path)
        lock.release()
        lock.release()


def test_a_killed_holder_leaves_the_lock_free_at_once(path: Path) -> None:
    """Also where a process that it started lives on."""
    lock = RunLock(path)
    with process("hold-with-heir", path) as holder:
        heir = psutil.Process(int(told(holder)))
        with pytest.raises(DispatchError):
            lock.acquire("a")
        holder.kill()
        holder.wait()
        lock.acquire("a")
        lock.release()
        assert heir.is_running()
    eventually(lambda: not heir.is_running() or heir.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.ring(2)
@pytest.mark.parametrize(("what", "name"), [("contend", "run.lock"), ("contend-folder", "")])
def test_of_many_processes_one_is_inside(tmp_path: Path, what: str, name: str) -> None:
    """However often they ask, no two are inside at the same moment."""
    with ExitStack() as stack:
        started = [stack.enter_context(process(what, tmp_path / name)) for _ in range(3)]
        assert [one.wait(60) for one in started] == [0, 0, 0]


def test_looks_at_a_lock_hinder_nobody(path: Path) -> None:
    """Any number of them at once see that nobody holds it, and who takes it waits for them."""
    assert not is_held(path)
    assert not path.exists()
    path.touch()
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # another look, which has not ended
        assert not is_held(path)
        lock, taken = RunLock(path), threading.Event()

        def take() -> None:
            lock.acquire("a-b")
            taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.is_set()
        fcntl.flock(looking, fcntl.LOCK_UN)
        thread.join()
    assert taken.is_set()
    assert is_held(path)
    lock.release()


def test_dispatches_of_a_manifest_wait_for_one_another(tmp_path: Path) -> None:
    """Until the first is through, or was killed; other manifests do not wait."""
    entered = threading.Event()

    def dispatch() -> None:
        with one_dispatch_at_a_time(tmp_path, "0" * 64):
            entered.set()

    for end_it in (go_on, subprocess.Popen.kill):
        entered.clear()
        with process("hold-folder", tmp_path) as holder:
            assert told(holder) == "held\n"
            waiting = threading.Thread(target=dispatch)
            waiting.start()
            with one_dispatch_at_a_time(tmp_path, "1" * 64):
                assert not entered.is_set()
            end_it(holder)
            assert entered.wait(30)
            waiting.join(30)


def test_the_lock_of_a_run_may_be_a_link(tmp_path: Path) -> None:
    """A run may be linked into another folder; both names are of one lock."""
    path, link = tmp_path / "a.lock", tmp_path / "linked.lock"
    path.touch()
    link.symlink_to(path)
    lock = RunLock(link)
    lock.acquire("a")
    assert is_held(path)
    lock.release()
    assert not is_held(link)


def test_a_lock_that_cannot_be_made_is_a_sentence(path: Path) -> None:
    """Whatever the reason; here something else has its name."""
    path.mkdir()
    with pytest.raises(DispatchError, match=r"run\.lock: cannot be written.*nothing was sent"):
        RunLock(path).acquire("a-b")
    digest = "0" * 64
    (path.parent / f".{digest[:16]}.lock").mkdir()
    with (
        pytest.raises(DispatchError, match=r"\.lock: cannot be written.*free some space"),
        one_dispatch_at_a_time(path.parent, digest),
    ):
        pytest.fail("it was taken")


def test_what_a_killed_pytest_had_begun_to_make_is_removed(tmp_path: Path) -> None:
    """Not while it lives; and nothing of runs that have a ledger, nor of what is nobody's run."""
    ledger = tmp_path / f"{INFO.run}.sqlite"
    others = ["20261124T150000-00000000.sqlite", "20261124T150000-00000000.sqlite.new"]
    kept = {tmp_path / name for name in (*others, "notes.sqlite.new", "notes.txt")}
    for path in kept:
        path.touch()
    with process("make-ledger", ledger) as maker:
        assert told(maker) == "begun\n"
        before = set(tmp_path.iterdir())
        assert len(before - kept) >= 3  # its lock, its manifest, and what is to be its ledger
        remove_unmade_runs(tmp_path)
        assert set(tmp_path.iterdir()) - kept == before - kept
        maker.kill()
        maker.wait()
        remove_unmade_runs(tmp_path)
    assert set(tmp_path.iterdir()) == kept
