"""Both real SDKs against a server that speaks Gemini's wire format, and fails as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import JsonValue

from tasks.text_model import failures
from tasks.text_model.base import FLEX, TextModel
from tasks.text_model.choosing import open_model
from tasks.text_model.gemini_model import Chunk, joined, until
from tasks.text_model.limits import NoLimit
from tasks.text_model.retrying import CallCounts, Fallback, RetryPolicy, call
from tasks.text_model.settings import GOOGLE_GENAI
from tests.workflows.gemini_server import KEY, GeminiServer, filled
from tests.workflows.gemini_server.answers import OF_ITEMS
from tests.workflows.gemini_server.script import KINDS, OTHER_MODEL
from tests.workflows.gemini_support import TEXTS, settings_of
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.gemini_support import provider as provider
from tests.workflows.gemini_support import server as server
from tests.workflows.text_models import CLASSES
from tests.workflows.text_requests import FIELDS, SHAPES, text_request

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def model(provider: str, stream: bool, server: GeminiServer) -> Iterator[TextModel]:
    opened = open_model(settings_of(provider, server.url, stream=stream))
    yield opened
    opened.close()


def test_an_answer_fits_the_schema_and_its_tokens_are_exact(
    model: TextModel, server: GeminiServer
) -> None:
    """Whole or in chunks the text is the same, and counts are those that the server billed."""
    answer = model.generate(text_request(TEXTS))
    expected = [
        {"key": key, **{name: filled(name, text, SHAPES[name]) for name in FIELDS}}
        for key, text in TEXTS.items()
    ]
    assert json.loads(answer.text) == {"items": expected}
    assert (answer.tokens_in, answer.tokens_out) == server.billed
    assert answer.model == model.name == "gemini-3.5-flash-lite"
    assert server.faults == {"ok": 1}


@pytest.mark.parametrize(("kind", "named"), [("other_model", OTHER_MODEL), ("unnamed", "")])
def test_an_answer_is_named_by_what_answered(
    model: TextModel, server: GeminiServer, kind: str, named: str
) -> None:
    """And not by what was asked; whoever asks refuses it, and knows what it was billed."""
    server.use({"faults": [kind] * 4})
    assert model.generate(text_request(TEXTS)).model == named
    counts = CallCounts()
    with pytest.raises(failures.OtherModel) as caught:
        call(
            model,
            text_request(TEXTS),
            policy=RetryPolicy(attempts=9, first_wait=0.0),
            limiter=NoLimit(),
            counts=counts,
            stop=threading.Event(),
        )
    assert caught.value.billed.model == named
    assert counts.failures == {"other_model": 1}
    first = server.calls[0]
    paid = counts.tokens_in + first.tokens_in, counts.tokens_out + first.tokens_out
    assert paid == server.billed


def test_a_stream_of_two_models_is_of_neither() -> None:
    """Of a version of one and the same it is."""
    chunks = [Chunk("{", "", "", None, name) for name in ("models/one", "one", "", "two")]
    assert joined(chunks, "standard").billed.model == "one+two"
    assert joined(chunks[:3], "standard").billed.model == "one"


def test_thoughts_are_billed_as_output(model: TextModel, server: GeminiServer) -> None:
    """A model's thoughts are no part of the answer, and are paid all the same."""
    server.use({"thoughts": 1000})
    answer = model.generate(text_request(TEXTS))
    assert (answer.tokens_in, answer.tokens_out) == server.billed
    assert answer.tokens_out > 1000


@pytest.fixture
def flex_model(stream: bool, server: GeminiServer) -> Iterator[TextModel]:
    """The SDK that has a word for the tier."""
    opened = open_model(settings_of(GOOGLE_GENAI, server.url, stream=stream))
    yield opened
    opened.close()


FLEX_REQUEST = replace(text_request(TEXTS), tier=FLEX)


