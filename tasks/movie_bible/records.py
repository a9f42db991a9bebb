"""Define what goes into the movie bible and comes out of it, as plain values; no SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from tasks.movie_bible.documents import FilmFacts


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage as it is in the database."""

    id: str
    text: str
    text_digest: str
    kind: str
    film: FilmFacts | None


@dataclass(frozen=True, slots=True)
class StoredAnnotation:
    """A row of annotations, all but its number; None is a gap. ``written_at`` is UTC."""

    passage_id: str
    prompt_version: str
    summary: str | None
    themes: list[str] | None
    characters: list[str] | None
    mood: str | None
    prompt_digest: str | None
    text_digest: str | None
    provider: str | None
    model: str | None
    answered_by: str | None
    service_tier: str | None
    run: str | None
    entry: str | None
    attempt: int | None
    tokens_in: int
    tokens_out: int
    tokens_cached: int | None
    cost_nanos: int
    revision: int
    written_at: datetime

    @property
    def values(self) -> dict[str, JsonValue]:
        """Return the four fields by name, gaps included."""
        return {
            "summary": self.summary,
            "themes": None if self.themes is None else list(self.themes),
            "characters": None if self.characters is None else list(self.characters),
            "mood": self.mood,
        }


@dataclass(frozen=True, slots=True)
class NewAnnotation:
    """Fields to be written, and where they come from; ``cost_nanos`` is in 1e-9 USD.

    ``values`` has only the fields to be set: the others keep what the row has.
    """

    passage_id: str
    prompt_version: str
    values: Mapping[str, JsonValue]
    prompt_digest: str | None = None
    text_digest: str | None = None
    provider: str | None = None
    model: str | None = None
    answered_by: str | None = None
    service_tier: str | None = None
    run: str | None = None
    entry: str | None = None
    attempt: int | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int | None = None
    cost_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A row as it was written: its revision (1 when new), and the digest of all its values."""

    action: Literal["inserted", "updated"]
    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class Writing:
    """One writing of a row: the fields that it set, by whom, and what was paid (1e-9 USD)."""

    passage_id: str
    revision: int
    fields: list[str]
    prompt_digest: str | None
    text_digest: str | None
    provider: str | None
    model: str | None
    answered_by: str | None
    service_tier: str | None
    run: str | None
    entry: str | None
    attempt: int | None
    tokens_in: int
    tokens_out: int
    tokens_cached: int | None
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class ScannedPassage:
    """A passage with its rows: of people (``corpus``) and of the prompt version asked about.

    ``stale`` says that there is a row of yet another prompt version.
    """

    id: str
    text: str
    text_digest: str
    kind: str
    film: FilmFacts | None
    corpus: StoredAnnotation | None
    current: StoredAnnotation | None
    stale: bool


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """The numbers of documents that were new, changed something, or were there as they are."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def documents(self) -> int:
        """Return the number of all documents."""
        return self.inserted + self.updated + self.unchanged

    def __add__(self, other: LoadCounts) -> LoadCounts:
        return LoadCounts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
        )
