"""Documents that a server which speaks OpenAI's format may send, and no service should."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import JsonValue

from tasks.text_model import failures
from tasks.text_model.base import Billed, TextModel
from tasks.text_model.choosing import open_model
from tasks.text_model.failures import ModelFailure
from tests.workflows.gemini_support import settings_of
from tests.workflows.text_requests import text_request

pytestmark = pytest.mark.live

MESSAGE: dict[str, JsonValue] = {"role": "assistant", "content": '{"items": []}'}
USAGE: dict[str, JsonValue] = {"prompt_tokens": 10, "completion_tokens": 5}
CACHED: dict[str, JsonValue] = {"cached_tokens": 4}


class Server(ThreadingHTTPServer):
    """Answers everything by ``body``."""

    status, body = 200, b""
    wait: Mapping[str, str] = {}
    """Its headers about when to ask again."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        for name, value in self.server.wait.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def model(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextModel]:
    monkeypatch.setenv("OPENAI_API_KEY", "any-word")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    factory = "tasks.text_model.openai_compatible:open_model"
    opened = open_model(settings_of(factory, url, given_name="small-1"))
    yield opened
    opened.close()


def completion(**changes: JsonValue) -> dict[str, JsonValue]:
    """A good completion with other members of its message, its usage or itself."""
    whole: dict[str, JsonValue] = {
        "object": "chat.completion",
        "model": changes.pop("model", "small-1"),
        "usage": {**USAGE, **{k: changes.pop(k) for k in list(changes) if "tokens" in k}},
    }
    choices: JsonValue = [{"finish_reason": "stop", "message": {**MESSAGE, **changes}}]
    return {**whole, "choices": changes.pop("choices", choices)}


def failure_of(model: TextModel) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        model.generate(text_request({"k-1": "a text"}))
    return caught.value


OF_ANOTHER_FORM: list[dict[str, JsonValue]] = [
    completion(content=[{"type": "text", "text": "{}"}]),
    completion(content=5),
    completion(refusal={"because": "no"}),
    completion(choices={"first": 1}),
    completion(choices=[None]),
    completion(choices=[{"message": None}]),
]


@pytest.mark.parametrize(
    "document", [*OF_ANOTHER_FORM, completion(model=["small-1"]), [1, 2], "hello", None]
)
def test_a_document_of_another_form_is_a_malformed_answer(
    server: Server, model: TextModel, document: JsonValue
) -> None:
    """And no error of Python's, which would end the whole batch."""
    server.status, server.body = 200, json.dumps(document).encode()
    failure = failure_of(model)
    assert isinstance(failure, failures.MalformedAnswer)
    assert "small-1 sent what is no chat completion" in str(failure)


@pytest.mark.ring(1)
@pytest.mark.parametrize("document", OF_ANOTHER_FORM)
def test_what_cannot_be_read_costs_what_the_service_says_that_it_used(
    server: Server, model: TextModel, document: JsonValue
) -> None:
    """Though nothing else of it is of use."""
    server.status, server.body = 200, json.dumps(document).encode()
    assert failure_of(model).billed == Billed(10, 5, "small-1")


@pytest.mark.parametrize(
    ("document", "billed"),
    [
        (completion(model=["small-1"]), Billed(10, 5)),
        (completion(prompt_tokens_details=[7], content=5), Billed(10, 5, "small-1")),
        (completion(prompt_tokens_details=CACHED, content=5), Billed(10, 5, "small-1", 4)),
        ({"error": {"message": "broke off", "code": 502}, "usage": USAGE}, Billed(10, 5)),
        ({"usage": "much"}, Billed()),
    ],
)
def test_a_bill_is_read_as_far_as_it_can_be(
    server: Server, model: TextModel, document: JsonValue, billed: Billed
) -> None:
    server.status, server.body = 200, json.dumps(document).encode()
    assert failure_of(model).billed == billed


@pytest.mark.parametrize("code", ["server_error", "insufficient_quota", "content_filter"])
def test_an_error_may_have_a_bill_too(server: Server, model: TextModel, code: str) -> None:
    """Of a call that failed in its midst, by a server that says so."""
    document = {"error": {"message": "no more", "code": code}, "usage": USAGE, "model": "small-1"}
    server.status, server.body = 500, json.dumps(document).encode()
    assert failure_of(model).billed == Billed(10, 5, "small-1")


def test_a_nested_document_is_a_malformed_answer(server: Server, model: TextModel) -> None:
    server.status, server.body = 200, b"[" * 100_000
    assert type(failure_of(model)) is failures.UnreadableAnswer


