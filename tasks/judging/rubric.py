"""Load rubrics, ask a model to grade by one, and read its grades.

``movie-bible/1`` is ``movie-bible/1.md`` in the folder of rubrics: the instructions, a line
``---``, and the prompt, which holds ``$rows``. A file that was used is not changed: another wording
is a new version.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Annotated, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from pytest_manifest.errors import ManifestToolError
from tasks.filling.prompts import DIVIDER, VERSION, one_line
from tasks.judging.grades import BEST, WORST, Grade, GradeNumber, Row
from tasks.movie_bible.fields import MOODS
from tasks.text_model.base import TextRequest, estimate_tokens
from tasks.text_model.failures import MalformedAnswer

FOLDER: Final = Path(__file__).parent / "rubrics"
OUTPUT_TOKENS: Final = 70
"""What the grade of one row takes in an answer, its key and its reason included."""
OUTPUT_ROOM: Final = 4
"""An answer may be so many times as long as estimated before it is cut off."""
EXCERPT: Final = 120


class RubricError(ManifestToolError):
    """A rubric that is not there, is malformed, or is not the one that was planned."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and which row each of its keys stands for."""

    request: TextRequest
    by_key: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Rubric:
    """A rubric: ``version`` is its name and number, ``digest`` SHA-256 of the file's bytes."""

    version: str
    digest: str
    instructions: str
    body: str

    def ask(self, rows: Sequence[Row], *, timeout: float) -> Asked:
        """Make the request for some rows, each under a key that cannot be guessed.

        ``timeout`` is in seconds.
        """
        nonce = secrets.token_hex(6)
        by_key = {f"{nonce}-{number}": row for number, row in enumerate(rows, 1)}
        shown = "\n\n".join(_shown(key, row) for key, row in by_key.items())
        request = TextRequest(
            instructions=Template(self.instructions).safe_substitute(moods=", ".join(MOODS)),
            prompt=Template(self.body).safe_substitute(rows=shown),
            schema=answer_schema(list(by_key)),
            texts=(),
            fields=(),
            max_output_tokens=OUTPUT_ROOM * OUTPUT_TOKENS * len(rows),
            timeout=timeout,
        )
        return Asked(request, by_key)

    def overhead_tokens(self) -> int:
        """Estimate the tokens of a call without its rows."""
        return estimate_tokens(self.instructions) + estimate_tokens(", ".join(MOODS))


def row_tokens(row: Row) -> int:
    """Estimate the tokens that a row adds to a prompt, its passage included."""
    return estimate_tokens(_shown("0123456789ab-00", row))


def load_rubric(version: str, folder: Path | None = None) -> Rubric:
    """Load the rubric ``NAME/NUMBER``, or the newest one of ``NAME``. Raises RubricError."""
    place = folder or FOLDER
    match = VERSION.match(version)
    if match is None:
        raise RubricError(f"rubric {version!r}: write it as NAME/NUMBER, like movie-bible/1")
    name, number = match["name"], match["number"]
    known = sorted(int(p.stem) for p in (place / name).glob("*.md") if p.stem.isdigit())
    if not known or (number is not None and int(number) not in known):
        there = ", ".join(f"{name}/{one}" for one in known) or "none of that name"
        raise RubricError(
            f"rubric {version!r}: {place} has {there}; set GAP_FILL_RUBRIC to one that is there, "
            "and GAP_FILL_RUBRICS to the folder that it is in"
        )
    chosen = known[-1] if number is None else int(number)
    return _parse(f"{name}/{chosen}", place / name / f"{chosen}.md")


def _parse(version: str, path: Path) -> Rubric:
    content = path.read_bytes()
    try:
        instructions, divider, body = content.decode("utf-8").partition(DIVIDER)
    except UnicodeDecodeError as error:
        raise RubricError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from None
    if not divider or not re.search(r"\$(rows\b|\{rows\})", body):
        raise RubricError(
            f"{path}: must have the instructions, a line '---', and below it a prompt with $rows"
        )
    digest = hashlib.sha256(content).hexdigest()
    return Rubric(version, digest, instructions.strip(), body.strip())


def answer_schema(keys: Sequence[str]) -> dict[str, JsonValue]:
    """Return the JSON Schema of an answer."""
    item: dict[str, JsonValue] = {
        "type": "object",
        "properties": {
            "key": {"type": "string", "enum": list(keys)},
            "grade": {"type": "integer", "minimum": WORST, "maximum": BEST},
            "why": {"type": "string"},
        },
        "required": ["key", "grade", "why"],
    }
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
    }


def _shown(key: str, row: Row) -> str:
    about = ""
    if row.film is not None and row.film.title:
        year = f" ({row.film.year})" if row.film.year else ""
        about = f"=== it is about the film {one_line(row.film.title)}{year} ===\n"
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
    """The grade, or kind and sentence of the problem, of each row by its passage's id."""

    grades: dict[str, Grade] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)


_ITEMS: TypeAdapter[list[dict[str, JsonValue]]] = TypeAdapter(list[dict[str, JsonValue]])
_ENVELOPE: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
LONGEST_WHY: Final = 300


def read_grades(text: str, by_key: Mapping[str, Row]) -> Reading:
    """Join an answer's grades to their rows by key, never by position.

    A key that comes twice counts for none. Raises MalformedAnswer for what is no list of items.
    """
    try:
        items = _ITEMS.validate_python(_ENVELOPE.validate_json(text).get("items"), strict=True)
    except (ValidationError, RecursionError):
        raise MalformedAnswer(
            f"the answer is no JSON object with a list of items: {text[:EXCERPT]!r}"
        ) from None
    counts = Counter(key for item in items if isinstance(key := item.get("key"), str))
    found = {key: item for item in items if isinstance(key := item.get("key"), str)}
    reading = Reading()
    for key, row in by_key.items():
        if counts[key] != 1:
            kind = "doubled" if counts[key] else "missing"
            reading.problems[row.passage] = kind, f"the answer has {counts[key]} items for it"
            continue
        try:
            item = _Item.model_validate(found[key])
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reading.problems[row.passage] = "malformed", f"{place}: {first['msg']}"
        else:
            why = (item.why[:LONGEST_WHY],) if item.why else ()
            reading.grades[row.passage] = Grade(item.grade, why)
    return reading
