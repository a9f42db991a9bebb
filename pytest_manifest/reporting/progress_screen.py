"""One line below everything that stands on a terminal, which is gone before anything else comes.

pytest leaves its cursor behind the last character that it wrote, often in the middle of a line. The
footer stands on the line below, and the cursor goes back to where it was: so the footer is taken
away by clearing everything behind the cursor, wherever that is, and a wrong guess of a column, a
resized window or a foreign write cannot make that remove anything else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TextIO

CLEAR: Final = "\x1b[J"
"""Everything behind the cursor, and below."""
MAKE_ROOM: Final = "\x1bD\x1b[A"
"""Down, which scrolls in the last line and leaves the column alone, and up again."""
SAVE: Final = "\x1b7"
BELOW: Final = "\x1b[B\r\x1b[0m\x1b[?7l"
"""To the line below, without colour; what is too long does not wrap."""
BACK: Final = "\x1b[0m\x1b[?7h\x1b8"
LEAST_LINES: Final = 2

_MOVES = re.compile(r"[\n\r\v\f\b]|\x1b(?!\[[0-9;]*m|\]9;4;|\\)")
"""What may leave the line that the cursor is on, or move on it; neither colours nor pytest's own
signals to a terminal's tab (OSC 9;4) do."""


class RawWriter(Protocol):
    """Writes text as it is to the terminal: pytest's reporter does."""

    def write_raw(self, content: str, *, flush: bool = False) -> None: ...


class Footer:
    """The line. While it is there, whoever writes to one of ``files`` has it wiped first.

    pytest's own writes, a test's prints under ``-s`` and a warning from another thread all end in
    ``write`` of the same few files, so these are watched, from :meth:`__init__` to :meth:`close`.
    """

    def __init__(self, terminal: RawWriter, files: Sequence[TextIO]) -> None:
        self._terminal = terminal
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
        """Columns for the text; 0 where the window has no line to spare."""
        size = shutil.get_terminal_size()
        # The real size, whatever COLUMNS says: it decides where a line is broken.
        with contextlib.suppress(OSError, ValueError):
            real = os.get_terminal_size(self._file.fileno())
            size = real if real.columns and real.lines else size  # some do not know theirs
        return size.columns - 1 if size.lines >= LEAST_LINES else 0

    def draw(self, text: str) -> None:
        """Show ``text``, in place of what was shown."""
        with self._lock:
            self.shown = False  # what is written now is our own
            body = f"{CLEAR}{MAKE_ROOM}{SAVE}{BELOW}{text}{BACK}"
            self._terminal.write_raw(body, flush=True)
            self.shown = True

    def wipe(self) -> None:
        with self._lock:
            if self.shown:
                self.shown = False
                self._terminal.write_raw(CLEAR, flush=True)

    def close(self) -> None:
        """Wipe, and leave the files alone."""
        with self._lock:
            try:
                self.wipe()
            finally:
                for file in self._watched:
                    with contextlib.suppress(AttributeError):  # somebody else has taken it away
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
                # A dot on pytest's own line leaves ours alone: most writes need no wiping.
                if _MOVES.search(text):
                    self.wipe()
                return write(text)

        return watched
