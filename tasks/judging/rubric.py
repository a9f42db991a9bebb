"""Ask a model to grade rows by a versioned rubric, and read its grades."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints, ValidationError

from pytest_manifest.errors import ManifestToolError
from tasks.judging.grades import BEST, WORST, Grade, GradeNumber, Row
from tasks.templates import PromptTemplate, TemplateKind
from tasks.text_model.base import TextRequest, estimate_tokens
from tasks.text_model.keyed import (
    KEY_LIKE_ANY,
    OUTPUT_ROOM,
    Asked,
    Problem,
    answer_schema,
    first_fault,
    join,
    keyed,
)

OUTPUT_TOKENS: Final = 70
"""What the grade of one row takes in an answer, its key and its reason included."""
LONGEST_WHY: Final = 300
SHAPE: Final[Mapping[str, JsonValue]] = {
    "grade": {"type": "integer", "minimum": WORST, "maximum": BEST},
    "why": {"type": "string"},
}
"""The JSON Schema of a grade."""


class RubricError(ManifestToolError):
    """A rubric that is not there, is malformed, or is not the one that was planned."""


@dataclass(frozen=True, slots=True)
class Rubric(PromptTemplate):
    """A prompt that asks for grades of rows."""

    def ask(self, rows: Sequence[Row], *, timeout: float) -> Asked[Row]:
        """Make the request for some rows, each under a key that cannot be guessed.

        ``timeout`` is in seconds.
        """
        by_key = keyed(rows)
        request = TextRequest(
            instructions=self.filled_instructions(),
            prompt=self.filled_body(
                rows="\n\n".join(_shown(key, row) for key, row in by_key.items())
            ),
            schema=answer_schema(by_key, SHAPE, SHAPE),
            texts=(),
            fields=(),
            max_output_tokens=OUTPUT_ROOM * OUTPUT_TOKENS * len(rows),
            timeout=timeout,
        )
        return Asked(request, by_key)


RUBRICS: Final = TemplateKind(
    "rubric",
    Rubric,
    Path(__file__).parent / "rubrics",
    "GAP_FILL_RUBRIC",
    ("rows",),
    RubricError,
)


def row_tokens(row: Row) -> int:
    """Estimate the tokens that a row adds to a prompt, its passage included."""
    return estimate_tokens(_shown(KEY_LIKE_ANY, row))


def _shown(key: str, row: Row) -> str:
    film = "" if row.film is None else row.film.named
    about = f"=== it is about the film {film} ===\n" if film else ""
    filled = json.dumps(row.filled, ensure_ascii=False)
    return (
        f"=== passage {key} ===\n{row.text}\n{about}"
        f"=== filled in for {key} ===\n{filled}\n=== end {key} ==="
    )


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    grade: GradeNumber
    why: Annotated[str, StringConstraints(strip_whitespace=True)] = ""


@dataclass(slots=True)
class Reading:
    """The grade or the problem of each row, by its passage's id."""

    grades: dict[str, Grade] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)


def read_grades(text: str, by_key: Mapping[str, Row]) -> Reading:
    """Join an answer's grades to their rows. Raises MalformedAnswer for no list of items."""
    joined, reading = join(text, by_key), Reading()
    for key, problem in joined.problems.items():
        reading.problems[by_key[key].passage] = problem
    for key, told in joined.items.items():
        passage = by_key[key].passage
        try:
            item = _Item.model_validate(told)
        except ValidationError as error:
            reading.problems[passage] = Problem("malformed", first_fault(error))
        else:
            why = (item.why[:LONGEST_WHY],) if item.why else ()
            reading.grades[passage] = Grade(item.grade, why)
    return reading
