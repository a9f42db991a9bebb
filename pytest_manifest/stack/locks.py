"""Locks that the kernel frees when their holder is gone. Standard library only."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 0.01


def take_lock(
    path: Path, seconds: float, *, hopeless: Callable[[], bool] = lambda: False
) -> int | None:
    """The descriptor of a lock on this file, held until it is closed or all its holders are gone.

    None when others held it for all of ``seconds``, or until ``hopeless`` said not to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file before letting go of it.
            if _is_file(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline or hopeless():
                os.close(descriptor)
                return None
            time.sleep(POLL_SECONDS)
        os.close(descriptor)


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
