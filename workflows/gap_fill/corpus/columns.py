"""Define the known columns, and make documents of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import FIELDS, LIST_FIELDS, kind_of
from workflows.gap_fill.corpus.errors import CorpusError

FACTS: Final = ("title", "year", "director", "cast")
COLUMNS: Final = ("id", "text", "kind", "film", *FACTS, *FIELDS)
LIST_COLUMNS: Final = LIST_FIELDS | {"cast"}

Row = Mapping[str, object]


def parse_mapping(text: str) -> dict[str, str]:
    """Parse ``id=slug,text=body`` as ``{"id": "slug", "text": "body"}``: our column, the file's.

    Raises CorpusError for anything else, and for a column of ours that is not known.
    """
    mapping: dict[str, str] = {}
    for part in filter(str.strip, text.split(",")):
        ours, sign, theirs = (word.strip() for word in part.partition("="))
        if not (ours and sign and theirs):
            raise CorpusError(
                f"the mapping has {part.strip()!r:.80} where OURS=THEIRS must stand; write it as "
                "in id=slug,text=body"
            )
        if ours in mapping:
            raise CorpusError(f"the mapping names {ours!r:.80} twice; leave one of them out")
        mapping[ours] = theirs
    check_mapping(mapping)
    return mapping


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise CorpusError for a column of ours that is not known."""
    for ours in mapping:
        if ours not in COLUMNS:
            raise CorpusError(
                f"the mapping names a column {ours!r:.80} that is not known; write OURS=THEIRS "
                f"with one of ours: {', '.join(COLUMNS)}"
            )


def names_in_file(mapping: Mapping[str, str]) -> dict[str, str]:
    """Return each known column with its name in the file."""
    return {ours: mapping.get(ours, ours) for ours in COLUMNS}


def document(row: Row, place: str) -> Document:
    """Make a document of a row by our column names; None and blank texts are left out.

    Raises CorpusError, beginning with ``place``.
    """
    known = {name: value for name, value in row.items() if not _is_absent(value)}
    for name in ("id", "text"):
        if name not in known:
            found = f"an empty {name}" if name in row else f"no {name}"
            raise CorpusError(
                f"{place}: the document has {found}; write one, or say by a mapping such as "
                f"{name}=COLUMN where it stands"
            )
    identity = known["id"]
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = known["id"] = str(identity)  # numbered corpora are common
    try:
        return _document(known)
    except ValueError as error:
        raise CorpusError(
            f"{place}: {error} (document {identity!r:.80}); correct it, or leave the document out"
        ) from None


def cell(column: str, text: str) -> object:
    """Convert a table's cell to a list, a number or a text. Raises ValueError."""
    if not text.strip():
        return None
    if column in LIST_COLUMNS:
        return _list(column, text.strip())
    if column != "year":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"year must be a whole number, not {text!r:.80}") from None


def _list(column: str, text: str) -> object:
    """Parse a JSON array, or texts separated by semicolons. Raises ValueError."""
    if not text.startswith("["):
        return [item.strip() for item in text.split(";") if item.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"{column} begins like a JSON array and is none ({text!r:.80}); texts may also stand "
            "with semicolons between them"
        ) from None


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _document(known: dict[str, object]) -> Document:
    """Make a document; Document and FilmFacts check the types, and word their ValueErrors."""
    given: dict[str, JsonValue] = {
        name: known[name]  # type: ignore[misc]  # Document checks its type
        for name in FIELDS
        if name in known
    }
    kind = known.get("kind", "note")
    return Document(known["id"], known["text"], kind, _film(known), given)  # type: ignore[arg-type]  # read from columns of the same names


def _film(known: Mapping[str, object]) -> FilmFacts | None:
    """Return a row's film; without a film's id, a title takes the row's id before the slash."""
    identity = known.get("film")
    if identity is None and "title" in known:
        identity = str(known["id"]).partition("/")[0]
    cast = known.get("cast", [])
    if not isinstance(cast, list):
        raise ValueError(f"cast must be a list of texts, not {kind_of(cast)}")  # noqa: TRY004
    facts = {name: known.get(name) for name in ("title", "year", "director")}
    # Facts of no film are judged as well: a wrong type is a fault, wherever it stands.
    judged = FilmFacts(identity or "none", **facts, cast=tuple(cast))  # type: ignore[arg-type]  # read from columns of the same names
    return None if identity is None else judged
