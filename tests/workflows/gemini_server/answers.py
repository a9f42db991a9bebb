"""Answers that satisfy a request's schema, made from the passages that its prompt fences."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from tests.workflows.gemini_server.script import Fault

Json = dict[str, JsonValue]

FENCED: Final = re.compile(
    r"^=== passage (?P<key>\S+) ===\n(?P<text>.*?)\n=== end (?P=key) ===$", re.DOTALL | re.MULTILINE
)
OF_ITEMS: Final = frozenset({"missing", "doubled", "invalid"})
OLD_TYPES: Final = ("", "string", "number", "integer", "boolean", "array", "object")
"""Names of types by their numbers in the old SDK's messages."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: the keys that the schema allows, each one's text, the fields."""

    keys: tuple[str, ...]
    texts: dict[str, str]
    fields: dict[str, Json]
    text: str
    echo: Json = field(default_factory=dict)
    """What the answer must bring back, as the schema has it."""

    @property
    def tokens(self) -> int:
        """The prompt's tokens, as this server counts them."""
        return tokens(self.text)


def tokens(text: str) -> int:
    """A token for four bytes of UTF-8, rounded up."""
    return -(-len(text.encode()) // 4)


def read_request(body: Json) -> Asked:
    """Read a body of generateContent, of either SDK. Raises ValueError with a sentence."""
    prompt = "".join(_texts(body.get("contents")))
    if not prompt:
        raise ValueError("* GenerateContentRequest.contents: contents is not specified")
    config = body.get("generationConfig", {})
    if not isinstance(config, dict):
        raise ValueError("Invalid value at 'generation_config'")  # noqa: TRY004 - of the request
    schema = config.get("responseJsonSchema", config.get("responseSchema"))
    if schema is not None and config.get("responseMimeType") != "application/json":
        raise ValueError("responseSchema needs the response mime type application/json")
    texts = {match["key"]: match["text"] for match in FENCED.finditer(prompt)}
    fields = item_fields(schema)
    key_schema = fields.pop("key", {})
    choices = key_schema.get("enum")
    keys = tuple(str(key) for key in choices) if isinstance(choices, list) else tuple(texts)
    whole = "".join(_texts(body.get("systemInstruction"))) + prompt
    return Asked(keys, texts, fields, whole, _echo(schema))


def _texts(contents: JsonValue) -> list[str]:
    """The texts of one content or a list of them."""
    found: list[str] = []
    for content in contents if isinstance(contents, list) else [contents]:
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else [parts]:
            text = part.get("text") if isinstance(part, dict) else None
            found += [text] if isinstance(text, str) else []
    return found


def item_fields(schema: JsonValue) -> dict[str, Json]:
    """The properties of an item: what stands at properties.items.items.properties."""
    place = schema
    for step in ("properties", "items", "items", "properties"):
        place = place.get(step) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return {}
    return {name: shape for name, shape in place.items() if isinstance(shape, dict)}


def _echo(schema: JsonValue) -> Json:
    """The members beside the items, each with the one value that the schema allows."""
    members = schema.get("properties") if isinstance(schema, dict) else None
    found: Json = {}
    for name, shape in members.items() if isinstance(members, dict) else ():
        choices = shape.get("enum") if isinstance(shape, dict) else None
        if isinstance(choices, list) and choices:
            found[name] = choices[0]
    return found


def items(asked: Asked) -> list[Json]:
    """One item for each key that the schema allows, in its order."""
    return [
        {
            "key": key,
            **{
                name: filled(name, asked.texts.get(key, ""), shape)
                for name, shape in asked.fields.items()
            },
        }
        for key in asked.keys
    ]


def filled(name: str, text: str, shape: Mapping[str, JsonValue]) -> JsonValue:
    """The value of a field for a passage: the same for the same text, and unlike others'.

    A number is the highest that is allowed, so that a judge praises whatever it reads: the prompt's
    text holds keys of chance, and a draw by it would be one of luck.
    """
    digest = hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
    choices = shape.get("enum")
    if isinstance(choices, list) and choices:
        return choices[int(digest[:8], 16) % len(choices)]
    kind = shape.get("type")
    kind = OLD_TYPES[kind] if isinstance(kind, int) else str(kind).lower()
    words = " ".join(text.split()[:6])
    if kind == "array":
        return [f"{name} {digest[:6]}", f"{name} {digest[6:12]}"]
    if kind in {"integer", "number"}:
        most = shape.get("maximum")
        return most if isinstance(most, int) else int(digest[:4], 16)
    return f"{name} of {words} ({digest[:12]})"


def document(found: list[Json], echo: Json) -> str:
    """The answer's text."""
    return json.dumps({**echo, "items": found}, ensure_ascii=False)


def written(fault: Fault, asked: Asked, sick: list[str]) -> tuple[str | None, str]:
    """The answer's text (None: no part) and its finish reason, as the fault has it."""
    found = items(asked)
    chosen = [place for place, item in enumerate(found) if item["key"] in sick]
    if fault.kind in OF_ITEMS:
        found = _marred(found, fault.kind, chosen or [0])
    if fault.kind == "foreign":
        found = [*found, {**(found[0] if found else {}), "key": "nobody-0"}]
    text = document(found, asked.echo)
    if fault.kind == "cut_off":
        return text[: len(text) // 2], "MAX_TOKENS"
    if fault.kind == "malformed_json":
        return text[: len(text) // 2], "STOP"
    if fault.kind == "not_an_object":
        return json.dumps(found), "STOP"
    if fault.kind == "blocked_answer":
        return None, fault.reason
    if fault.kind == "no_parts":
        return None, "STOP"
    return text, "STOP"


def _marred(found: list[Json], kind: str, places: list[int]) -> list[Json]:
    """The items, with those at ``places`` left out, twice there, or of wrong types."""
    marred: list[Json] = []
    for place, item in enumerate(found):
        if place not in places:
            marred.append(item)
        elif kind == "doubled":
            marred += [item, item]
        elif kind == "invalid":
            wrong: Json = {name: 7 if name != "key" else value for name, value in item.items()}
            marred.append(wrong)
    return marred
