"""Define the tables of the movie bible."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasks.movie_bible.documents import ID_LENGTH, KIND_LENGTH

VERSION_TABLE: Final = "movie_bible_version"
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""The migrations, oldest first; the last one makes these tables. Kept here so that opening a
database need not load Alembic; a test holds it against the migrations."""

# Collation "C" sorts by code point, as SQLite and Python do: one order of ids everywhere.
Key = String(ID_LENGTH).with_variant(String(ID_LENGTH, collation="C"), "postgresql")

# SQL NULL, and not JSON's null, is the gap. JSONB, as PostgreSQL cannot compare JSON.
Texts = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


# SQLite counts up INTEGER keys alone; an upsert of PostgreSQL uses up a number, so 64 bits there.
Number = BigInteger().with_variant(Integer, "sqlite")


class UtcMoment(TypeDecorator[datetime]):
    """A moment in UTC, aware of its zone also on SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time of any zone to UTC."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time to UTC from the server's zone; one without a zone is UTC already."""
        if value is None:
            return None
        in_zone = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return in_zone.astimezone(timezone.utc)


class Base(DeclarativeBase):
    """The tables of the movie bible."""


class Film(Base):
    """A film; NULL is what is not known."""

    __tablename__ = "film"

    id: Mapped[str] = mapped_column(Key, primary_key=True)
    title: Mapped[str | None] = mapped_column(Text)
    year: Mapped[int | None]
    director: Mapped[str | None] = mapped_column(Text)
    cast: Mapped[list[str] | None] = mapped_column(Texts)


class Passage(Base):
    """A document's text, with its SHA-256."""

    __tablename__ = "passage"

    id: Mapped[str] = mapped_column(Key, primary_key=True)
    film_id: Mapped[str | None] = mapped_column(Key, index=True)
    kind: Mapped[str] = mapped_column(String(KIND_LENGTH))
    text: Mapped[str] = mapped_column(Text)
    text_digest: Mapped[str] = mapped_column(String(64))


class Annotation(Base):
    """The fields of a passage by one prompt version, and where they come from; NULL is a gap."""

    # No foreign key: a row that was paid for outlives its passage, as an orphan. The constraint's
    # index begins with passage_id, which so needs none of its own.
    __tablename__ = "annotation"
    __table_args__ = (
        UniqueConstraint("passage_id", "prompt_version", name="annotation_once"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Number, primary_key=True)
    passage_id: Mapped[str] = mapped_column(Key)
    prompt_version: Mapped[str] = mapped_column(String(100))
    summary: Mapped[str | None] = mapped_column(Text)
    themes: Mapped[list[str] | None] = mapped_column(Texts)
    characters: Mapped[list[str] | None] = mapped_column(Texts)
    mood: Mapped[str | None] = mapped_column(Text)
    prompt_digest: Mapped[str | None] = mapped_column(String(64))
    text_digest: Mapped[str | None] = mapped_column(String(64))
    provider: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    answered_by: Mapped[str | None] = mapped_column(Text)
    service_tier: Mapped[str | None] = mapped_column(Text)
    run: Mapped[str | None] = mapped_column(Text)
    entry: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None]
    tokens_in: Mapped[int]
    tokens_out: Mapped[int]
    tokens_cached: Mapped[int | None]
    cost_nanos: Mapped[int] = mapped_column(BigInteger)  # 1e-9 USD
    revision: Mapped[int]
    written_at: Mapped[datetime] = mapped_column(UtcMoment)


class AnnotationWriting(Base):
    """One writing of an annotation: which fields, by whom, and what was paid for them.

    A row may be filled in parts, by several jobs and models. It outlives the row, as a receipt
    outlives what was bought.
    """

    __tablename__ = "annotation_writing"
    __table_args__ = (
        Index("annotation_writing_of", "passage_id", "prompt_version"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Number, primary_key=True)
    passage_id: Mapped[str] = mapped_column(Key)
    prompt_version: Mapped[str] = mapped_column(String(100))
    revision: Mapped[int]
    fields: Mapped[list[str]] = mapped_column(Texts)
    prompt_digest: Mapped[str | None] = mapped_column(String(64))
    text_digest: Mapped[str | None] = mapped_column(String(64))
    provider: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    answered_by: Mapped[str | None] = mapped_column(Text)
    service_tier: Mapped[str | None] = mapped_column(Text)
    run: Mapped[str | None] = mapped_column(Text)
    entry: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None]
    tokens_in: Mapped[int]
    tokens_out: Mapped[int]
    tokens_cached: Mapped[int | None]
    cost_nanos: Mapped[int] = mapped_column(BigInteger)  # 1e-9 USD
    written_at: Mapped[datetime] = mapped_column(UtcMoment)


class BatchJob(Base):
    """A batch job of a service, recorded before it is created."""

    __tablename__ = "batch_job"
    __table_args__ = (UniqueConstraint("run", "entry", "number", name="batch_job_once"),)

    display_name: Mapped[str] = mapped_column(Text, primary_key=True)
    run: Mapped[str] = mapped_column(Text)
    entry: Mapped[str] = mapped_column(Text)
    number: Mapped[int]
    state: Mapped[str] = mapped_column(Text)
    service_name: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcMoment)
    asked_at: Mapped[datetime | None] = mapped_column(UtcMoment)
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcMoment)


class BatchRequest(Base):
    """A request of a job, under our random key, and what has come of it."""

    __tablename__ = "batch_request"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    job: Mapped[str] = mapped_column(Text, index=True)
    digest: Mapped[str] = mapped_column(String(64))
    passages: Mapped[list[dict[str, object]]] = mapped_column(Texts)
    outcome: Mapped[str | None] = mapped_column(Text)
    account: Mapped[dict[str, object] | None] = mapped_column(Texts)
    told_by: Mapped[int | None]


class Identity(Base):
    """One row that tells one database from another, whatever URL leads to it."""

    __tablename__ = "movie_bible_identity"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32))
