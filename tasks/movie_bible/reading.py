"""Query the movie bible: by ids, and page by page in the order of ids, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Select, exists, select
from sqlalchemy.engine import Connection, Row
from typing_extensions import Unpack

from tasks.movie_bible.connecting import Store
from tasks.movie_bible.documents import FilmFacts
from tasks.movie_bible.errors import BibleError
from tasks.movie_bible.fields import CORPUS, text_digest
from tasks.movie_bible.models import Annotation, AnnotationWriting, Film, Passage
from tasks.movie_bible.records import (
    ScannedPassage,
    StoredAnnotation,
    StoredPassage,
    Writing,
)

CHUNK: Final = 500
"""The most ids in one query; databases limit them."""

PAGE: Final = 1000
"""Passages read at once while scanning."""

T = TypeVar("T")

_ANNOTATION = tuple(getattr(Annotation, name) for name in StoredAnnotation.__dataclass_fields__)
_WRITING = tuple(getattr(AnnotationWriting, name) for name in Writing.__dataclass_fields__)
_PASSAGE = (Passage.id, Passage.text, Passage.text_digest, Passage.kind, Passage.film_id)
_FILM = (Film.title, Film.year, Film.director, Film.cast)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Cut ``items`` into lists of at most ``size``."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def stored_passages(store: Store, ids: Sequence[str]) -> dict[str, StoredPassage]:
    """Return the passages with these ids, by id; ids that do not exist are left out."""
    found = {}
    for chunk in chunks(sorted(set(ids))):
        with store.reading() as connection:
            for row in connection.execute(_passages().where(Passage.id.in_(chunk))):
                found[row.id] = StoredPassage(
                    row.id, row.text, row.text_digest, row.kind, _film(row)
                )
    return found


def stored_annotations(
    store: Store, ids: Sequence[str], prompt_version: str
) -> dict[str, StoredAnnotation]:
    """Return the rows of one prompt version, by passage id; passages without one are left out."""
    found: dict[str, StoredAnnotation] = {}
    for chunk in chunks(sorted(set(ids))):
        with store.reading() as connection:
            found |= _annotations(connection, chunk, [prompt_version])[prompt_version]
    return found


def writings(store: Store, ids: Sequence[str], prompt_version: str) -> dict[str, list[Writing]]:
    """Return every writing of the rows of one prompt version, oldest first, by passage id."""
    found: dict[str, list[Writing]] = {}
    for chunk in chunks(sorted(set(ids))):
        query = select(*_WRITING).where(
            AnnotationWriting.passage_id.in_(chunk),
            AnnotationWriting.prompt_version == prompt_version,
        )
        with store.reading() as connection:
            for row in connection.execute(query.order_by(AnnotationWriting.id)):
                found.setdefault(row.passage_id, []).append(Writing(*row))
    return found


def scan(store: Store, prompt_version: str) -> Iterator[ScannedPassage]:
    """Stream all passages in the order of their ids; no transaction is held between pages."""
    after = ""
    while True:
        with store.reading() as connection:
            page = _passages().where(Passage.id > after).order_by(Passage.id).limit(PAGE)
            found = _scanned(connection, connection.execute(page).all(), prompt_version)
        if not found:
            return
        after = found[-1].id
        yield from found


def scan_ids(store: Store, ids: Sequence[str], prompt_version: str) -> dict[str, ScannedPassage]:
    """Return the passages with these ids and their rows, by id; missing ids are left out."""
    found: dict[str, ScannedPassage] = {}
    for chunk in chunks(sorted(set(ids))):
        with store.reading() as connection:
            rows = connection.execute(_passages().where(Passage.id.in_(chunk))).all()
            found |= {one.id: one for one in _scanned(connection, rows, prompt_version)}
    return found


def annotated_ids(store: Store) -> Iterator[str]:
    """Stream the passage ids of all annotations, each once, sorted."""
    return _ids(store, lambda query: query)


def orphans(store: Store) -> Iterator[str]:
    """Stream the passage ids of annotations whose passage does not exist, each once, sorted."""
    there = exists().where(Passage.id == Annotation.passage_id)
    return _ids(store, lambda query: query.where(~there))


def _ids(store: Store, narrow: Callable[[Select[str]], Select[str]]) -> Iterator[str]:
    column, after = Annotation.passage_id, ""
    while True:
        page = narrow(select(column).distinct().where(column > after)).order_by(column).limit(PAGE)
        with store.reading() as connection:
            found = connection.execute(page).scalars().all()
        if not found:
            return
        after = found[-1]
        yield from found


def _passages() -> Select[Unpack[tuple[Any, ...]]]:
    return select(*_PASSAGE, *_FILM).outerjoin(Film, Film.id == Passage.film_id)


def _scanned(
    connection: Connection, rows: Sequence[Row[Unpack[tuple[Any, ...]]]], prompt_version: str
) -> list[ScannedPassage]:
    found: list[ScannedPassage] = []
    for chunk in chunks(rows):
        ids = [row.id for row in chunk]
        by_version = _annotations(connection, ids, [CORPUS, prompt_version])
        stale = _stale(connection, ids, prompt_version)
        found += (
            ScannedPassage(
                row.id,
                row.text,
                text_digest(
                    row.text
                ),  # not the stored digest: another program may have changed the text
                row.kind,
                _film(row),
                by_version[CORPUS].get(row.id),
                by_version[prompt_version].get(row.id),
                row.id in stale,
            )
            for row in chunk
        )
    return found


def _annotations(
    connection: Connection, ids: Sequence[str], versions: Sequence[str]
) -> dict[str, dict[str, StoredAnnotation]]:
    """Return the rows of these passages by prompt version and passage id."""
    found: dict[str, dict[str, StoredAnnotation]] = {version: {} for version in versions}
    query = select(*_ANNOTATION).where(
        Annotation.passage_id.in_(ids), Annotation.prompt_version.in_(versions)
    )
    for row in connection.execute(query):
        found[row.prompt_version][row.passage_id] = StoredAnnotation(*row)
    return found


def _stale(connection: Connection, ids: Sequence[str], prompt_version: str) -> set[str]:
    query = select(Annotation.passage_id).where(
        Annotation.passage_id.in_(ids), Annotation.prompt_version.not_in([CORPUS, prompt_version])
    )
    return set(connection.execute(query).scalars())


def _film(row: Row[Unpack[tuple[Any, ...]]]) -> FilmFacts | None:
    if row.film_id is None:
        return None
    try:
        return FilmFacts(row.film_id, row.title, row.year, row.director, tuple(row.cast or ()))
    except ValueError as error:
        raise BibleError(
            f"the movie bible's film {row.film_id!r} cannot be used, for {error}; somebody else "
            "wrote to that row, so correct it or load its corpus again"
        ) from error
