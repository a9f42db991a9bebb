"""A terminal of a given size in which pytest runs: what stands on its screen, at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyte


class Terminal:
    """A pseudo-terminal and the screen that a person would see; see :func:`terminal`."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.master, self.slave = pty.openpty()
        self._tell_size(columns, rows)
        self.process: subprocess.Popen[bytes] | None = None
        self.written = b""
        self._at_end = False

    @property
    def lines(self) -> list[str]:
        """The screen's lines without what is blank at their ends, down to the last one written."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            del lines[-1]
        return lines

    @property
    def transcript(self) -> list[str]:
        """All lines, with those that have been scrolled away: what a person could read again."""
        gone = self.screen.history.top
        old = ["".join(line[x].data for x in range(self.screen.columns)).rstrip() for line in gone]
        return old + self.lines

    def below_cursor(self) -> list[str]:
        """What stands in the lines below the cursor's."""
        return self.lines[self.screen.cursor.y + 1 :]

    def until(self, check: Callable[[], object], *, what: str, within: float = 60.0) -> None:
        """Read what is written until ``check`` holds of the screen."""
        deadline = time.monotonic() + within
        while not check():
            left = deadline - time.monotonic()
            if left < 0 or not self._read(left):
                text = "\n".join(self.lines)
                raise AssertionError(f"{what}: not seen; the screen has\n{text}")

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def resize(self, columns: int, rows: int) -> None:
        """Another size of the window; what it holds is cut off, as xterm does."""
        self.screen.resize(rows, columns)
        self._tell_size(columns, rows)

    def finish(self) -> int:
        """Read to the end, and return the exit code."""
        assert self.process is not None
        while self._read(60.0):
            pass
        return self.process.wait(timeout=60)

    def _read(self, seconds: float) -> bool:
        """Take in what is there; False at the end, or when time is over."""
        if self._at_end or not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:  # so Linux tells that nobody has the other end any more
            if error.errno != errno.EIO:
                raise
            data = b""
        self._at_end = not data
        self.written += data
        self._stream.feed(data)
        return bool(data)

    def _tell_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def terminal(
    folder: Path,
    *arguments: str,
    size: tuple[int, int] = (80, 100),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """pytest with these arguments in a terminal of (columns, rows), ended with the context.

    ``environment`` goes on top of this process's own.
    """
    shown = Terminal(*size)
    command: Sequence[str] = [sys.executable, "-m", "pytest", *arguments]
    variables = {"TERM": "xterm-256color", "PYTHONWARNINGS": "default", **(environment or {})}
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    shown.process = subprocess.Popen(
        command,
        cwd=folder,
        env={**kept, **variables},
        stdin=shown.slave,
        stdout=shown.slave,
        stderr=shown.slave,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(shown.slave)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(shown.process.pid, signal.SIGKILL)
            shown.process.wait(timeout=30)
        os.close(shown.master)


def _own_terminal() -> None:
    """In the child: make its standard input the terminal that Ctrl-C is typed at."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
