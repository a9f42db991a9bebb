"""Requests of batch jobs, and how replies are joined to them."""

from __future__ import annotations

import json

import pytest

from tasks.filling.job_requests import as_sent, join, new_request
from tasks.movie_bible.jobs import StoredRequest
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model.base import TextAnswer
from tasks.text_model.failures import JobExpired, PromptBlocked
from tasks.text_model.jobs import KeyedReply
from tests.workflows.filling_support import PROMPT


def passage(name: str, text: str = "a text", digest: str = "d") -> ScannedPassage:
    return ScannedPassage(name, text, digest, "plot", None, None, None, stale=False)


def request(nonce: str) -> StoredRequest:
    both = [(passage(f"{nonce}/1"), ("summary",)), (passage(f"{nonce}/2"), ("summary", "mood"))]
    return new_request("JOB", nonce, both, PROMPT)


A, B = request("aa"), request("bb")


def reply(to: StoredRequest, *, key: str | None = None, digest: str | None = None) -> KeyedReply:
    """A good reply, under another key or with another digest where one is given."""
    text = json.dumps({"request": to.key, "digest": digest or to.digest, "items": []})
    return KeyedReply(to.key if key is None else key, TextAnswer(text, 3, 2, "m"))


def outcome(*replies: KeyedReply) -> dict[str, str]:
    """What has come of A and B: the kind of failure, or "answered"."""
    settled = join([A, B], replies, None).settled
    return {k: "answered" if s.failure is None else s.failure.kind for k, s in settled.items()}


@pytest.mark.parametrize(
    ("replies", "of_a", "of_b"),
    [
        ([reply(B), reply(A)], "answered", "answered"),
        ([reply(A, key=""), reply(B, key="")], "answered", "answered"),
        ([reply(A, key="bb"), reply(B, key="aa")], "answer_swapped", "answer_swapped"),
        ([reply(A, key="bb")], "answer_missing", "answer_swapped"),
        ([reply(A, digest=B.digest), reply(B)], "answer_swapped", "answered"),
        ([reply(A), reply(A), reply(B)], "answer_doubled", "answered"),
        ([reply(A), reply(A, key=""), reply(B)], "answer_doubled", "answered"),
        ([reply(A)], "answered", "answer_missing"),
        ([], "answer_missing", "answer_missing"),
        ([KeyedReply("aa", failure=PromptBlocked("no")), reply(B)], "prompt_blocked", "answered"),
    ],
)
def test_replies_are_joined_by_key_and_digest(
    replies: list[KeyedReply], of_a: str, of_b: str
) -> None:
    assert outcome(*replies) == {"aa": of_a, "bb": of_b}


def test_all_that_was_billed_is_kept() -> None:
    """Of doubled answers each, of foreign ones too; of an error under no key nothing is known."""
    error = KeyedReply("", failure=PromptBlocked("no"))
    joined = join([A, B], [reply(A), reply(A), reply(B, key="nobody"), error], None)
    assert [len(joined.settled[key].bills) for key in ("aa", "bb")] == [2, 0]
    assert [bill.tokens_in for _, bill in joined.foreign] == [3]


def test_what_a_job_left_has_the_failure_of_the_job() -> None:
    joined = join([A, B], [reply(A)], JobExpired("over"))
    assert joined.settled["aa"].failure is None
    assert isinstance(joined.settled["bb"].failure, JobExpired)


def test_a_request_brings_its_key_and_digest_back() -> None:
    """As its schema says; keys of items are of the same nonce, and the digest is of all of it."""
    there = {one.passage: passage(one.passage) for one in A.passages}
    sent = as_sent(A, there, PROMPT, timeout=60, room=1)
    assert sent is not None
    schema = sent.request.schema
    assert schema["required"] == ["request", "digest", "items"]
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert properties["request"] == {"type": "string", "enum": ["aa"]}
    assert properties["digest"] == {"type": "string", "enum": [A.digest]}
    assert [one.key for one in sent.request.texts] == ["aa-1", "aa-2"]
    assert (sent.key, sent.request.tier) == ("aa", "batch")
    assert request("aa").digest == A.digest != B.digest


def test_a_text_that_has_changed_is_not_sent() -> None:
    """Nor one that is gone: the request is about another text."""
    there = {one.passage: passage(one.passage) for one in A.passages}
    assert (
        as_sent(A, {**there, "aa/1": passage("aa/1", digest="e")}, PROMPT, timeout=1, room=1)
        is None
    )
    assert as_sent(A, {"aa/1": there["aa/1"]}, PROMPT, timeout=1, room=1) is None
