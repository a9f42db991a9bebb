"""Keep the ids of a corpus on disk: it may have more than fit into memory."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Final

from typing_extensions import Self

from workflows.gap_fill.corpus.errors import CorpusError

MEMORY_KIB: Final = 2048


class SeenIds:
    """A set of ids with the place of each, in a temporary file without a name."""

    def __init__(self) -> None:
        # A generator may be finished by another thread than the one that began it.
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for line in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            f"PRAGMA cache_size=-{MEMORY_KIB}",
            "CREATE TABLE seen (id TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID",
            "BEGIN",
        ):
            self._file.execute(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, identity: str, place: str) -> None:
        """Note an id. Raises CorpusError where it came by before, with both places."""
        try:
            self._file.execute("INSERT INTO seen VALUES (?, ?)", (identity, place))
        except sqlite3.IntegrityError:
            query = "SELECT place FROM seen WHERE id = ?"
            (first,) = self._file.execute(query, (identity,)).fetchone()
            raise CorpusError(
                f"{place}: document id {identity!r:.80} was used at {first} already; give each "
                "document an id of its own"
            ) from None
        except sqlite3.OperationalError as error:
            raise CorpusError(
                f"{place}: the ids could not be kept in a temporary file ({error}); make room "
                "there, or name another folder in TMPDIR"
            ) from None
