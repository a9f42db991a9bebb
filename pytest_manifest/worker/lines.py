"""The last lines that a task logged, bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from threading import Lock

MAX_LINES = 200
MAX_BYTES = 32 * 1024
MAX_LINE_CHARS = 4 * 1024
CUT = " [...]"


class Lines:
    """Keeps the last ``MAX_LINES`` lines and at most ``MAX_BYTES`` of UTF-8 of them."""

    __slots__ = ("_bytes", "_lines", "_lock", "dropped")

    def __init__(self, dropped: int = 0) -> None:
        self._lines: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._lock = Lock()
        self.dropped = dropped

    def add(self, line: str) -> None:
        """Add one line, without its end; a very long one is cut."""
        if len(line) > MAX_LINE_CHARS:
            line = line[:MAX_LINE_CHARS] + CUT
        size = len(line.encode("utf-8", "replace"))
        with self._lock:
            self._lines.append((line, size))
            self._bytes += size
            while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
                self._bytes -= self._lines.popleft()[1]
                self.dropped += 1

    def as_list(self) -> list[str]:
        """The lines kept, oldest first."""
        with self._lock:
            return [line for line, _ in self._lines]
