"""Spoil copies of rows in known ways, to find out what a judge notices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

Values = dict[str, JsonValue]

FOREIGN: Final = (
    "Der Film erzählt von einem Mann, der nach vielen Jahren in seine Stadt zurückkehrt und dort "
    "niemanden mehr kennt."
)
REFUSAL: Final = "I'm sorry, but as an AI language model I cannot summarise this passage."
STRANGERS: Final = ("Bartholomew Quigg", "Ottoline Farnsby", "Thaddeus Brackenridge")
FEWEST_WORDS: Final = 8
"""Words of a summary that is long enough to be cut off."""


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A copy of a row's values, and in which way it was spoiled."""

    kind: str
    values: Values


def spoil(values: Mapping[str, JsonValue], other: Mapping[str, JsonValue], kind: str) -> Values:
    """Return the values spoiled in this way; ``other`` are those of another passage.

    Values that this way cannot spoil are returned as they are.
    """
    return WAYS[kind](dict(values), other)


def spoil_some_way(
    values: Mapping[str, JsonValue],
    other: Mapping[str, JsonValue],
    kinds: Sequence[str],
    *,
    turn: int,
) -> Spoiled | None:
    """Spoil the values in the ``turn``-th of these ways, or in the next one that changes them.

    Returns None where none does.
    """
    for step in range(len(kinds)):
        kind = kinds[(turn + step) % len(kinds)]
        spoiled = spoil(values, other, kind)
        if spoiled != dict(values):
            return Spoiled(kind, spoiled)
    return None


def rank(seed: int, purpose: str, passage: str) -> str:
    """Return a passage's place in a draw: those with the smallest are drawn.

    It depends on nothing else, so a larger sample of the same seed contains the smaller one.
    """
    return hashlib.sha256(f"{seed}\0{purpose}\0{passage}".encode()).hexdigest()


def _other_summary(values: Values, other: Mapping[str, JsonValue]) -> Values:
    return _with_summary(values, lambda text: _text(other.get("summary")) or text)


def _cut_off(values: Values, _: Mapping[str, JsonValue]) -> Values:
    def cut(text: str) -> str:
        words = text.split()
        if len(words) < FEWEST_WORDS:
            return text
        return " ".join(words[: len(words) // 2]).rstrip(".,;:!?")

    return _with_summary(values, cut)


def _repeated(values: Values, _: Mapping[str, JsonValue]) -> Values:
    return _with_summary(values, lambda text: f"{text} {text} {text}")


def _foreign(values: Values, _: Mapping[str, JsonValue]) -> Values:
    return _with_summary(values, lambda _text: FOREIGN)


def _refusal(values: Values, _: Mapping[str, JsonValue]) -> Values:
    return _with_summary(values, lambda _text: REFUSAL)


def _strange_name(values: Values, _: Mapping[str, JsonValue]) -> Values:
    """Put a person into the characters who does not occur."""
    names = values.get("characters")
    if not isinstance(names, list):
        return values
    number = int(rank(0, "stranger", repr(names))[:8], 16) % len(STRANGERS)
    return {**values, "characters": [*names[1:], STRANGERS[number]]}


def _strange_name_in_summary(values: Values, _: Mapping[str, JsonValue]) -> Values:
    return _with_summary(values, lambda text: f"{text.rstrip()} It ends with {STRANGERS[0]}.")


def _other_themes(values: Values, other: Mapping[str, JsonValue]) -> Values:
    themes = other.get("themes")
    return {**values, "themes": themes} if themes and values.get("themes") else values


def _other_mood(values: Values, other: Mapping[str, JsonValue]) -> Values:
    mood = other.get("mood")
    return {**values, "mood": mood} if mood and values.get("mood") else values


def _with_summary(values: Values, change: Callable[[str], str]) -> Values:
    summary = _text(values.get("summary"))
    return {**values, "summary": change(summary)} if summary else values


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


WAYS: Final[Mapping[str, Callable[[Values, Mapping[str, JsonValue]], Values]]] = {
    "summary of another passage": _other_summary,
    "summary cut off": _cut_off,
    "summary repeated": _repeated,
    "summary in German": _foreign,
    "refusal for a summary": _refusal,
    "invented character": _strange_name,
    "invented name in the summary": _strange_name_in_summary,
    "themes of another passage": _other_themes,
    "mood of another passage": _other_mood,
}
"""Ways to spoil a row. The last two leave it well formed: only who understands it notices."""

NOTICEABLE: Final[Sequence[str]] = tuple(WAYS)[:-2]
"""The ways that a judge who understands nothing can notice."""

GROSS: Final = ("summary of another passage", "summary in German", "refusal for a summary")
"""The ways that every judge must notice; controls are spoiled in these."""
