"""Tell which process a pid identifies.

Pids are assigned anew in each PID namespace and after each boot, and containers that share the
network share the host's name as well.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWN_NAMESPACE = "/proc/self/ns/pid"


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


def means_the_same_here(host: str | None, boot: str | None, namespace: str | None) -> bool:
    """Return whether a pid recorded with these names identifies the same process on this machine.

    A system without boot id and PID namespace, like macOS, is identified by its host's name. False
    where only one side has them, because that cannot be decided.
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
