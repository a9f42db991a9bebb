"""Rows to be graded, models that grade as a test tells them to, and a filled movie bible."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from tasks.judging.checks import CHECKS
from tasks.judging.grades import Row
from tasks.judging.order import JudgeOrder
from tasks.judging.rubric import RUBRICS, Rubric
from tasks.movie_bible.bible import MovieBible, NewAnnotation
from tasks.movie_bible.fields import values_digest
from tasks.text_model.base import TextAnswer, TextRequest
from tests.workflows.filling_support import PROMPT, Item

RUBRIC: Rubric = RUBRICS.load("movie-bible/1")
TEXT = (
    "Rick Blaine runs a nightclub in Casablanca during the war. One night Ilsa Lund, who left him "
    "in Paris, walks in with her husband Victor Laszlo, a leader of the resistance."
)
GOOD: dict[str, JsonValue] = {
    "summary": "Ilsa, who left Rick in Paris, walks into his nightclub with her husband.",
    "themes": ["war", "lost love"],
    "characters": ["Rick Blaine", "Ilsa Lund", "Victor Laszlo"],
    "mood": "romantic",
}


def row_of(passage: str = "casablanca/plot", text: str = TEXT, /, **changes: JsonValue) -> Row:
    """A good row, or one with these fields changed."""
    return Row(passage, text, {**GOOD, **changes})


def rows_of(number: int) -> list[Row]:
    """Rows of as many passages."""
    return [row_of(f"p-{n:03d}") for n in range(1, number + 1)]


Grading = Callable[[TextRequest, list[Item]], list[Item] | str]


@dataclass
class GradingModel:
    """Grades every row 4, as ``change`` leaves it; ``change`` may raise a ModelFailure."""

    change: Grading | None = None
    provider: str = "scripted"
    name: str = "judge-1"
    requests: list[TextRequest] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, request: TextRequest) -> TextAnswer:
        with self._lock:
            self.requests.append(request)
        items: list[Item] | str = [
            {"key": key, "grade": 4, "why": "a little long"} for key in keys_of(request)
        ]
        if self.change is not None and not isinstance(items, str):
            items = self.change(request, items)
        text = items if isinstance(items, str) else json.dumps({"items": items})
        return TextAnswer(text, 100, 10, self.name)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def sizes(self) -> list[int]:
        """Rows of each call."""
        return [len(keys_of(request)) for request in self.requests]


def keys_of(request: TextRequest) -> list[str]:
    """The keys that a request's schema allows."""
    place: JsonValue = request.schema
    for step in ("properties", "items", "items", "properties", "key", "enum"):
        assert isinstance(place, dict)
        place = place[step]
    assert isinstance(place, list)
    return [str(key) for key in place]


def judge_order(**changes: object) -> JudgeOrder:
    """To have rows graded by the offline judge."""
    values: dict[str, object] = {
        "prompt": PROMPT.version,
        "rubric": RUBRIC.version,
        "rubric_digest": RUBRIC.digest,
        "judge": {"provider": "offline", "name": CHECKS},
    }
    return JudgeOrder.model_validate(values | changes)


def fill_rows(
    bible: MovieBible,
    passages: Sequence[str],
    values: Mapping[str, JsonValue] = GOOD,
    **changes: str,
) -> dict[str, str]:
    """Write these values as the rows of some passages; return the digest of each."""
    named = {"provider": "scripted", "model": "filler-1", **changes}
    stored = bible.scan_ids(passages, PROMPT.version)
    bible.write(
        [
            NewAnnotation(
                passage,
                PROMPT.version,
                values,
                prompt_digest=PROMPT.digest,
                text_digest=stored[passage].text_digest,
                **named,  # type: ignore[arg-type]  # texts
            )
            for passage in passages
        ]
    )
    return dict.fromkeys(passages, values_digest(values))
