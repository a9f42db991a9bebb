"""Offer the movie bible's database as one object to planner, task and verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from sqlalchemy import delete, func, select
from typing_extensions import Self

from tasks.movie_bible import loading, migrating, reading, writing
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.documents import Document
from tasks.movie_bible.errors import (
    BibleError,
    BibleTooNewError,
    BibleTooOldError,
    BibleUnavailableError,
    BibleUrlError,
)
from tasks.movie_bible.jobs import JobBook
from tasks.movie_bible.models import Annotation, Passage
from tasks.movie_bible.records import (
    LoadCounts,
    NewAnnotation,
    ScannedPassage,
    StoredAnnotation,
    StoredPassage,
    Writing,
    Written,
)
from tasks.movie_bible.settings import BibleSettings, bible_settings
from tasks.movie_bible.statistics import Statistics, statistics

__all__ = [
    "BibleError",
    "BibleSettings",
    "BibleTooNewError",
    "BibleTooOldError",
    "BibleUnavailableError",
    "BibleUrlError",
    "LoadCounts",
    "MovieBible",
    "NewAnnotation",
    "ScannedPassage",
    "Statistics",
    "StoredAnnotation",
    "StoredPassage",
    "Written",
    "bible_settings",
]


class MovieBible:
    """An open database, on SQLite or PostgreSQL; usable by all threads of one process.

    Every method raises BibleError, with a sentence, where the database fails. Ids sort by code
    point on both, as in Python. ``identity`` tells one database from another; ``jobs`` are
    the batch jobs that answers are bought by.
    """

    def __init__(self, store: Store, identity: str) -> None:
        self._store = store
        self.jobs = JobBook(store)
        self.identity = identity

    @classmethod
    def open(cls, settings: BibleSettings | None = None) -> Self:
        """Connect, and make the tables where the database is empty.

        Any number of processes may do so at once. Raises BibleTooOldError with the command that
        migrates, BibleTooNewError, BibleUrlError or BibleUnavailableError.
        """
        store = Store(settings or bible_settings())
        try:
            return cls(store, migrating.prepare(store))
        except BaseException:
            store.close()
            raise

    @staticmethod
    def migrate(settings: BibleSettings | None = None) -> str:
        """Bring the tables to the newest version, and return it; an empty database gets them."""
        store = Store(settings or bible_settings())
        try:
            return migrating.migrate(store)
        finally:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self._store.close()

    def leave_to_parent(self) -> None:
        """Drop the connections in a forked child without closing them."""
        self._store.engine.dispose(close=False)

    def load(
        self,
        documents: Iterable[Document],
        *,
        progress: Callable[[LoadCounts], None] | None = None,
    ) -> LoadCounts:
        """Bring documents in, 500 in a transaction; loading them again changes nothing.

        Facts of films are merged: what is not known overwrites nothing. Fields that people wrote
        become the passage's row of prompt version ``corpus``. ``progress`` is told the sum after
        each transaction. An error of ``documents`` itself passes; what was told stays.
        """
        counts = LoadCounts()
        for batch in reading.chunks(documents):
            counts += loading.load_batch(self._store, batch)
            if progress is not None:
                progress(counts)
        return counts

    def add_documents(self, documents: Sequence[Document]) -> None:
        """Load a few documents in one transaction; in none where nothing would change."""
        loading.load_batch(self._store, documents)

    def passages(self, ids: Sequence[str]) -> dict[str, StoredPassage]:
        """Return the passages with these ids, by id; ids that do not exist are left out."""
        return reading.stored_passages(self._store, ids)

    def annotations(self, ids: Sequence[str], prompt_version: str) -> dict[str, StoredAnnotation]:
        """Return the rows of one prompt version, by passage id; passages without are left out."""
        return reading.stored_annotations(self._store, ids, prompt_version)

    def write(self, rows: Sequence[NewAnnotation]) -> dict[str, Written]:
        """Insert or update annotations in one transaction; by passage id, what became of each.

        An update sets the fields in ``values`` and all that says where they come from, and adds
        one to the revision; the history gets a writing with the fields that have a value. Raises
        ValueError for a passage that comes twice, and for a value that is none of its field; then
        nothing is written.
        """
        return writing.write(self._store, rows)

    def writings(self, ids: Sequence[str], prompt_version: str) -> dict[str, list[Writing]]:
        """Return who wrote which fields of these rows, oldest first, also of deleted rows."""
        return reading.writings(self._store, ids, prompt_version)

    def scan(self, prompt_version: str) -> Iterator[ScannedPassage]:
        """Stream all passages with their rows, in the order of ids, 1000 in memory at a time."""
        return reading.scan(self._store, prompt_version)

    def scan_ids(self, ids: Sequence[str], prompt_version: str) -> dict[str, ScannedPassage]:
        """Return the passages with these ids and their rows, by id; missing ids are left out."""
        return reading.scan_ids(self._store, ids, prompt_version)

    def annotated_ids(self) -> Iterator[str]:
        """Stream the passage ids of all annotations, each once, sorted, in constant memory."""
        return reading.annotated_ids(self._store)

    def orphans(self) -> Iterator[str]:
        """Stream the passage ids of annotations whose passage does not exist, each once, sorted."""
        return reading.orphans(self._store)

    def count_passages(self) -> int:
        """Count the passages."""
        with self._store.reading() as connection:
            return connection.execute(select(func.count()).select_from(Passage)).scalar_one()

    def count_annotations(self, ids: Sequence[str] | None, prompt_version: str) -> int:
        """Count the rows of one prompt version, for these passages or for all (None)."""
        count = select(func.count()).where(Annotation.prompt_version == prompt_version)
        if ids is None:
            with self._store.reading() as connection:
                return connection.execute(count).scalar_one()
        total = 0
        for chunk in reading.chunks(sorted(set(ids))):
            with self._store.reading() as connection:
                some = count.where(Annotation.passage_id.in_(chunk))
                total += connection.execute(some).scalar_one()
        return total

    def count_duplicates(self, prompt_version: str) -> list[tuple[str, int]]:
        """Return passage ids with more than one row of this prompt version, and the number, sorted.

        The tables forbid it; this proves that the constraint is still in place.
        """
        number = func.count()
        query = (
            select(Annotation.passage_id, number)
            .where(Annotation.prompt_version == prompt_version)
            .group_by(Annotation.passage_id)
            .having(number > 1)
            .order_by(Annotation.passage_id)
        )
        with self._store.reading() as connection:
            return [(name, count) for name, count in connection.execute(query)]

    def remove_annotations(self, ids: Sequence[str]) -> int:
        """Delete all rows of these passages in one transaction; return how many there were."""
        removed = 0
        with self._store.writing() as connection:
            for chunk in reading.chunks(sorted(set(ids))):
                rows = delete(Annotation).where(Annotation.passage_id.in_(chunk))
                removed += connection.execute(rows).rowcount
        return removed

    def statistics(self, prompt_version: str | None = None) -> Statistics:
        """Count passages, films and rows, and the values filled; see Statistics."""
        return statistics(self._store, prompt_version)