@pytest.mark.parametrize(
    ("served_as", "told"),
    [(None, "flex"), ("standard", "standard"), ("priority", "priority"), ("odd", "flex")],
)
def test_the_tier_is_asked_for_and_the_one_served_is_told(
    flex_model: TextModel, server: GeminiServer, served_as: str | None, told: str
) -> None:
    """As the service says it; what it does not say is the one that was asked for."""
    server.use({"served_as": served_as})
    answer = flex_model.generate(FLEX_REQUEST)
    assert answer.tier == told
    assert server.calls[0].request["serviceTier"] == "flex"
    server.use({})
    assert flex_model.generate(text_request(TEXTS)).tier == "standard"
    assert "serviceTier" not in server.calls[0].request


@pytest.mark.parametrize("kind", ["rate_limited", "unavailable"])
def test_a_flex_call_that_is_turned_away_is_shed(
    flex_model: TextModel, server: GeminiServer, kind: str
) -> None:
    """429 and 503 alike; a quota of a day is none, and a standard call is none."""
    server.use({"faults": [kind, kind, "quota"]})
    with pytest.raises(failures.Shed) as caught:
        flex_model.generate(FLEX_REQUEST)
    assert caught.value.retry_after == (0.05 if kind == "rate_limited" else None)
    with pytest.raises(CLASSES[kind]):
        flex_model.generate(text_request(TEXTS))
    with pytest.raises(failures.QuotaExhausted):
        flex_model.generate(FLEX_REQUEST)


def test_flex_without_room_falls_back_by_choice(
    flex_model: TextModel, server: GeminiServer
) -> None:
    """On the wire: so many flex calls, then a standard one."""
    server.use({"shed": 1.0, "retry": "0.001s"})
    counts = CallCounts()
    answer = call(
        flex_model,
        FLEX_REQUEST,
        policy=RetryPolicy(attempts=3, first_wait=0.0, longest_wait=1.0),
        limiter=NoLimit(),
        counts=counts,
        stop=threading.Event(),
        fallback=Fallback(RetryPolicy(attempts=2), 20.0),
    )
    assert answer.tier == "standard"
    assert [one.tier for one in server.calls] == ["flex"] * 3 + ["standard"]
    assert (counts.failures, counts.fallbacks) == ({"shed": 3}, 1)


def test_cached_input_is_told_apart(model: TextModel, server: GeminiServer) -> None:
    """It is part of the input, whole or in chunks, and a failed call has it too."""
    server.use({"cached": 0.5, "faults": ["ok", "cut_off"]})
    answer = model.generate(text_request(TEXTS))
    with pytest.raises(failures.AnswerCutOff) as caught:
        model.generate(text_request(TEXTS))
    first, second = server.calls
    assert 0 < first.cached < first.tokens_in == answer.tokens_in
    assert (answer.cached, caught.value.billed.cached) == (first.cached, second.cached)


def test_what_is_asked_for_is_on_the_wire(
    model: TextModel, provider: str, stream: bool, server: GeminiServer
) -> None:
    """Instructions, limits and the JSON Schema are sent, each SDK's way; and the key by header."""
    model.generate(text_request(TEXTS, timeout=7.5))
    (call,) = server.calls
    sent = call.request
    assert call.method == ("streamGenerateContent" if stream else "generateContent")
    assert "Fill in the fields." in json.dumps(sent["systemInstruction"])
    config = sent["generationConfig"]
    assert isinstance(config, dict)
    assert config["responseMimeType"] == "application/json"
    assert not {"temperature", "topP", "candidateCount"} & set(config)  # the model takes none
    if provider == GOOGLE_GENAI:
        assert config["maxOutputTokens"] == 2000 + 1024
        assert config["thinkingConfig"] == {"thinking_level": "MINIMAL"}
        assert config["responseJsonSchema"] == text_request(TEXTS).schema
        assert call.headers["x-server-timeout"] == "10"
    else:
        assert config["responseSchema"] == OLD_SCHEMA
        assert config["maxOutputTokens"] == 2000 + 8192
    assert KEY not in json.dumps(sent)


