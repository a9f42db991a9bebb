"""Load prompt templates: files with a version, identified by their digest.

``movie-bible/1`` is ``movie-bible/1.md`` in the folder of prompts: the instructions, a line
``---``, and the prompt. A file that was used is not changed: another wording is a new version.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from pydantic import JsonValue

from pytest_manifest.errors import ManifestToolError
from tasks.movie_bible.documents import FilmFacts
from tasks.movie_bible.fields import FIELDS, MOODS
from tasks.text_model.base import KeyedText, TextRequest, estimate_tokens

FOLDER: Final = Path(__file__).parent / "prompts"
DEFAULT_NAME: Final = "movie-bible"
DIVIDER: Final = "\n---\n"
VERSION: Final = re.compile(r"^(?P<name>[A-Za-z0-9_-]+)(?:/(?P<number>\d+))?$")

OUTPUT_TOKENS: Final[Mapping[str, int]] = {
    "key": 20,
    "summary": 90,
    "themes": 35,
    "characters": 35,
    "mood": 10,
}
"""What a field of one passage takes in an answer, punctuation included: for estimates."""
OUTPUT_ROOM: Final = 4
"""An answer may be so many times as long as estimated before it is cut off."""


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
class Asked:
    """A request, and which passage each of its keys stands for."""

    request: TextRequest
    by_key: Mapping[str, Wanted]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template: ``version`` is its name and number, ``digest`` SHA-256 of the file's bytes."""

    version: str
    digest: str
    instructions: str
    body: str

    def ask(
        self,
        wanted: Sequence[Wanted],
        *,
        timeout: float,
        room: int = 1,
        nonce: str | None = None,
    ) -> Asked:
        """Make the request for some passages, each under a key that cannot be guessed.

        ``timeout`` is in seconds; ``room`` allows an answer of so many times the usual length.
        The keys are those of the ``nonce``; without it they are new.
        """
        nonce = nonce or new_nonce()
        by_key = {f"{nonce}-{number}": item for number, item in enumerate(wanted, 1)}
        fields = tuple(field for field in FIELDS if any(field in w.fields for w in wanted))
        prompt = Template(self.body).substitute(
            orders="\n".join(_order(key, item) for key, item in by_key.items()),
            passages="\n\n".join(_fenced(key, item.text) for key, item in by_key.items()),
        )
        request = TextRequest(
            instructions=Template(self.instructions).substitute(moods=", ".join(MOODS)),
            prompt=prompt,
            schema=answer_schema(list(by_key), fields, wanted),
            texts=tuple(KeyedText(key, item.text) for key, item in by_key.items()),
            fields=fields,
            max_output_tokens=room
            * OUTPUT_ROOM
            * sum(output_tokens(item.fields) for item in wanted),
            timeout=timeout,
        )
        return Asked(request, by_key)

    def overhead_tokens(self) -> int:
        """Estimate the tokens of a call without its passages."""
        return estimate_tokens(self.instructions) + estimate_tokens(", ".join(MOODS))


def new_nonce() -> str:
    """Return what makes the keys of a call unlike all others."""
    return secrets.token_hex(6)


def passage_tokens(text: str, fields: Sequence[str], film: FilmFacts | None = None) -> int:
    """Estimate the tokens that a passage adds to a prompt, with its fences and its order."""
    fences = estimate_tokens(_fenced("0123456789ab-00", ""))
    order = estimate_tokens(_order("0123456789ab-00", Wanted("", "", tuple(fields), film)))
    return estimate_tokens(text) + fences + order


def output_tokens(fields: Sequence[str]) -> int:
    """Estimate the tokens of a passage's part of an answer."""
    return OUTPUT_TOKENS["key"] + sum(OUTPUT_TOKENS[field] for field in fields)


def answer_schema(
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
    properties: dict[str, JsonValue] = {"key": {"type": "string", "enum": list(keys)}}
    item: dict[str, JsonValue] = {
        "type": "object",
        "properties": properties | {field: shapes[field] for field in fields},
        "required": ["key", *always],
    }
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
    }


def load_prompt(version: str, folder: Path | None = None) -> Prompt:
    """Load the template ``NAME/NUMBER``, or the newest one of ``NAME``. Raises PromptError."""
    place = folder or FOLDER
    match = VERSION.match(version)
    if match is None:
        raise PromptError(f"prompt {version!r}: write it as NAME/NUMBER, like {DEFAULT_NAME}/1")
    name, number = match["name"], match["number"]
    known = sorted(int(p.stem) for p in (place / name).glob("*.md") if p.stem.isdigit())
    if not known:
        raise PromptError(
            f"prompt {version!r}: {place / name} has no template NUMBER.md; set GAP_FILL_PROMPT to "
            "one that is there, and GAP_FILL_PROMPTS to the folder that it is in"
        )
    chosen = known[-1] if number is None else int(number)
    path = place / name / f"{chosen}.md"
    if chosen not in known or not path.is_file():
        there = ", ".join(f"{name}/{one}" for one in known)
        raise PromptError(
            f"prompt {version!r}: there is no {path}; there are {there}: set GAP_FILL_PROMPT to one"
        )
    return _parse(f"{name}/{chosen}", path)


def _parse(version: str, path: Path) -> Prompt:
    content = path.read_bytes()
    try:
        instructions, divider, body = content.decode("utf-8").partition(DIVIDER)
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from None
    if not divider:
        raise PromptError(f"{path}: has no line '---' between the instructions and the prompt")
    for part, names in ((instructions, {"moods"}), (body, {"orders", "passages"})):
        _check_placeholders(path, part, names)
    if "passages" not in _placeholders(body):
        raise PromptError(f"{path}: the prompt below '---' must hold $passages")
    return Prompt(version, hashlib.sha256(content).hexdigest(), instructions.strip(), body.strip())


def _placeholders(text: str) -> set[str | None]:
    """Return the names that a template's placeholders have; None: for a '$' that is none."""
    found = Template.pattern.finditer(text)
    return {one["named"] or one["braced"] for one in found if one["escaped"] is None}


def _check_placeholders(path: Path, text: str, names: set[str]) -> None:
    found = _placeholders(text)
    if None in found:
        raise PromptError(f"{path}: a '$' that is no placeholder must be written as '$$'")
    unknown = {name for name in found if name} - names
    if unknown:
        known = " and ".join(f"${name}" for name in sorted(names))
        raise PromptError(f"{path}: ${min(unknown)} is not known there; use {known}")


def _order(key: str, item: Wanted) -> str:
    film = item.film
    about = ""
    if film is not None and film.title:
        year = f" ({film.year})" if film.year else ""
        about = f" about the film {one_line(film.title)}{year}"
    return f"Passage {key}{about}: fill in {', '.join(item.fields)}."


def one_line(text: str) -> str:
    """Join a text's lines, whose breaks could end the line that the text is put into."""
    return " ".join(text.split())


def _fenced(key: str, text: str) -> str:
    return f"=== passage {key} ===\n{text}\n=== end {key} ==="
