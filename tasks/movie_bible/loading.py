"""Load documents into the database: work out first what changes, and write only that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final

from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase

from tasks.movie_bible.connecting import LOAD_LOCK, Store
from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import CORPUS, FIELDS
from tasks.movie_bible.models import Annotation, Film, Passage
from tasks.movie_bible.reading import chunks
from tasks.movie_bible.records import LoadCounts
from tasks.movie_bible.writing import insert_into

Columns = dict[str, object]

FILM: Final = ("title", "year", "director", "cast")
PASSAGE: Final = ("film_id", "kind", "text", "text_digest")
GIVEN: Final = (*FIELDS, "text_digest")


def load_batch(store: Store, documents: Sequence[Document]) -> LoadCounts:
    """Bring these documents in, in one transaction; where nothing changes, none is begun.

    Loads take turns, so that what was compared is what is written over.
    """
    with store.reading() as connection:
        changes = _compare(connection, documents)
    if changes.needed:
        with store.writing(LOAD_LOCK) as connection:
            changes = _compare(connection, documents)
            changes.apply(connection)
    return changes.counts


class _Rows:
    """Rows of one table by id, as they are stored, and as they shall be."""

    def __init__(self, stored: dict[str, Columns]) -> None:
        self.stored = stored
        self.wanted: dict[str, Columns] = {}

    def merge(self, identity: str, values: Mapping[str, object]) -> bool:
        """Set these columns; whether that changes what came before."""
        row = self.wanted.get(identity) or self.stored.get(identity)
        if row is not None and all(row.get(name) == value for name, value in values.items()):
            return False
        self.wanted[identity] = {**(row or {}), **values}
        return True

    def changes(self, identity: str) -> bool:
        """Return whether the row, after all merges, differs from the stored one."""
        wanted = self.wanted.get(identity)
        return wanted is not None and wanted != self.stored.get(identity)

    def changed(self) -> list[tuple[str, Columns]]:
        """Return the rows to be written, with their ids."""
        return [(name, row) for name, row in self.wanted.items() if self.changes(name)]


class _Changes:
    """The changes of a batch of documents to the three tables."""

    def __init__(self, films: _Rows, passages: _Rows, given: _Rows) -> None:
        self.films, self.passages, self.given = films, passages, given
        self._merged: list[tuple[bool, list[tuple[_Rows, str]]]] = []

    @property
    def needed(self) -> bool:
        """Return whether there is something to write."""
        return any(rows.changed() for rows in (self.films, self.passages, self.given))

    @property
    def counts(self) -> LoadCounts:
        """Count documents by outcome; one whose change a later one reverts counts as unchanged."""
        counts = LoadCounts()
        for new, changed in self._merged:
            updated = not new and any(rows.changes(name) for rows, name in changed)
            counts += LoadCounts(int(new), int(updated), int(not new and not updated))
        return counts

    def merge(self, document: Document) -> None:
        """Take in one document, after those before it; what it says counts more than theirs."""
        new = document.id not in self.passages.stored and document.id not in self.passages.wanted
        passage: Columns = {
            "kind": document.kind,
            "text": document.text,
            "text_digest": document.digest,
        }
        changed: list[tuple[_Rows, str]] = []
        film = document.film
        if film is not None:
            passage["film_id"] = film.id
            if self.films.merge(film.id, _known(film)):
                changed.append((self.films, film.id))
        if self.passages.merge(document.id, passage):
            changed.append((self.passages, document.id))
        given = {**document.given, "text_digest": document.digest}
        if document.given and self.given.merge(document.id, given):
            changed.append((self.given, document.id))
        self._merged.append((new, changed))

    def apply(self, connection: Connection) -> None:
        """Write what changed."""
        films = [_complete(FILM, row, id=name) for name, row in self.films.changed()]
        _upsert(connection, Film, ("id",), FILM, films)
        passages = [_complete(PASSAGE, row, id=name) for name, row in self.passages.changed()]
        _upsert(connection, Passage, ("id",), PASSAGE, passages)
        now = datetime.now(timezone.utc)
        made: Columns = {"prompt_version": CORPUS, "revision": 1, "written_at": now}
        made |= dict.fromkeys(("tokens_in", "tokens_out", "cost_nanos"), 0)
        given = [_complete(GIVEN, row, passage_id=id_) | made for id_, row in self.given.changed()]
        key = ("passage_id", "prompt_version")
        _upsert(connection, Annotation, key, (*GIVEN, "written_at"), given)


def _compare(connection: Connection, documents: Sequence[Document]) -> _Changes:
    ids = {document.id for document in documents}
    film_ids = {document.film.id for document in documents if document.film is not None}
    changes = _Changes(
        films=_stored(connection, Film, "id", FILM, film_ids),
        passages=_stored(connection, Passage, "id", PASSAGE, ids),
        given=_stored(connection, Annotation, "passage_id", GIVEN, ids),
    )
    for document in documents:
        changes.merge(document)
    return changes


def _stored(
    connection: Connection,
    table: type[DeclarativeBase],
    key: str,
    names: Sequence[str],
    ids: Iterable[str],
) -> _Rows:
    column = getattr(table, key)
    query = select(column, *(getattr(table, name) for name in names))
    if table is Annotation:
        query = query.where(Annotation.prompt_version == CORPUS)
    found: dict[str, Columns] = {}
    for chunk in chunks(sorted(ids)):
        for identity, *values in connection.execute(query.where(column.in_(chunk))):
            found[identity] = dict(zip(names, values, strict=True))
    return _Rows(found)


def _known(film: FilmFacts) -> Columns:
    """Return the facts that are known, by column."""
    facts: Columns = {"title": film.title, "year": film.year, "director": film.director}
    facts["cast"] = list(film.cast) or None
    return {name: value for name, value in facts.items() if value is not None}


def _complete(names: Sequence[str], row: Columns, **key: str) -> Columns:
    return {**dict.fromkeys(names), **row, **key}


def _upsert(
    connection: Connection,
    table: type[DeclarativeBase],
    key: Sequence[str],
    names: Sequence[str],
    rows: Sequence[Columns],
) -> None:
    if not rows:
        return
    into = insert_into(connection, table)
    replaced: dict[str, object] = {name: into.excluded[name] for name in names}
    if table is Annotation:
        replaced["revision"] = Annotation.revision + 1
    connection.execute(into.on_conflict_do_update(index_elements=key, set_=replaced), rows)
