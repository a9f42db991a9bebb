"""Define what every language model takes and gives, for everything else to rely on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from pydantic import JsonValue

BYTES_PER_TOKEN: Final = 4
MOST_TOKENS: Final = 1_000_000_000
"""No call is billed more; a larger count is a mistake, and its cost would fit into no column."""

Tier = Literal["standard", "flex", "batch", "priority"]
"""How urgent a call is to its service, which prices it by that."""

STANDARD: Final = "standard"
FLEX: Final = "flex"
BATCH: Final = "batch"


@dataclass(frozen=True, slots=True)
class KeyedText:
    """One passage of a request, under the key that the answer must name it by."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One call, at a ``tier``. ``timeout`` is in seconds, ``max_output_tokens`` in the model's own.

    ``schema`` is the JSON Schema of the answer: an object with ``items``, one object a passage with
    its ``key`` and the wanted ``fields``. ``texts`` holds the passages once more, for models that
    read no prompt.
    """

    instructions: str
    prompt: str = field(repr=False)
    schema: dict[str, JsonValue] = field(repr=False)
    texts: tuple[KeyedText, ...] = field(repr=False)
    fields: tuple[str, ...]
    max_output_tokens: int
    timeout: float
    temperature: float = 0.0
    tier: Tier = STANDARD

    @property
    def estimated_tokens(self) -> int:
        """Estimate the input tokens that the call takes of a budget, without asking the model."""
        return estimate_tokens(self.instructions) + estimate_tokens(self.prompt)


@dataclass(frozen=True, slots=True)
class Billed:
    """The bill of one call, at its tier; ``cached`` is part of the input tokens.

    ``model`` is what answered, by its own word; "" where unknown. Raises ValueError for counts that
    are none, before they can make a cost wrong, and TypeError for a name that is none.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ""
    cached: int = 0
    tier: Tier = STANDARD

    def __post_init__(self) -> None:
        for name in ("tokens_in", "tokens_out", "cached"):
            told = getattr(self, name)
            if type(told) is not int or not 0 <= told <= MOST_TOKENS:
                raise ValueError(f"{name} of a call is {told!r:.40}, which is no count of tokens")
        if not isinstance(self.model, str):
            raise TypeError(f"the model that answered is {self.model!r:.40}, which is no name")


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """JSON text as the model wrote it, the tokens billed for it, and the model that answered.

    ``model`` is what the service says, and never what was asked for; "" where it says nothing.
    ``cached`` of the input tokens were billed as such, all at the price of ``tier``.
    """

    text: str
    tokens_in: int
    tokens_out: int
    model: str
    cached: int = 0
    tier: Tier = STANDARD

    @property
    def billed(self) -> Billed:
        """Return what the call was billed."""
        return Billed(self.tokens_in, self.tokens_out, self.model, self.cached, self.tier)


class TextModel(Protocol):
    """A language model. One instance serves any number of threads; calls block."""

    @property
    def provider(self) -> str:
        """Return ``google-genai``, ``google-generativeai``, ``offline`` or a factory's own name."""

    @property
    def name(self) -> str:
        """Return the model's name as prices and provenance know it, without ``models/``."""

    def generate(self, request: TextRequest) -> TextAnswer:
        """Answer one request, once: retries are the caller's. Raises ModelFailure."""

    def close(self) -> None:
        """Give the connections back. A closed model answers nothing more; closing again is fine."""


def estimate_tokens(text: str) -> int:
    """Estimate a text's tokens: its UTF-8 bytes over four, rounded up, and at least 1.

    For English that is the usual four characters a token. Other scripts have more bytes a
    character and more tokens too, so bytes follow them better than characters would.
    """
    size = len(text.encode("utf-8", errors="replace"))
    return max(1, -(-size // BYTES_PER_TOKEN))