def test_an_older_model_is_told_what_it_takes(provider: str, server: GeminiServer) -> None:
    """How to sample, and that one answer is enough."""
    model = open_model(settings_of(provider, server.url, given_name="gemini-2.5-flash"))
    model.generate(text_request(TEXTS))
    model.close()
    config = server.calls[0].request["generationConfig"]
    assert isinstance(config, dict)
    assert (config["temperature"], config["candidateCount"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("name", "level"),
    [("gemini-3.5-flash", "high"), ("gemini-3.8-flash", None), ("gemini-3.1-pro-preview", "low")],
)
def test_a_model_is_told_a_level_of_thinking(
    server: GeminiServer, name: str, level: str | None
) -> None:
    """As it is set, else the lowest that it has; a server that takes no number answers."""
    model = open_model(settings_of(GOOGLE_GENAI, server.url, given_name=name, thinking_level=level))
    model.generate(text_request(TEXTS))
    model.close()
    config = server.calls[0].request["generationConfig"]
    assert isinstance(config, dict)
    assert config["thinkingConfig"] == {"thinking_level": (level or "low").upper()}


def test_what_a_model_refuses_ends_the_first_call(server: GeminiServer) -> None:
    """A name without a version is told what is set; the service's word leads to the variable."""
    server.use({"faults": ["no_thinking"]})
    model = open_model(
        settings_of(GOOGLE_GENAI, server.url, given_name="gemini-latest", thinking_tokens=5)
    )
    counts = CallCounts()
    with pytest.raises(failures.BadRequest, match="TEXT_MODEL_THINKING_LEVEL"):
        call(
            model,
            text_request(TEXTS),
            policy=RetryPolicy(),
            limiter=NoLimit(),
            counts=counts,
            stop=threading.Event(),
        )
    model.close()
    assert counts.calls == len(server.calls) == 1


@pytest.mark.parametrize(
    ("name", "tokens", "budget"),
    [
        ("gemini-2.5-flash-lite", None, 0),
        ("gemini-2.5-pro", None, 128),
        ("gemini-2.5-flash", 512, 512),
        ("gemini-2.0-flash", None, None),
    ],
)
def test_a_model_thinks_no_more_than_it_must(
    server: GeminiServer, name: str, tokens: int | None, budget: int | None
) -> None:
    """Thoughts have room of their own, so that they cut no answer off."""
    more = {"given_name": name, "thinking_tokens": tokens}
    model = open_model(settings_of(GOOGLE_GENAI, server.url, **more))
    model.generate(text_request(TEXTS))
    model.close()
    config = server.calls[0].request["generationConfig"]
    assert isinstance(config, dict)
    assert config["maxOutputTokens"] == 2000 + (budget or 0)
    assert config.get("thinkingConfig") == (None if budget is None else {"thinking_budget": budget})


OLD_SCHEMA: JsonValue = {
    "type": 6,
    "required": ["items"],
    "properties": {
        "items": {
            "type": 5,
            "items": {
                "type": 6,
                "required": ["key", *FIELDS],
                "properties": {
                    "key": {"type": 1, "format": "enum", "enum": ["n-1", "n-2"]},
                    "summary": {"type": 1, "description": "two sentences"},
                    "themes": {"type": 5, "maxItems": "5", "items": {"type": 1}},
                    "mood": {"type": 1, "format": "enum", "enum": ["bleak", "comic", "tense"]},
                },
            },
        }
    },
}


def test_chunks_that_come_too_slowly_are_not_waited_for() -> None:
    """Each may be in time, and all together not."""
    chunks = [Chunk("one", "", "", None, "")]
    assert list(until(chunks, time.monotonic() + 60)) == chunks
    with pytest.raises(failures.ModelTimeout):
        list(until(chunks, time.monotonic() - 1))


def test_every_kind_of_fault_has_its_class() -> None:
    """All but those of items, which are the batch's to find, and none that the server lacks.

    Whose answers count is decided by whoever asks.
    """
    assert {*CLASSES, *OF_ITEMS, "foreign", "ok", "other_model", "unnamed"} == set(KINDS)


@pytest.mark.parametrize("reason", ["RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"])
def test_every_reason_to_withhold_an_answer_is_known(
    model: TextModel, server: GeminiServer, reason: str
) -> None:
    """The sentence names it."""
    server.use({"faults": [{"kind": "blocked_answer", "reason": reason}]})
    with pytest.raises(failures.AnswerBlocked, match=reason):
        model.generate(text_request(TEXTS))
