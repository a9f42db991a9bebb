"""Locks between pytest processes: the kernel frees them when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.errors import DispatchError


class RunLock:
    """The right to write a run's ledger: one process at a time has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, run: str) -> None:
        """Take it, or raise DispatchError where another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DispatchError(
                f"run {run} is being followed by another pytest at this moment; "
                "wait until that has ended"
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; harmless when it is not held.

        The file stays: removed, it could be locked by one who has it open and by one who makes it
        anew.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether some process has the lock with this file."""
    lock = RunLock(path)
    try:
        lock.acquire("")
    except DispatchError:
        return True
    lock.release()
    return False


@contextlib.contextmanager
def one_dispatch_at_a_time(folder: Path, sha256: str) -> Iterator[None]:
    """Hold off other processes that would dispatch the same manifest from the same folder.

    Held from the look for earlier runs until the new one has its ledger, so that of two that begin
    together the second sees the first.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(
        folder / f".{sha256[:16]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
