"""Run one process of the stack, in a group of its own. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_manifest.processes import kill_group

TAIL_BYTES = 3000
PR_SET_PDEATHSIG = 1


class Child:
    """A command that may be started again and again; its output is appended to one log file.

    ``gently``: it is told to end, not killed, when the supervisor dies. It inherits ``holds``,
    descriptors of locks.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        gently: bool = False,
        holds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.log = log
        self.gently = gently
        self.holds = holds
        self.process: subprocess.Popen[bytes] | None = None
        self.returncode: int | None = None
        self.deaths: list[float] = []
        self.started_at = 0.0
        self.restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def start(self) -> int:
        """Start it, and return its pid, which is its group's number too."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.restart_at = self.returncode = None
        self.started_at = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                process_group=0,
                pass_fds=self.holds,
                preexec_fn=_die_with_parent(signal.SIGTERM if self.gently else signal.SIGKILL),
            )
        finally:
            os.close(descriptor)
        return self.process.pid

    def reap(self) -> int | None:
        """Give its return code if it has ended since its start, and kill the rest of its group.

        Negative codes are signals, as with ``subprocess``.
        """
        if self.process is None:
            return None
        code = self.process.poll()
        if code is None:
            return None
        # A pool child that outlives its worker would go on with a job unheard.
        kill_group(self.process.pid)
        self.process, self.returncode = None, code
        self.deaths.append(time.monotonic())
        return code

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself, not its group."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and all of its group."""
        if self.process is not None:
            kill_group(self.process.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        self.signal_group(signal.SIGKILL)

    def tail(self, lines: int = 12) -> list[str]:
        """Read the last lines of its log that are not empty; at most 3,000 bytes."""
        return tail(self.log, lines)


def tail(path: Path, lines: int) -> list[str]:
    """Read the last lines of a file that are not empty; at most 3,000 bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Have Linux signal the child when the supervisor dies, in case the watchdog died too."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