@pytest.mark.parametrize(
    "told", ["ten", 1.5, float("nan"), -1000, 10**30, None], ids=lambda told: str(told)[:6]
)
def test_what_is_no_count_of_tokens_is_none(
    server: Server, model: TextModel, told: JsonValue
) -> None:
    """So that it makes no cost negative, and none that fits into no column."""
    server.status, server.body = 200, json.dumps(completion(prompt_tokens=told)).encode()
    answer = model.generate(text_request({"k-1": "a text"}))
    assert answer.billed == Billed(0, 5, "small-1")


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "code": 429}, failures.RateLimited),
        ({"message": "no such key", "code": 401}, failures.Unauthorized),
        ({"message": "somebody else's code", "code": "x1"}, failures.ServerFailed),
        ("the model is being loaded", failures.ServerFailed),
    ],
)
def test_an_error_that_comes_as_a_success_is_one(
    server: Server, model: TextModel, error: JsonValue, kind: type[ModelFailure]
) -> None:
    """Gateways answer 200 with an error: it is told in their words, and retried or not by code."""
    server.status, server.body = 200, json.dumps({"error": error}).encode()
    failure = failure_of(model)
    assert type(failure) is kind
    assert str(error["message"] if isinstance(error, dict) else error) in str(failure)


QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: "
    "https://platform.openai.com/docs/guides/error-codes/api-errors."
)
TOKENS = (
    "Rate limit reached for small-1 in organization org-1 on tokens per min (TPM): Limit 30000, "
    "Used 29000, Requested 2000. Please try again in 2s."
)


@pytest.mark.parametrize(
    ("status", "fields", "wait", "kind"),
    [
        (429, (QUOTA, "insufficient_quota", "insufficient_quota"), {}, failures.QuotaExhausted),
        (429, (QUOTA, "insufficient_quota", None), {}, failures.QuotaExhausted),
        (
            429,
            (QUOTA, "insufficient_quota", "insufficient_quota"),
            {"Retry-After": "86400"},
            failures.QuotaExhausted,
        ),
        (
            400,
            (
                "Billing hard limit has been reached",
                "invalid_request_error",
                "billing_hard_limit_reached",
            ),
            {},
            failures.QuotaExhausted,
        ),
        (
            429,
            ("Your account is not active.", "billing_not_active", "billing_not_active"),
            {},
            failures.QuotaExhausted,
        ),
        (402, ("Insufficient Balance", "unknown_error", "1"), {}, failures.QuotaExhausted),
        (
            429,
            (TOKENS, "tokens", "rate_limit_exceeded"),
            {"Retry-After": "2"},
            failures.RateLimited,
        ),
        (429, (TOKENS, "requests", "rate_limit_exceeded"), {}, failures.RateLimited),
        (
            429,
            (QUOTA, "insufficient_quota", "insufficient_quota"),
            {"Retry-After": "20"},
            failures.RateLimited,
        ),
    ],
    ids=[
        "quota",
        "quota, by its type alone",
        "quota of a day",
        "hard limit",
        "not active",
        "of another service",
        "tokens",
        "requests",
        "quota that refills",
    ],
)
def test_a_limit_of_what_is_spent_is_none_of_the_rate(
    server: Server,
    model: TextModel,
    status: int,
    fields: tuple[str, str, str | None],
    wait: dict[str, str],
    kind: type[ModelFailure],
) -> None:
    """In each form in which it is sent, in both directions; only one of the rate is asked again."""
    message, form, code = fields
    error = {"message": message, "type": form, "param": None, "code": code}
    server.status, server.body = status, json.dumps({"error": error}).encode()
    server.wait = wait
    try:
        failure = failure_of(model)
    finally:
        server.wait = {}
    assert type(failure) is kind
    assert failure.retry_after == (float(wait["Retry-After"]) if wait else None)


@pytest.mark.parametrize(
    ("status", "document", "told"),
    [
        (422, {"detail": [{"msg": "no word for response_format"}]}, "no word for response_format"),
        (400, {"error": "this server takes no schema"}, "this server takes no schema"),
    ],
)
def test_words_of_a_server_of_another_form_are_told(
    server: Server, model: TextModel, status: int, document: JsonValue, told: str
) -> None:
    """The package has "Error code: 422" for them, which helps nobody."""
    server.status, server.body = status, json.dumps(document).encode()
    assert told in str(failure_of(model))


@pytest.mark.ring(1)
def test_who_must_pay_is_told_so(server: Server, model: TextModel) -> None:
    """No other form of the request would help."""
    server.status, server.body = 402, b'{"error": {"message": "Insufficient credits"}}'
    failure = failure_of(model)
    assert type(failure) is failures.QuotaExhausted
    assert "Insufficient credits; pay for more" in str(failure)
