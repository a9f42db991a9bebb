"""Count what a movie bible holds, and how much of it is filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import distinct, func, null, select

from tasks.movie_bible.connecting import Store
from tasks.movie_bible.fields import CORPUS, FIELDS
from tasks.movie_bible.models import Annotation, Film, Passage


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts: passages, films, rows by prompt version, and passages that have a field.

    ``filled`` counts values of people and of one prompt version, or of any where none was named.
    """

    passages: int
    films: int
    rows: Mapping[str, int]
    filled: Mapping[str, int]

    def gaps(self, field: str) -> int:
        """Return the number of passages that lack this field."""
        return self.passages - self.filled[field]


def statistics(store: Store, prompt_version: str | None = None) -> Statistics:
    """Count all of it, in a few queries."""
    version = Annotation.prompt_version
    by_version = select(version, func.count()).group_by(version).order_by(version)
    filled = select(
        *(
            func.count(distinct(Annotation.passage_id))
            .filter(getattr(Annotation, name).is_not(null()))
            .label(name)
            for name in FIELDS
        )
    ).join(Passage, Passage.id == Annotation.passage_id)
    if prompt_version is not None:
        filled = filled.where(version.in_([CORPUS, prompt_version]))
    with store.reading() as connection:
        numbers = connection.execute(filled).one()
        return Statistics(
            passages=connection.execute(select(func.count()).select_from(Passage)).scalar_one(),
            films=connection.execute(select(func.count()).select_from(Film)).scalar_one(),
            rows=dict(iter(connection.execute(by_version))),
            filled=dict(zip(FIELDS, numbers, strict=True)),
        )
