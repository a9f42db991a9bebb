"""Write annotations: one row per passage and prompt version, however often it is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Final, Literal

from pydantic import JsonValue
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase

from tasks.movie_bible.connecting import Store
from tasks.movie_bible.fields import FIELDS, field_fault, values_digest
from tasks.movie_bible.models import Annotation, AnnotationWriting
from tasks.movie_bible.records import NewAnnotation, Written

Upsert = postgresql.Insert | sqlite.Insert

KEY: Final = ("passage_id", "prompt_version")
PROVENANCE: Final = (
    "prompt_digest",
    "text_digest",
    "provider",
    "model",
    "answered_by",
    "service_tier",
    "run",
    "entry",
    "attempt",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "cost_nanos",
)


def write(store: Store, rows: Sequence[NewAnnotation]) -> dict[str, Written]:
    """Insert or update all rows in one transaction; by passage id, what became of each.

    Raises ValueError, with a sentence, for a passage that comes twice, or a value that is none of
    its field; then nothing is written.
    """
    if not rows:
        return {}
    with store.writing() as connection:
        return write_rows(connection, rows, datetime.now(timezone.utc))


def write_rows(
    connection: Connection, rows: Sequence[NewAnnotation], now: datetime
) -> dict[str, Written]:
    """Insert or update rows as part of a transaction. Raises ValueError as ``write`` does."""
    _check(rows)
    written: dict[str, Written] = {}
    # In the order of ids, so that two writers of the same rows wait for one another, and do not
    # each hold what the other needs.
    ordered = sorted(rows, key=lambda row: (row.passage_id, row.prompt_version))
    for names, alike in groupby(ordered, key=lambda row: frozenset(row.values)):
        written |= _upsert(connection, names, [_parameters(row, now) for row in alike])
    history = [_history(row, written[row.passage_id].revision, now) for row in ordered]
    connection.execute(insert(AnnotationWriting), history)
    return written


def insert_into(connection: Connection, table: type[DeclarativeBase]) -> Upsert:
    """Return an INSERT that supports ON CONFLICT; SQLAlchemy has one for each database."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _upsert(
    connection: Connection, names: Collection[str], rows: Sequence[Mapping[str, object]]
) -> dict[str, Written]:
    into = insert_into(connection, Annotation)
    replaced = {name: into.excluded[name] for name in (*names, *PROVENANCE, "written_at")}
    statement = into.on_conflict_do_update(
        index_elements=KEY, set_={**replaced, "revision": Annotation.revision + 1}
    ).returning(
        Annotation.passage_id,
        Annotation.revision,
        *(getattr(Annotation, name) for name in FIELDS),
    )
    found = {}
    for row in connection.execute(statement, rows):
        stored: dict[str, JsonValue] = {name: getattr(row, name) for name in FIELDS}
        digest = values_digest(stored)
        action: Literal["inserted", "updated"] = "inserted" if row.revision == 1 else "updated"
        found[row.passage_id] = Written(action, row.revision, digest)
    return found


def _parameters(row: NewAnnotation, now: datetime) -> dict[str, object]:
    """Return a value for each column; the columns that ``row`` does not give become gaps (NULL)."""
    columns: dict[str, object] = {name: getattr(row, name) for name in (*KEY, *PROVENANCE)}
    columns |= {name: row.values.get(name) for name in FIELDS}
    return columns | {"revision": 1, "written_at": now}


def _history(row: NewAnnotation, revision: int, now: datetime) -> dict[str, object]:
    columns: dict[str, object] = {name: getattr(row, name) for name in (*KEY, *PROVENANCE)}
    fields = [name for name in FIELDS if row.values.get(name) is not None]
    return columns | {"revision": revision, "fields": fields, "written_at": now}


def _check(rows: Sequence[NewAnnotation]) -> None:
    seen = set()
    for row in rows:
        if row.passage_id in seen:
            raise ValueError(f"passage {row.passage_id!r} comes twice in one writing")
        seen.add(row.passage_id)
        for name, value in row.values.items():
            fault = field_fault(name, value)
            if fault is not None and not (value is None and name in FIELDS):
                raise ValueError(f"passage {row.passage_id!r}: {name} {fault}")
