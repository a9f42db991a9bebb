"""Run the tests, and leave nothing behind: what they have started ends with them, Ctrl-C or not.

    python -m tests.launcher [arguments of pytest]

pytest runs in this process's group, so that Ctrl-C reaches it as if it were alone. It gets
``GRACE_SECONDS`` to end in order; then all that it has started is killed, the processes of xdist
among it, so that it can print what it knows; after ``LAST_SECONDS`` it is killed as well. A second
Ctrl-C skips the first of these waits. SIGTERM and SIGHUP are taken as Ctrl-C.

What loses its parent is handed to this process (Linux: it is a "subreaper"), in whatever session
or process group it is, so that nothing is out of sight. What is still there when the tests have
ended by themselves is named and killed. Elsewhere than on Linux an orphan is nobody's, and stays.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.processes import TEMPORARY_VARIABLE

GRACE_SECONDS: Final = 1.5
"""How long the tests may take to end what they have started, from Ctrl-C on."""
LAST_SECONDS: Final = 3.5
"""When pytest itself is killed, from Ctrl-C on."""
LEFT_SECONDS: Final = 3.0
"""How long what has been left behind may take to end by itself, where nobody is in a hurry."""
UNKILLABLE_SECONDS: Final = 10.0
"""How long a process may take to die."""
POLL_SECONDS: Final = 0.05
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER: Final = 36


class Launcher:
    """One run of a command, and when it was interrupted."""

    def __init__(self, command: list[str], temporary: Path) -> None:
        self._command = command
        self._environment = {**os.environ, TEMPORARY_VARIABLE: str(temporary)}
        self._pid = 0
        self._status: int | None = None
        self._interrupted: float | None = None
        """When, on the monotonic clock, the first interrupt was."""
        self._killed: dict[int, str] = {}
        """What had to be killed, by its pid: its command line."""

    def run(self) -> int:
        """Run the command; return its exit status, 128 and the number of the signal it died of."""
        _adopt_orphans()
        for number in INTERRUPTS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # so of ``nohup``, or of ``&``
                signal.signal(number, self._interrupt)
        self._pid = os.posix_spawn(self._command[0], self._command, self._environment)
        while self._status is None:
            time.sleep(POLL_SECONDS)
            self._reap()
            if self._interrupted is not None:
                seconds = time.monotonic() - self._interrupted
                if seconds >= GRACE_SECONDS:
                    self._kill(keep=None if seconds >= LAST_SECONDS else self._pid)
        self._end_what_is_left()
        self._report()
        return self._status

    def _interrupt(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            if number != signal.SIGINT and self._pid:  # of a terminal, all of the group has SIGINT
                os.kill(self._pid, signal.SIGINT)
        else:
            self._interrupted = min(self._interrupted, now - GRACE_SECONDS)

    def _reap(self) -> None:
        """Take the status of the command, and of orphans, which are nobody else's."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    code = os.waitstatus_to_exitcode(ended[1])
                    self._status = code if code >= 0 else 128 - code

    def _kill(self, keep: int | None = None) -> None:
        """Kill all that descends from here, but ``keep``."""
        for process in _descendants():
            if process.pid != keep:
                with suppress(psutil.Error):
                    self._killed.setdefault(process.pid, _described(process))
                    process.kill()

    def _end_what_is_left(self) -> None:
        """Kill what the command has left behind, once it had its time to end by itself."""
        due = time.monotonic() + LEFT_SECONDS
        if self._interrupted is not None:
            due = self._interrupted + GRACE_SECONDS
        while _descendants() and time.monotonic() < due + UNKILLABLE_SECONDS:
            if self._interrupted is not None or time.monotonic() >= due:
                self._kill()
            time.sleep(POLL_SECONDS)
            self._reap()

    def _report(self) -> None:
        """Say what was left, and after an interrupt how long it took."""
        for process in _descendants():
            _say(f"cannot be killed: {process.pid} {_described(process)}")
        if self._interrupted is None:
            for pid, what in self._killed.items():
                _say(f"left behind by the tests, and killed: {pid} {what}")
        else:
            seconds = time.monotonic() - self._interrupted
            _say(f"interrupted: all had ended {seconds:.1f} s later, {len(self._killed)} killed")


def _say(line: str) -> None:
    with suppress(OSError):  # nobody has the terminal any more
        print(line, file=sys.stderr, flush=True)


def _descendants() -> list[psutil.Process]:
    """Return all processes that descend from this one and have not ended."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _described(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:200] or process.name()
    return "(ended)"


def _adopt_orphans() -> None:
    """Become the parent of each descendant that loses its own, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments; return its exit status."""
    # No dash: some tests take the folders out of what servers say, by their names.
    temporary = Path(tempfile.mkdtemp(prefix="manifest_tests_"))
    temporary.chmod(0o711)  # PostgreSQL runs as another user, in a folder of its own therein
    try:
        return Launcher([sys.executable, "-m", "pytest", *arguments], temporary).run()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
