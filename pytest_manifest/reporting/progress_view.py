"""Show progress as one line below everything on a terminal, or as lines of a log.

pytest leaves its cursor behind the last character that it wrote, often within a line. The footer is
drawn on the line below, and the cursor returns to where it was. The footer is removed by clearing
everything behind the cursor, wherever that is, so a wrong guess of a column, a resized window or a
foreign write cannot make that clear anything else.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TextIO

import pytest

from pytest_manifest.console import begin_line
from pytest_manifest.reporting.progress_line import live_line, log_line
from pytest_manifest.reporting.progress_meter import ProgressStats

PERIOD: Final = 0.2
"""Seconds from one reading of the ledgers to the next, for a line that is rewritten."""
LOG_PERIOD: Final = 1.0
REDRAW: Final = 0.05
"""Seconds before a line that was wiped is drawn again."""
FIRST: Final = 10.0
LONGEST: Final = 60.0
"""Seconds to the first line of a log; the pause doubles from line to line, up to the longest."""


class View(Protocol):
    """Show progress in one way."""

    period: float

    def show(self, stats: ProgressStats, *, last: bool = False) -> None: ...

    def redraw(self, now: float) -> float:
        """Draw what was wiped again if it is time; return the moment at which to call this next."""

    def give_way(self) -> None:
        """Wipe what is shown, as another writer follows whose writes the view cannot see."""

    def close(self) -> None:
        """Remove what is shown, and stop."""


class LineView:
    """Show one line at the bottom of a terminal, rewritten."""

    period = PERIOD

    def __init__(self, reporter: pytest.TerminalReporter, footer: Footer) -> None:
        self._markup = reporter.config.get_terminal_writer().markup
        self._footer = footer
        self._stats: ProgressStats | None = None
        self._drawn = 0.0

    def show(self, stats: ProgressStats, *, last: bool = False) -> None:
        self._stats = None if last else stats
        self._draw(time.monotonic())

    def redraw(self, now: float) -> float:
        if self._footer.shown or self._stats is None:
            return math.inf
        if now >= self._drawn + REDRAW:
            self._draw(now)
            return math.inf
        return self._drawn + REDRAW

    def give_way(self) -> None:
        self._footer.wipe()

    def close(self) -> None:
        self._footer.close()

    def _draw(self, now: float) -> None:
        width = self._footer.width
        if width > 0 and self._stats is not None:
            line = live_line(self._stats, width, self._markup, self._footer.encoding)
            self._footer.draw(line)
        self._drawn = now


class LogView:
    """Write lines of a log after 10 s, after 20 s more, and so on, and at a long run's end."""

    period = LOG_PERIOD

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._pause = FIRST
        self._next = FIRST
        self._logged: ProgressStats | None = None

    def show(self, stats: ProgressStats, *, last: bool = False) -> None:
        if stats.elapsed < (FIRST if last else self._next):
            return
        if last and self._logged is not None and self._logged.done == stats.done:
            return
        self._pause = min(2 * self._pause, LONGEST)
        self._next = stats.elapsed + self._pause
        self._logged = stats
        begin_line(self._reporter)
        self._reporter.write_line(log_line(stats))
        self._reporter.flush()

    def redraw(self, now: float) -> float:  # noqa: ARG002 - the other view's
        return math.inf

    def give_way(self) -> None:
        """Do nothing: whole lines need not be wiped."""

    def close(self) -> None:
        """Do nothing: whole lines stay."""


# The line on a terminal

CLEAR: Final = "\x1b[J"
"""Clears everything behind the cursor, and below."""
MAKE_ROOM: Final = "\x1bD\x1b[A"
"""Moves down, which scrolls in the last line and keeps the column, and up again."""
SAVE: Final = "\x1b7"
BELOW: Final = "\x1b[B\r\x1b[0m\x1b[?7l"
"""Moves to the beginning of the line below, without colours and without wrapping."""
BACK: Final = "\x1b[0m\x1b[?7h\x1b8"
LEAST_LINES: Final = 2

_MOVES = re.compile(r"[\n\r\v\f\b]|\x1b(?!\[[0-9;]*m|\]9;4;|\\)")
"""Characters and sequences that may move the cursor other than by printing; colours and pytest's
own signals to a terminal's tab (OSC 9;4) do not."""


class Footer:
    """Draw the line on the first of ``files``, and wipe it before anything is written to one.

    pytest's own writes, a test's prints under ``-s`` and a warning of another thread all end in
    ``write`` of these files, so the footer wraps that from :meth:`__init__` to :meth:`close`.
    """

    def __init__(self, files: Sequence[TextIO]) -> None:
        self._lock = threading.RLock()
        self._file = files[0]
        self._watched: list[TextIO] = []
        self.shown = False
        try:
            for file in {id(file): file for file in files}.values():
                self._watch(file)
        except BaseException:
            self.close()
            raise

    @property
    def encoding(self) -> str:
        return self._file.encoding or "ascii"

    @property
    def width(self) -> int:
        """Return the columns for the text; 0 if the window has no line to spare."""
        size = shutil.get_terminal_size()
        # The real size, whatever COLUMNS says: the terminal wraps lines by it.
        with contextlib.suppress(OSError, ValueError):
            real = os.get_terminal_size(self._file.fileno())
            size = real if real.columns and real.lines else size  # some do not know their size
        return size.columns - 1 if size.lines >= LEAST_LINES else 0

    def draw(self, text: str) -> None:
        """Show ``text`` in place of the line that was shown."""
        with self._lock:
            self.shown = False  # the next write is the footer's own, and must not wipe it
            body = f"{CLEAR}{MAKE_ROOM}{SAVE}{BELOW}{text}{BACK}"
            self._file.write(body)
            self._file.flush()
            self.shown = True

    def wipe(self) -> None:
        with self._lock:
            if self.shown:
                self.shown = False
                self._file.write(CLEAR)
                self._file.flush()

    def close(self) -> None:
        """Wipe the line, and restore ``write`` of the files."""
        with self._lock:
            try:
                self.wipe()
            finally:
                for file in self._watched:
                    with contextlib.suppress(AttributeError):  # another program has removed it
                        del file.write
                self._watched.clear()

    def _watch(self, file: TextIO) -> None:
        # Raises AttributeError for a file that cannot be watched.
        file.write = self._watching(file.write)  # type: ignore[method-assign]
        self._watched.append(file)

    def _watching(self, write: Callable[[str], int]) -> Callable[[str], int]:
        def watched(text: str) -> int:
            if not self.shown:
                return write(text)
            with self._lock:
                # Most writes, such as pytest's dots, stay on their line, and need no wiping.
                if _MOVES.search(text):
                    self.wipe()
                return write(text)

        return watched
