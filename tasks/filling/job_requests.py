"""Make the requests of a batch job, and join its replies to them: by key and digest alone.

Each answer must bring back the random key and the digest of its request, as its schema says. So
what comes under a wrong key is noticed, whatever the service did.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import JsonValue

from tasks.filling.prompts import Prompt, Wanted
from tasks.movie_bible.jobs import AskedPassage, StoredRequest
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model.base import BATCH, Billed, TextAnswer
from tasks.text_model.failures import (
    AnswerDoubled,
    AnswerMissing,
    AnswerSwapped,
    JobCancelled,
    JobExpired,
    JobFailed,
    ModelFailure,
)
from tasks.text_model.jobs import ENVELOPE, JobState, KeyedReply, KeyedRequest, ServiceJob

ENDED_WITHOUT: Final[Mapping[JobState, type[ModelFailure]]] = {
    "failed": JobFailed,
    "cancelled": JobCancelled,
    "expired": JobExpired,
}


def new_request(
    job: str, nonce: str, passages: Sequence[tuple[ScannedPassage, tuple[str, ...]]], prompt: Prompt
) -> StoredRequest:
    """Return a request for some passages and their fields, under a key that cannot be guessed."""
    asked = tuple(
        AskedPassage(f"{nonce}-{number}", passage.id, fields, passage.text_digest)
        for number, (passage, fields) in enumerate(passages, 1)
    )
    told = json.dumps([prompt.digest, [one.as_json() for one in asked]], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:32]
    return StoredRequest(nonce, job, digest, asked)


def as_sent(
    request: StoredRequest,
    passages: Mapping[str, ScannedPassage],
    prompt: Prompt,
    *,
    timeout: float,
    room: int,
) -> KeyedRequest | None:
    """Return the request as the model gets it; None where a text is not the one of that time."""
    wanted: list[Wanted] = []
    for one in request.passages:
        passage = passages.get(one.passage)
        if passage is None or passage.text_digest != one.text_digest:
            return None
        wanted.append(Wanted(passage.id, passage.text, one.fields, passage.film))
    asked = prompt.ask(wanted, timeout=timeout, room=room, nonce=request.key).request
    schema = _with_envelope(asked.schema, request.key, request.digest)
    return KeyedRequest(request.key, replace(asked, schema=schema, tier=BATCH))


def _with_envelope(schema: Mapping[str, JsonValue], key: str, digest: str) -> dict[str, JsonValue]:
    properties = schema["properties"]
    assert isinstance(properties, dict)
    back: dict[str, JsonValue] = {
        "request": {"type": "string", "enum": [key]},
        "digest": {"type": "string", "enum": [digest]},
    }
    return {**schema, "properties": {**back, **properties}, "required": [*ENVELOPE]}


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of one request: the answer that counts, or a failure; and all its bills."""

    answer: TextAnswer | None
    failure: ModelFailure | None
    bills: tuple[Billed, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome of each request of a job, by key.

    ``foreign`` are other answers: a sentence, and the bill.
    """

    settled: dict[str, Settled]
    foreign: list[tuple[str, Billed]] = field(default_factory=list)


def absence(job: ServiceJob) -> ModelFailure | None:
    """Return the failure of requests that a job which has ended so leaves without an answer.

    None: there is no other reason than that it is missing.
    """
    kind = ENDED_WITHOUT.get(job.state)
    if kind is None:
        return None
    return kind(f"the job {job.name} has ended as {job.state}, without an answer to it")


def join(
    requests: Sequence[StoredRequest], replies: Iterable[KeyedReply], absent: ModelFailure | None
) -> Joined:
    """Join replies to requests. ``absent`` is the failure of those without one, else it is missing.

    A reply counts for the key that it comes under, or that it brings back where it comes under
    none, and only if it brings back that very key and its digest, and no other reply has it.
    """
    asked = {one.key: one for one in requests}
    found: dict[str, list[KeyedReply]] = defaultdict(list)
    foreign: list[tuple[str, Billed]] = []
    for reply in replies:
        key = reply.key or _brought_back(reply.answer)[0]
        if key in asked:
            found[key].append(reply)
        elif reply.billed != Billed() or reply.answer is not None:
            said = f"the job has an answer under {key[:40]!r}, which it was not asked for"
            foreign.append((said, reply.billed))
    missing = absent or AnswerMissing("the job has ended, and has no answer under its key")
    settled = {key: _settled(one, found[key], missing) for key, one in asked.items()}
    return Joined(settled, foreign)


def _settled(
    request: StoredRequest, replies: Sequence[KeyedReply], missing: ModelFailure
) -> Settled:
    bills = tuple(one.billed for one in replies)
    if not replies:
        return Settled(None, missing)
    if len(replies) > 1:
        said = f"the job has {len(replies)} answers under one key, and none of them is used"
        return Settled(None, AnswerDoubled(said), bills)
    (reply,) = replies
    if reply.answer is None:
        return Settled(None, reply.failure, bills)
    key, digest = _brought_back(reply.answer)
    if (key, digest) != (request.key, request.digest):
        said = f"the answer under {request.key} brings back {key[:40]!r}: it is to another request"
        return Settled(None, AnswerSwapped(said), bills)
    return Settled(reply.answer, None, bills)


def _brought_back(answer: TextAnswer | None) -> tuple[str, str]:
    """Return the key and the digest within an answer; "" where there is none."""
    told = {} if answer is None else json.loads(answer.text)
    key, digest = told.get("request"), told.get("digest")
    return key if isinstance(key, str) else "", digest if isinstance(digest, str) else ""
