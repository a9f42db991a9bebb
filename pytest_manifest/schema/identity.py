"""Which process a pid means: pids are given anew in each PID namespace, and after each start of the
machine, and containers that share the network share the host's name as well."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OWN_NAMESPACE = "/proc/self/ns/pid"


@lru_cache(maxsize=1)
def boot_id() -> str | None:
    """What the kernel calls this start of the machine; None where it does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None


def pid_namespace() -> str | None:
    """The PID namespace of this process; None where the system has none, or does not say."""
    try:
        return os.readlink(_OWN_NAMESPACE)  # noqa: PTH115 - for every job, and cheaper
    except OSError:
        return None


def means_the_same_here(host: str | None, boot: str | None, namespace: str | None) -> bool:
    """Whether a pid that was told with these means the same process here.

    A system that says neither, like macOS, has no namespaces: there the host's name decides. Where
    one side says more than the other, nobody can tell.
    """
    here = (boot_id(), pid_namespace())
    if here == (None, None):
        return (boot, namespace) == here and host == socket.gethostname()
    return None not in here and (boot, namespace) == here


def has_ended(pid: int) -> bool:
    """Whether the process with this pid here is gone, or only a zombie that nobody has buried."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:  # macOS has none, and some processes are shown to nobody else
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]
