"""Ask for the missing fields of passages, by a versioned prompt, and estimate what that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.errors import ManifestToolError
from tasks.movie_bible.documents import FilmFacts
from tasks.movie_bible.fields import FIELDS, MOODS
from tasks.templates import PromptTemplate, TemplateKind
from tasks.text_model.base import KeyedText, TextRequest, estimate_tokens
from tasks.text_model.keyed import KEY_LIKE_ANY, OUTPUT_ROOM, Asked, answer_schema, keyed

OUTPUT_TOKENS: Final[Mapping[str, int]] = {
    "key": 20,
    "summary": 90,
    "themes": 35,
    "characters": 35,
    "mood": 10,
}
"""What a field of one passage takes in an answer, punctuation included: for estimates."""


class PromptError(ManifestToolError):
    """A prompt template that is not there, is malformed, or is not the one that was planned."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A passage and the fields to be filled for it."""

    passage: str
    text: str
    fields: tuple[str, ...]
    film: FilmFacts | None = None


@dataclass(frozen=True, slots=True)
class Prompt(PromptTemplate):
    """A prompt that asks for fields of passages."""

    def ask(
        self,
        wanted: Sequence[Wanted],
        *,
        timeout: float,
        room: int = 1,
        nonce: str | None = None,
    ) -> Asked[Wanted]:
        """Make the request for some passages, each under a key that cannot be guessed.

        ``timeout`` is in seconds; ``room`` allows an answer of so many times the usual length.
        The keys are those of the ``nonce``; without it they are new.
        """
        by_key = keyed(wanted, nonce)
        fields = tuple(field for field in FIELDS if any(field in w.fields for w in wanted))
        prompt = self.filled_body(
            orders="\n".join(_order(key, item) for key, item in by_key.items()),
            passages="\n\n".join(_fenced(key, item.text) for key, item in by_key.items()),
        )
        request = TextRequest(
            instructions=self.filled_instructions(),
            prompt=prompt,
            schema=_schema(list(by_key), fields, wanted),
            texts=tuple(KeyedText(key, item.text) for key, item in by_key.items()),
            fields=fields,
            max_output_tokens=room
            * OUTPUT_ROOM
            * sum(output_tokens(item.fields) for item in wanted),
            timeout=timeout,
        )
        return Asked(request, by_key)


PROMPTS: Final = TemplateKind(
    "prompt",
    Prompt,
    Path(__file__).parent / "prompts",
    "GAP_FILL_PROMPT",
    ("passages", "orders"),
    PromptError,
)


def passage_tokens(text: str, fields: Sequence[str], film: FilmFacts | None = None) -> int:
    """Estimate the tokens that a passage adds to a prompt, with its fences and its order."""
    fences = estimate_tokens(_fenced(KEY_LIKE_ANY, ""))
    order = estimate_tokens(_order(KEY_LIKE_ANY, Wanted("", "", tuple(fields), film)))
    return estimate_tokens(text) + fences + order


def output_tokens(fields: Sequence[str]) -> int:
    """Estimate the tokens of a passage's part of an answer."""
    return OUTPUT_TOKENS["key"] + sum(OUTPUT_TOKENS[field] for field in fields)


def _schema(
    keys: Sequence[str], fields: Sequence[str], wanted: Sequence[Wanted]
) -> dict[str, JsonValue]:
    """Return the JSON Schema of an answer; fields that every passage lacks are required."""
    shapes: dict[str, JsonValue] = {
        "summary": {"type": "string"},
        "themes": {"type": "array", "items": {"type": "string"}},
        "characters": {"type": "array", "items": {"type": "string"}},
        "mood": {"type": "string", "enum": list(MOODS)},
    }
    always = [field for field in fields if all(field in item.fields for item in wanted)]
    return answer_schema(keys, {field: shapes[field] for field in fields}, always)


def _order(key: str, item: Wanted) -> str:
    film = "" if item.film is None else item.film.named
    about = f" about the film {film}" if film else ""
    return f"Passage {key}{about}: fill in {', '.join(item.fields)}."


def _fenced(key: str, text: str) -> str:
    return f"=== passage {key} ===\n{text}\n=== end {key} ==="
