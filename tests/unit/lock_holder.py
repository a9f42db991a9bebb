"""Processes that hold a lock: ``python -m tests.unit.lock_holder WHAT PATH``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.run.locks import RunLock, one_dispatch_at_a_time
from tests.unit.ledger_support import INFO

ROUNDS = 30


def hold(path: Path) -> None:
    """Take a run's lock, and hold it until a line comes in."""
    lock = RunLock(path)
    lock.acquire("a")
    print("held", flush=True)
    sys.stdin.readline()
    lock.release()
    print("released", flush=True)
    sys.stdin.readline()


def hold_with_heir(path: Path) -> None:
    """Take a run's lock for good, and start a process that outlives us: until stdin is closed."""
    RunLock(path).acquire("a")
    heir = subprocess.Popen(["cat"], close_fds=False)
    print(heir.pid, flush=True)
    heir.wait()


def hold_folder(folder: Path) -> None:
    """Hold off other dispatches until a line comes in."""
    with one_dispatch_at_a_time(folder, "0" * 64):
        print("held", flush=True)
        sys.stdin.readline()


def make_ledger(ledger: Path) -> None:
    """Begin to make a ledger, as a dispatch does, and never finish it."""
    files = RunFiles(ledger)
    RunLock(files.lock).acquire(ledger.stem)
    with Ledger.create(ledger, INFO, deferred=True) as made:
        files.manifest(INFO.sha256).write_text("{}\n", "utf-8")
        made.attempts.plan([("t-a", "a", 1, 0)])
        print("begun", flush=True)
        sys.stdin.readline()


def contend(path: Path) -> None:
    """Take a run's lock again and again; while it is held, nobody else may be inside."""
    lock = RunLock(path)
    for _ in range(ROUNDS):
        while True:
            try:
                lock.acquire("a")
            except DispatchError:
                time.sleep(0)  # let the holder go on
            else:
                break
        be_alone(path.parent)
        lock.release()


def contend_folder(folder: Path) -> None:
    """Hold off other dispatches again and again; meanwhile nobody else may be inside."""
    for _ in range(ROUNDS):
        with one_dispatch_at_a_time(folder, "0" * 64):
            be_alone(folder)


def be_alone(folder: Path) -> None:
    """Raises FileExistsError where another process is in here too."""
    inside = folder / "inside"
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    os.sched_yield()
    inside.unlink()


def main() -> None:
    what, path = sys.argv[1:]
    known = {
        "hold": hold,
        "hold-with-heir": hold_with_heir,
        "hold-folder": hold_folder,
        "make-ledger": make_ledger,
        "contend": contend,
        "contend-folder": contend_folder,
    }
    known[what](Path(path))


if __name__ == "__main__":
    main()
