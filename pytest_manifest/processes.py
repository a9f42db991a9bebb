"""Processes and their locks: what a pid means and whether it lives; locks that end with a process.

Only the standard library: the supervisor of a stack imports it, and so does each worker.

Names of environment variables by which a stack's supervisor speaks to its workers.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

SUPERVISED: Final = "MANIFEST_SUPERVISED"
"""Set by the supervisor of a private stack for its workers, and by nobody else: what changes how a
worker takes or acknowledges messages hangs on it, and on nothing that a user may set."""

LOG_FORMAT: Final = "MANIFEST_LOG_FORMAT"
LOG_LEVEL: Final = "MANIFEST_LOG_LEVEL"
LOG_JOBS: Final = "MANIFEST_LOG_JOBS"
SPOOL: Final = "MANIFEST_SPOOL"
STACKS: Final = "MANIFEST_STACKS"
"""Set by a user for workers whose processes show their Python stacks on demand."""
PATH: Final = "MANIFEST_SYS_PATH"
"""The folders from which modules are imported where the app was found, as a JSON array."""


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
    return _status(pid)[:1] == ["Z"]


def _status(pid: int | str) -> list[str]:
    """Return what the kernel shows of a process, from its state on; nothing where it shows none.

    macOS has no /proc; Linux can hide other users' processes.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return []


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that no later one can be taken for, and the process group that it is in.

    ``scope``: the boot and the namespaces in which ``pid``, ``group`` and ``started`` (clock ticks
    since the boot) mean something.
    """

    scope: str
    pid: int
    group: int
    started: int

    def __str__(self) -> str:
        return f"{self.scope}_{self.pid}_{self.group}_{self.started}"

    @property
    def is_here(self) -> bool:
        """Return whether the process can be looked at from this one."""
        return self.scope == _scope()

    @property
    def has_ended(self) -> bool:
        """Return whether it has ended, also where another process has its pid by now.

        Raises ValueError for a process that is not here.
        """
        if not self.is_here:
            raise ValueError(f"process {self.pid} is of another machine or container")
        return has_ended(self.pid) or _started(self.pid) not in (None, self.started)

    @property
    def has_ended_with_its_group(self) -> bool:
        """Return whether nothing is left of it, nor of what it has forked."""
        return self.has_ended and not _has_members(self.group)


def own_identity() -> ProcessIdentity | None:
    """Return the identity of this process; None where the system does not tell enough."""
    scope, started = _scope(), _started(os.getpid())
    if not scope or started is None:
        return None
    return ProcessIdentity(scope, os.getpid(), os.getpgid(0), started)


def parse_identity(text: str) -> ProcessIdentity | None:
    """Read what ``str`` makes of an identity; None for anything else."""
    scope, *numbers = text.split("_")
    if len(numbers) != 3 or not all(one.isascii() and one.isdecimal() for one in numbers):
        return None
    pid, group, started = map(int, numbers)
    # A group of 0 or 1 would be this process's own, or all processes.
    return ProcessIdentity(scope, pid, group, started) if pid > 0 and group > 1 else None


def _scope() -> str:
    """Name the boot, and the namespaces of pids and of clocks; "" where one is unknown."""
    boot, pids = boot_id(), pid_namespace()
    clocks = ""
    with suppress(OSError):  # a kernel without them
        clocks = os.readlink("/proc/self/ns/time")  # noqa: PTH115 - as in pid_namespace
    if boot is None or pids is None:
        return ""
    return "-".join([boot, *(re.sub(r"\D", "", one) for one in (pids, clocks))])


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None where it is not shown."""
    status = _status(pid)
    return int(status[19]) if status else None


def parent_of(pid: int) -> int | None:
    """Return the pid of a process's parent; None where it is not shown."""
    status = _status(pid)
    return int(status[1]) if status else None


def _has_members(group: int) -> bool:
    """Return whether a process of a group still runs, or may: zombies do not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    every = (_status(path.name) for path in Path("/proc").glob("[0-9]*"))
    seen = [status[0] for status in every if status and int(status[2]) == group]
    return not seen or any(state not in "ZX" for state in seen)


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal, as by Ctrl-Z, as far as that is shown."""
    return _status(pid)[:1] == ["T"]


_STACKS_NAME: Final = "manifest-stacks-{}"


def show_stacks() -> None:
    """Have this process write the stacks of its threads on SIGUSR2, to memory that it shows.

    Without a word of Python, so that also one shows them which hangs in C. Nothing where the
    system has no such memory (Linux has).
    """
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create(_STACKS_NAME.format(os.getpid()))
        faulthandler.register(signal.SIGUSR2, memory, all_threads=True)


def stacks_of(pid: int, seconds: float = 2.0) -> str | None:
    """Return the stacks of a process that has called :func:`show_stacks`, as faulthandler words
    them; None of any other, which gets no signal, and where they do not come within ``seconds``."""
    memory = f"/memfd:{_STACKS_NAME.format(pid)} "
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):  # it has ended, or is another user's
        for name in os.listdir(folder):  # noqa: PTH208 - links that lead to no path
            path = f"{folder}/{name}"
            if os.readlink(path).startswith(memory) and _handles(pid, signal.SIGUSR2):  # noqa: PTH115
                return _written_on_signal(path, pid, seconds)
    return None


def _handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler of this signal, which would end it else."""
    shown = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return shown is not None and bool(int(shown[1], 16) >> (number - 1) & 1)


def _written_on_signal(path: str, pid: int, seconds: float) -> str | None:
    with open(path, "rb") as memory:  # noqa: PTH123 - a link that leads to no path
        before, deadline = memory.seek(0, os.SEEK_END), time.monotonic() + seconds
        os.kill(pid, signal.SIGUSR2)
        seen = b""
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            memory.seek(before)
            if (now := memory.read()) and now == seen:
                return now.decode("utf-8", "replace")
            seen = now
    return None


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


def holder_of(path: Path) -> int | None:
    """Return the pid of a process that holds the lock of this file, None where none is shown."""
    with suppress(OSError, ValueError):
        at = path.stat()
        place = f"{os.major(at.st_dev):02x}:{os.minor(at.st_dev):02x}:{at.st_ino}"
        for row in map(str.split, Path("/proc/locks").read_text("ascii").splitlines()):
            if row[1:2] == ["FLOCK"] and row[5:6] == [place] and int(row[4]) > 0:
                return int(row[4])
    return None


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
