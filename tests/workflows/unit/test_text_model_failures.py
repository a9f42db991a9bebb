"""Failures of a call: one class each, that says what may be done; and how HTTP errors are read."""

from __future__ import annotations

import pickle

import pytest
from pydantic import JsonValue, SecretStr

from tasks.text_model import failures
from tasks.text_model.base import Billed, estimate_tokens
from tasks.text_model.failures import ModelFailure
from tasks.text_model.gemini import Reply, http_failure, read_reply
from tasks.text_model.replies import is_spent
from tests.workflows.text_requests import text_request

KINDS = ModelFailure.__subclasses__()
KEY = SecretStr("hush")


def read(status: int, body: JsonValue, headers: dict[str, str] | None = None) -> ModelFailure:
    return http_failure(status, body, model="gemini-x", key=KEY, headers=headers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_says_what_may_be_done(kind: type[ModelFailure]) -> None:
    """Its name in counts is its own; what is fatal is not split, nor asked again without end."""
    assert [one.kind for one in KINDS].count(kind.kind) == 1
    assert kind.kind.replace("_", "").isalpha()
    assert not (kind.fatal and kind.splittable)
    assert not (kind.fatal and kind.retryable)
    assert kind.fatal or kind.retryable or kind.splittable


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_survives_being_sent(kind: type[ModelFailure]) -> None:
    """Celery pickles what a task raises."""
    told = kind("a sentence", retry_after=1.5, billed=Billed(2, 3, "m"))
    sent = pickle.loads(pickle.dumps(told))
    assert type(sent) is kind
    assert str(sent) == "a sentence"
    assert (sent.retry_after, sent.billed) == (1.5, Billed(2, 3, "m"))


def test_a_failure_needs_a_sentence() -> None:
    """One without words cannot exist."""
    with pytest.raises(TypeError, match="ServerFailed"):
        failures.ServerFailed("")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"error": {"message": "slow"}}, failures.RateLimited),
        (500, "<html>oh</html>", failures.ServerFailed),
        (502, None, failures.ServerFailed),
        (504, {}, failures.ServerFailed),
        (599, [], failures.ServerFailed),
        (503, [{"error": {"message": "in a list, as streams have it"}}], failures.Unavailable),
        (401, {"error": "odd"}, failures.Unauthorized),
        (403, {"error": {"message": None}}, failures.Unauthorized),
        (400, {"error": {"message": "API key expired. Renew it."}}, failures.Unauthorized),
        (400, {"error": {"details": [{"reason": "API_KEY_INVALID"}]}}, failures.Unauthorized),
        (400, {"error": {"message": "Request payload size exceeds the limit"}}, failures.TooLong),
        (413, "", failures.TooLong),
        (404, 7, failures.ModelNotFound),
        (400, {"error": {"message": "User location is not supported"}}, failures.BadRequest),
        (302, "", failures.BadRequest),
        (408, "", failures.ModelTimeout),
    ],
)
def test_a_status_has_its_class(status: int, body: JsonValue, kind: type[ModelFailure]) -> None:
    """Whatever the body is, also one that no service of Gemini's would send."""
    failure = read(status, body)
    assert type(failure) is kind
    assert str(status) in str(failure)
    assert "gemini-x" in str(failure)


def test_a_refused_word_for_thinking_names_the_variables() -> None:
    """As the first call is told, and not the thousandth."""
    body: JsonValue = {"error": {"message": "thinking_budget is not supported"}}
    told = str(read(400, body))
    assert "TEXT_MODEL_THINKING_LEVEL from Gemini 3 on" in told


def limited(*details: JsonValue) -> JsonValue:
    return {"error": {"message": "slow", "details": list(details)}}


@pytest.mark.parametrize(
    ("violation", "kind"),
    [
        ({"quotaId": "GenerateRequestsPerMinutePerProject"}, failures.RateLimited),
        ({"quotaId": "GenerateRequestsPerDayPerProject-FreeTier"}, failures.QuotaExhausted),
        ({"quotaId": "Anything", "quotaValue": "0"}, failures.QuotaExhausted),
        ({"quotaId": "SpendLimitPerMonth"}, failures.QuotaExhausted),
        ("odd", failures.RateLimited),
    ],
)
def test_a_quota_of_a_day_is_not_waited_for(violation: JsonValue, kind: type[ModelFailure]) -> None:
    """Nor one that is nothing."""
    assert type(read(429, limited({"violations": [violation]}))) is kind


