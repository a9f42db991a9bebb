"""Open the movie bible of this process, when the first task needs it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.movie_bible.bible import MovieBible


class _PerProcess:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bible: MovieBible | None = None

    def get(self) -> MovieBible:
        from tasks.movie_bible.bible import MovieBible

        with self._lock:
            if self._bible is None:
                self._bible = MovieBible.open()
            return self._bible

    def close(self) -> None:
        """Close it; the next ``get`` opens the one that the environment names then."""
        with self._lock:
            opened, self._bible = self._bible, None
        if opened is not None:
            opened.close()

    def forget(self) -> None:
        """Drop the parent's connections in a forked child, without closing them."""
        inherited, self._bible = self._bible, None
        self._lock = threading.Lock()
        if inherited is not None:
            inherited.leave_to_parent()


_per_process = _PerProcess()
os.register_at_fork(after_in_child=_per_process.forget)


def movie_bible() -> MovieBible:
    """Return the environment's movie bible, opened once a process. Raises BibleError."""
    return _per_process.get()


def close_movie_bible() -> None:
    """Close that of this process, if it is open."""
    _per_process.close()
