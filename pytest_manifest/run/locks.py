"""Lock files between pytest processes; the kernel frees a lock when its holder ends, however it
ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.errors import DispatchError


class RunLock:
    """Hold the right to write a run's ledger: one process at a time has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, run: str) -> None:
        """Take the lock, or raise DispatchError where another process has it.

        A process that only tests whether it is held is waited for.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not _try(descriptor, fcntl.LOCK_EX):
            if not _try(descriptor, fcntl.LOCK_SH):
                os.close(descriptor)
                raise DispatchError(
                    f"run {run} is being followed by another pytest at this moment; "
                    "wait until that has ended"
                )
            # Not with it in hand: two that wait for one another's look would do so for ever.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - no secret
        self._descriptor = descriptor

    def inscribe(self, text: str) -> None:
        """Write this text into the lock file, while it is held."""
        assert self._descriptor is not None
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Release the lock; harmless when it is not held.

        The file stays: were it removed, one process could lock the open file and another a new one.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process has the lock with this file. Any number may test at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock of this kind, unless a process has one that forbids it; return whether it was
    taken."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