BILLING = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("said", "details", "kind"),
    [
        ("Your project has exceeded its monthly spending cap.", [], failures.QuotaExhausted),
        ("Your prepayment credits are depleted.", [], failures.QuotaExhausted),
        (BILLING, [], failures.QuotaExhausted),
        (BILLING, [{"retryDelay": "3600s"}], failures.QuotaExhausted),
        (BILLING, [{"retryDelay": "12s"}], failures.RateLimited),
        (BILLING, [{"violations": [{"quotaId": "TokensPerMinute"}]}], failures.RateLimited),
        ("Resource has been exhausted (e.g. check quota).", [], failures.RateLimited),
    ],
)
def test_a_limit_of_what_is_spent_is_none_of_the_rate(
    said: str, details: list[JsonValue], kind: type[ModelFailure]
) -> None:
    """In both directions: what the service names counts before its words, which are alike."""
    document: JsonValue = {"error": {"message": said, "details": details}}
    assert type(read(429, document)) is kind


@pytest.mark.parametrize(
    ("code", "form", "wait", "is_it"),
    [
        ("insufficient_quota", "insufficient_quota", None, True),
        (None, "insufficient_quota", None, True),
        ("billing_hard_limit_reached", "billing", None, True),
        ("insufficient_quota", "insufficient_quota", 3600.0, True),
        ("insufficient_quota", "insufficient_quota", 20.0, False),
        ("rate_limit_exceeded", "requests", 1.0, False),
        ("rate_limit_exceeded", "tokens", None, False),
    ],
)
def test_openais_form_of_such_a_limit(
    code: str | None, form: str, wait: float | None, is_it: bool
) -> None:
    """By its code or its type, unless it names a wait that is short."""
    assert is_spent((code, form), wait) is is_it


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("0.05s", 0.05), ("12s", 12.0), ("soon", None), ("-3s", None), ("nans", None), (7, 7.0)],
)
def test_the_time_to_wait_is_read(delay: JsonValue, seconds: float | None) -> None:
    """In seconds; what is no time counts as none."""
    assert read(429, limited({"retryDelay": delay})).retry_after == seconds


def test_a_retry_after_header_counts_where_the_body_says_nothing() -> None:
    """As a proxy before the service sends it."""
    assert read(503, "", {"Retry-After": "9"}).retry_after == 9.0
    assert read(429, limited({"retryDelay": "2s"}), {"retry-after": "9"}).retry_after == 2.0


def test_long_words_of_the_service_are_cut() -> None:
    """An error page is no sentence."""
    assert len(str(read(500, "x" * 100_000))) < 500


@pytest.mark.parametrize("text", ["[]", "7", "null", '{"other": 1}', "{", "[" * 100_000])
def test_what_is_not_of_the_shape_is_malformed(text: str) -> None:
    """And was billed."""
    reply = Reply(text, "STOP", "", Billed(5, 6, "m"))
    with pytest.raises(failures.MalformedAnswer) as caught:
        read_reply(reply, text_request({"k": "t"}))
    assert caught.value.billed == Billed(5, 6, "m")


def test_an_answer_without_a_reason_is_taken_if_it_is_whole() -> None:
    """A stream that was cut is no JSON; one that was not is as good as any."""
    reply = Reply('{"items": []}', "", "", Billed(5, 6, "m"))
    assert read_reply(reply, text_request({"k": "t"})).text == '{"items": []}'


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 1), ("abcd", 1), ("abcde", 2), ("日本語", 3), ("Привет", 3), ("\ud800", 1)],
)
def test_tokens_are_estimated_by_bytes(text: str, tokens: int) -> None:
    """Four a token: four characters of English, fewer of scripts that take more tokens."""
    assert estimate_tokens(text) == tokens
