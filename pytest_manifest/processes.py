"""Processes and their locks: what a pid means and whether it lives; locks that end with a process.

Only the standard library: the supervisor of a stack imports it, and so does each worker.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_OWN_NAMESPACE: Final = "/proc/self/ns/pid"
POLL_SECONDS: Final = 0.01


@lru_cache(maxsize=1)
def boot_id() -> str | None:
    """Return the kernel's id of this boot of the machine, or None where it gives none."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def pid_namespace() -> str | None:
    """Return the PID namespace of this process, or None where the system reports none."""
    try:
        return os.readlink(_OWN_NAMESPACE)  # noqa: PTH115 - for every job, and cheaper
    except OSError:
        return None


def pid_scope() -> str:
    """Name the boot and the PID namespace in which pids are unique; "" where one is unknown."""
    boot, namespace = boot_id(), pid_namespace()
    return f"{boot} {namespace}" if boot and namespace else ""


def means_the_same_here(host: str | None, boot: str | None, namespace: str | None) -> bool:
    """Return whether a pid recorded with these names identifies the same process on this machine.

    Pids are assigned anew in each PID namespace and after each boot, and containers that share the
    network share the host's name as well. A system without boot id and PID namespace, like macOS,
    is identified by its host's name. False where only one side has them, because that cannot be
    decided.
    """
    here = (boot_id(), pid_namespace())
    if here == (None, None):
        return (boot, namespace) == here and host == socket.gethostname()
    return None not in here and (boot, namespace) == here


def has_ended(pid: int) -> bool:
    """Return whether the process with this pid has ended, also if it is a zombie not yet reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:  # macOS has no /proc; Linux can hide other users' processes
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def kill_group(group: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal a process group; return False when it is empty."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # macOS says this of a group that holds only zombies.
        return False
    return True


# Locks of files. The kernel frees a lock when its last holder ends, however that ends. A file that
# was locked stays: were it removed, one process could lock the open file and another a new one.


def take_lock(
    path: Path,
    seconds: float = 0.0,
    *,
    hopeless: Callable[[], bool] = lambda: False,
    follows_links: bool = False,
) -> int | None:
    """Lock this file (mode 0600); the descriptor holds it until closed, or its holders have ended.

    Processes that only test whether it is held (:func:`is_held`) are waited for. None when
    another process held it for all of ``seconds``, or until ``hopeless`` said not to wait.
    A file that is a symbolic link is an OSError unless ``follows_links``: in a folder that others
    may write to, it would have any file opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if follows_links else os.O_NOFOLLOW)
    deadline = time.monotonic() + seconds
    while True:
        descriptor = os.open(path, flags, 0o600)
        if _try(descriptor, fcntl.LOCK_EX):
            # Its last holder may have removed the file before letting go of it.
            if _is_file(path, descriptor):
                return descriptor
            os.close(descriptor)
            continue
        is_tested = _try(descriptor, fcntl.LOCK_SH)
        # Not with it in hand: two that wait for one another's test would do so for ever.
        os.close(descriptor)
        if is_tested:
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - no secret
        elif time.monotonic() >= deadline or hopeless():
            return None
        else:
            time.sleep(POLL_SECONDS)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file (mode 0600); wait while another process does, without a limit."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of this file. Any number may test at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock of this kind unless a process has one that forbids it; return whether it did."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
