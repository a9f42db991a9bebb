"""Define what a judge is given and gives: rows with their passages, and grades from 1 to 5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

from pydantic import Field, JsonValue

from tasks.filling.shares import Spent
from tasks.movie_bible.documents import FilmFacts
from tasks.movie_bible.fields import FIELDS
from tasks.movie_bible.records import ScannedPassage

WORST: Final = 1
BEST: Final = 5
GradeNumber = Annotated[int, Field(ge=WORST, le=BEST)]


@dataclass(frozen=True, slots=True)
class Row:
    """A row to be graded: the filled fields of a passage, and what they were to be made of."""

    passage: str
    text: str
    values: Mapping[str, JsonValue]
    film: FilmFacts | None = None

    @property
    def filled(self) -> dict[str, JsonValue]:
        """Return the fields that have a value, in their usual order."""
        return {name: self.values[name] for name in FIELDS if self.values.get(name) is not None}


def is_of_another_text(passage: ScannedPassage) -> bool:
    """Return whether a passage's row was made of another text than the passage has now."""
    row = passage.current
    return row is not None and row.text_digest not in (None, passage.text_digest)


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade from 1 (useless) to 5 (nothing to mend), and why it is no better."""

    grade: int
    why: tuple[str, ...] = ()


@dataclass(slots=True)
class Grading:
    """The grades of some rows; ``ungraded`` has kind and sentence of those without a grade.

    ``spent`` is all that was paid, for failed calls, too; ``answered_by`` what answered, by its own
    word. ``unknown_bills`` are calls that may have been billed beyond that, as nobody has told.
    """

    grades: dict[str, Grade] = field(default_factory=dict)
    ungraded: dict[str, tuple[str, str]] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    calls: int = 0
    unknown_bills: int = 0
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    answered_by: set[str] = field(default_factory=set)


class Judge(Protocol):
    """Grades rows. One instance serves any number of threads."""

    @property
    def provider(self) -> str:
        """Return ``offline``, or the provider of the language model that is asked."""

    @property
    def name(self) -> str:
        """Return the judge's name, or the model's."""

    @property
    def has_price(self) -> bool:
        """Return whether ``spent`` of a grading has the true cost."""

    def grade(
        self, rows: Sequence[Row], *, seconds: float, progress: Callable[[Grading], None]
    ) -> Grading:
        """Grade rows within ``seconds``; tell ``progress`` of the sum after each call.

        Answers that are on their way when it ends are waited for a moment; a call that is not may
        be billed, and is counted as such.

        Raises a ModelFailure that no call can overcome; ``progress`` has then been told of the
        calls before.
        """


def in_batches(rows: Sequence[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """Yield the rows in groups of at most ``size``."""
    for start in range(0, len(rows), size):
        yield tuple(rows[start : start + size])
