"""Decide by a Gemini model's name which parameters it takes, and how little it can think."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from tasks.text_model.base import STANDARD
from tasks.text_model.failures import TextModelError
from tasks.text_model.settings import GOOGLE_GENERATIVEAI, TextModelSettings, ThinkingLevel

NAME: Final = re.compile(r"^gemini-(?P<major>\d+)(?:\.(?P<minor>\d+))?-(?P<kind>[a-z][a-z-]*)")
ROOM: Final[dict[ThinkingLevel, int]] = {
    "minimal": 1024,
    "low": 4096,
    "medium": 16_384,
    "high": 32_768,
}
"""Output tokens left for the thoughts of a model that is told a level, not a number."""

LEAST_BUDGET: Final = {"flash": 0, "pro": 128}
"""The fewest tokens that a model of 2.5 can be told to think, by how its kind begins."""

Version = tuple[int, int]
THINKS: Final[Version] = (2, 5)
HAS_LEVELS: Final[Version] = (3, 0)
ONLY_LEVELS: Final[Version] = (3, 5)
"""From here on a number of tokens to think is refused, and sampling cannot be changed."""
NO_MINIMAL: Final[Version] = (3, 8)


@dataclass(frozen=True, slots=True)
class Thinking:
    """The word to a model on thinking: a number of tokens, a level, or (both None) none."""

    tokens: int | None = None
    level: ThinkingLevel | None = None

    @property
    def room(self) -> int:
        """Return the output tokens that thoughts may take beside the answer."""
        return ROOM[self.level] if self.level is not None else self.tokens or 0


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters that a model takes.

    ``sampling`` stands for temperature and top_p, ``candidates`` for their number.
    """

    sampling: bool
    candidates: bool
    thinking: Thinking


def version_of(name: str) -> Version | None:
    """Return ``(3, 5)`` for gemini-3.5-flash; None for a name that has no version."""
    match = NAME.match(name)
    return None if match is None else (int(match["major"]), int(match["minor"] or 0))


def thinks(name: str) -> bool:
    """Return whether a model thinks, as far as its name says."""
    version = version_of(name)
    return version is None or version >= THINKS


def parameters(settings: TextModelSettings) -> Parameters:
    """Return what the model of the settings takes; of a name without a version, the least.

    Raises TextModelError where the settings have a word that it, or its SDK, does not take.
    """
    version = version_of(settings.name)
    if settings.service_tier != STANDARD and settings.provider == GOOGLE_GENERATIVEAI:
        raise TextModelError(
            f"TEXT_MODEL_SERVICE_TIER is {settings.service_tier}, for which {GOOGLE_GENERATIVEAI} "
            "has no word; unset it, or set TEXT_MODEL=google-genai"
        )
    return Parameters(
        sampling=version is not None and version < ONLY_LEVELS,
        candidates=version is not None and version < HAS_LEVELS,
        thinking=_thinking(settings, version),
    )


def _thinking(settings: TextModelSettings, version: Version | None) -> Thinking:
    tokens, level, name = settings.thinking_tokens, settings.thinking_level, settings.name
    if level is not None and settings.provider == GOOGLE_GENERATIVEAI:
        raise TextModelError(
            f"TEXT_MODEL_THINKING_LEVEL is {level}, for which {GOOGLE_GENERATIVEAI} has no word; "
            "unset it, or set TEXT_MODEL=google-genai"
        )
    if tokens is not None and level is not None:
        raise TextModelError(
            "TEXT_MODEL_THINKING_TOKENS and TEXT_MODEL_THINKING_LEVEL are both set, and a model "
            "takes one of them; unset one"
        )
    if tokens is not None and version is not None and version >= ONLY_LEVELS:
        raise TextModelError(
            f"TEXT_MODEL_THINKING_TOKENS is {tokens}, and {name} takes a level, no number; "
            "set TEXT_MODEL_THINKING_LEVEL to minimal, low, medium or high instead"
        )
    if level is not None and version is not None and version < HAS_LEVELS:
        raise TextModelError(
            f"TEXT_MODEL_THINKING_LEVEL is {level}, and {name} takes no level; "
            "set TEXT_MODEL_THINKING_TOKENS to a number instead"
        )
    if tokens is not None or level is not None:
        return Thinking(tokens, level)
    return _least(name, version)


def _least(name: str, version: Version | None) -> Thinking:
    """Return the least that a model can think: filling in fields needs no thought."""
    match = NAME.match(name)
    if match is None or version is None or version < THINKS:
        return Thinking()
    kind: Literal["flash", "pro"] = "pro" if match["kind"].startswith("pro") else "flash"
    if version < HAS_LEVELS:
        return Thinking(tokens=LEAST_BUDGET[kind])
    return Thinking(level="low" if kind == "pro" or version >= NO_MINIMAL else "minimal")
