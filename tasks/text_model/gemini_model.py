"""Call a Gemini model by either SDK: one call, its chunks joined, its failures worded."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar, cast, get_args

from pydantic import SecretStr

from tasks.text_model.base import FLEX, STANDARD, Billed, TextAnswer, TextRequest, Tier
from tasks.text_model.failures import (
    ConnectionFailed,
    ModelFailure,
    ModelTimeout,
    RateLimited,
    Shed,
    Unavailable,
    UnreadableAnswer,
)
from tasks.text_model.gemini import Reply, Usage, read_reply
from tasks.text_model.parameters import parameters
from tasks.text_model.replies import hide, no_word, tokens
from tasks.text_model.settings import TextModelSettings


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a reply, or all of it; what it does not say is empty or None."""

    text: str
    finish_reason: str
    block_reason: str
    usage: Usage | None
    model: str
    tier: Tier | None = None


class GeminiModel(ABC):
    """A model reached by either SDK. A subclass retries nothing, and follows no redirect."""

    provider: ClassVar[str]
    tiers: ClassVar[frozenset[Tier]] = frozenset({STANDARD})
    """The tiers that a call can be asked at."""

    def __init__(self, settings: TextModelSettings, key: SecretStr) -> None:
        self.name = settings.name
        self._parameters = parameters(settings)
        self._key = key
        self._stream = settings.stream

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def generate(self, request: TextRequest) -> TextAnswer:
        """Answer one request, once. Raises ModelFailure."""
        if request.tier not in self.tiers:
            raise no_word(self.provider, request.tier)
        deadline = time.monotonic() + request.timeout
        failure: ModelFailure
        try:
            with closing(self._chunks(request)) as chunks:
                whole = until(chunks, deadline) if self._stream else chunks
                reply = joined(whole, request.tier)
        except ModelFailure as error:
            failure = error
        except Exception as error:
            found = self._failure(error, request.timeout)
            if found is None:
                raise
            failure = _shed(found) if request.tier == FLEX else found
        else:
            return read_reply(reply, request)
        # Outside the handler: the SDK's exception holds the request, and that the key.
        raise failure

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _chunks(self, request: TextRequest) -> Generator[Chunk]:
        """Ask once: the answer in chunks where it is streamed, else in one."""

    @abstractmethod
    def _failure(self, error: Exception, timeout: float) -> ModelFailure | None:
        """Return the failure that an exception of the SDK stands for; None for any other."""

    def _timed_out(self, timeout: float) -> ModelTimeout:
        return ModelTimeout(f"{self.name} did not answer within {timeout:g} s; ask again")

    def _broken(self, error: Exception) -> ConnectionFailed:
        said = self._said(error)
        return ConnectionFailed(
            f"the connection to {self.name} broke ({type(error).__name__}: {said}); ask again"
        )

    def _unreadable(self, error: Exception) -> UnreadableAnswer:
        said = self._said(error)
        return UnreadableAnswer(
            f"{self.name} sent a document that the SDK cannot read: {said!r}; ask it again"
        )

    def _said(self, error: Exception) -> str:
        return hide(str(error), self._key)[:200]


def until(chunks: Iterable[Chunk], deadline: float) -> Iterator[Chunk]:
    """Yield chunks up to the deadline, a time of the monotonic clock, then raise ModelTimeout."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise ModelTimeout("the answer's chunks came too slowly; ask again")
        yield chunk


def tier_of(told: str | None) -> Tier | None:
    """Return the tier that a header of the response tells; None where it tells none."""
    name = (told or "").lower()
    return cast("Tier", name) if name in get_args(Tier) else None


def _shed(failure: ModelFailure) -> ModelFailure:
    """Return what a failure is to a flex call: of this tier a service turns away what it likes."""
    if isinstance(failure, RateLimited | Unavailable):
        return Shed(str(failure), retry_after=failure.retry_after, billed=failure.billed)
    return failure


def joined(chunks: Iterable[Chunk], tier: Tier) -> Reply:
    """Join all chunks into one reply: their texts, and the last reasons and counts.

    ``tier`` is the one that was asked for, which holds unless the service tells another one.
    Chunks of several models make a reply of a model that has all their names, which nobody asked.
    """
    texts: list[str] = []
    models: dict[str, None] = {}
    finish, block, usage, served = "", "", Usage(), tier
    for chunk in chunks:
        texts.append(chunk.text)
        finish = chunk.finish_reason or finish
        block = chunk.block_reason or block
        usage = chunk.usage or usage
        served = chunk.tier or served
        if chunk.model:
            models[chunk.model.removeprefix("models/")] = None
    model = "+".join(models)
    prompt, output, cached = map(tokens, (usage.prompt, usage.billed_output, usage.cached))
    billed = Billed(prompt, output, model, min(cached, prompt), served)
    return Reply("".join(texts), finish, block, billed)
