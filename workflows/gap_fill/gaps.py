"""Find the gaps of a database, or of a corpus compared with it, in constant memory."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from pydantic import JsonValue

from tasks.filling.gaps import SAYINGS, Gap
from tasks.filling.order import REPLACES, Order
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.records import ScannedPassage
from workflows.gap_fill.where import Where

CHUNK: Final = 500
NOT_LOADED: Final = "not_loaded"
KINDS: Final[Mapping[str, str]] = {**SAYINGS, NOT_LOADED: "not in the database"}
"""Every kind of gap, and how a preview says it."""
EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Selection:
    """The passages that a plan is about, and what is to be filled of them."""

    order: Order
    where: Where


@dataclass(frozen=True, slots=True)
class Found:
    """A passage with a gap. ``document``: what the database must be told first, if anything."""

    id: str
    text: str
    film: FilmFacts | None
    fields: tuple[str, ...]
    kind: str
    has_row: bool
    document: dict[str, JsonValue] | None = None


@dataclass(slots=True)
class Tally:
    """Counts of the passages scanned; ``gaps`` counts them by the kind of their gap.

    ``complete_elsewhere`` are documents that people have completed and that are not loaded yet;
    ``gone`` are passages with rows that the corpus does not have.
    """

    passages: int = 0
    matching: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    complete_elsewhere: int = 0
    gone: int = 0
    gone_examples: list[str] = field(default_factory=list)


def gaps_of_database(bible: MovieBible, selection: Selection, tally: Tally) -> Generator[Found]:
    """Yield the gaps of all passages of the database, in order of their ids."""
    for passage in bible.scan(selection.order.prompt):
        tally.passages += 1
        if not selection.where.matches(
            id=passage.id, kind=passage.kind, text=passage.text, film=passage.film
        ):
            continue
        tally.matching += 1
        gap = selection.order.gap_of(passage)
        if gap is not None:
            yield _found(passage, gap, tally)


def gaps_of_corpus(
    bible: MovieBible, documents: Iterable[Document], selection: Selection, tally: Tally
) -> Generator[Found]:
    """Yield the gaps of a corpus, in its own order, compared with the database.

    A document that the database lacks, or has with another text, is a gap as well. After the last
    document, passages of the database that the corpus lacks are counted.
    """
    with closing(sqlite3.connect("")) as seen:  # a temporary file: ids need not fit into memory
        seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        remaining = iter(documents)
        while chunk := list(islice(remaining, CHUNK)):
            seen.executemany("INSERT INTO seen VALUES (?)", [(one.id,) for one in chunk])
            there = bible.scan_ids([one.id for one in chunk], selection.order.prompt)
            missing = [one.id for one in chunk if one.id not in there]
            orphaned = bible.annotations(missing, selection.order.prompt)
            for document in chunk:
                tally.passages += 1
                found = _held_against(there.get(document.id), document, selection, tally)
                if found is not None:
                    yield replace(found, has_row=True) if document.id in orphaned else found
        for name in bible.annotated_ids():
            if seen.execute("SELECT 1 FROM seen WHERE id = ?", (name,)).fetchone() is None:
                tally.gone += 1
                if len(tally.gone_examples) < EXAMPLES:
                    tally.gone_examples.append(name)


def _held_against(
    passage: ScannedPassage | None, document: Document, selection: Selection, tally: Tally
) -> Found | None:
    film = document.film if passage is None or document.film else passage.film
    if not selection.where.matches(
        id=document.id, kind=document.kind, text=document.text, film=film
    ):
        return None
    tally.matching += 1
    given = {**({} if passage is None or passage.corpus is None else passage.corpus.values)}
    given |= document.given
    if passage is not None and passage.text_digest == document.digest:
        return _beside(passage, document, given, selection, tally)
    fields = tuple(name for name in selection.order.fields if given.get(name) is None)
    if not fields:
        tally.complete_elsewhere += 1
        return None
    kind = NOT_LOADED if passage is None else "stale_text"
    tally.gaps[kind] += 1
    return Found(
        document.id,
        document.text,
        film,
        fields,
        kind,
        has_row=passage is not None and passage.current is not None,
        document=_carried(document, passage),
    )


def _carried(document: Document, passage: ScannedPassage | None) -> dict[str, JsonValue]:
    """Return the document as an entry carries it, with the digest of the text that it replaces."""
    return {**document.as_json(), REPLACES: None if passage is None else passage.text_digest}


def _beside(
    passage: ScannedPassage,
    document: Document,
    given: Mapping[str, JsonValue],
    selection: Selection,
    tally: Tally,
) -> Found | None:
    """Return the gap of a loaded passage, or None; fields that people wrote since are left out."""
    gap = selection.order.gap_of(passage)
    if gap is None:
        return None
    fields = tuple(name for name in gap.fields if given.get(name) is None)
    if not fields:
        tally.complete_elsewhere += 1
        return None
    found = _found(passage, Gap(gap.kind, fields, renews=gap.renews), tally)
    unloaded = len(fields) < len(gap.fields)
    return replace(found, document=_carried(document, passage)) if unloaded else found


def _found(passage: ScannedPassage, gap: Gap, tally: Tally) -> Found:
    tally.gaps[gap.kind] += 1
    return Found(
        passage.id,
        passage.text,
        passage.film,
        gap.fields,
        gap.kind,
        has_row=passage.current is not None,
    )
