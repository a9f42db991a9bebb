"""Tests that every TextModel must pass; a class of tests inherits them with a rig of its own."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar, Final

import pytest
from loguru import logger
from pydantic import JsonValue

from tasks.text_model import failures
from tasks.text_model.accepting import same_model
from tasks.text_model.base import BATCH, FLEX, TextAnswer, TextModel, TextRequest, Tier
from tasks.text_model.choosing import identify, open_model
from tasks.text_model.failures import ModelFailure, TextModelError
from tasks.text_model.limits import NoLimit
from tasks.text_model.retrying import CallCounts, RetryPolicy, call
from tests.processes import free_port
from tests.support import eventually
from tests.workflows.text_models.rig import Rig, Service
from tests.workflows.text_requests import FIELDS, text_request

CLASSES: Final[Mapping[str, type[ModelFailure]]] = {
    "rate_limited": failures.RateLimited,
    "quota": failures.QuotaExhausted,
    "unavailable": failures.Unavailable,
    "server_error": failures.ServerFailed,
    "bad_gateway": failures.ServerFailed,
    "deadline": failures.ServerFailed,
    "unauthorized": failures.Unauthorized,
    "unauthenticated": failures.Unauthorized,
    "forbidden": failures.Unauthorized,
    "not_found": failures.ModelNotFound,
    "bad_request": failures.BadRequest,
    "no_thinking": failures.BadRequest,
    "redirect": failures.BadRequest,
    "too_long": failures.TooLong,
    "timeout": failures.ModelTimeout,
    "reset": failures.ConnectionFailed,
    "cut_stream": failures.ConnectionFailed,
    "stalled_stream": failures.ModelTimeout,
    "malformed_json": failures.MalformedAnswer,
    "malformed_body": failures.UnreadableAnswer,
    "not_an_object": failures.MalformedAnswer,
    "cut_off": failures.AnswerCutOff,
    "empty": failures.EmptyAnswer,
    "no_parts": failures.EmptyAnswer,
    "blocked_prompt": failures.PromptBlocked,
    "blocked_answer": failures.AnswerBlocked,
}
"""By what a service does: the failure that a model must raise."""

TEXTS: Final = {"n-1": "A clerk in Łódź loses 金 and 🎬.", "n-2": "Two friends cross a desert."}
REQUEST: Final = text_request(TEXTS)
SETTINGS: Final[Mapping[str, Mapping[str, object]]] = {
    "stream": {"stream": True},
    "thinking_level": {"thinking_level": "low"},
    "thinking_tokens": {"thinking_tokens": 512},
    "flex": {"service_tier": "flex"},
    "batch": {"service_tier": "batch"},
}
"""Settings that some models take and others do not."""


def keys_of(answer: TextAnswer) -> list[str]:
    """The keys of an answer's items."""
    return [item["key"] for item in json.loads(answer.text)["items"]]


def asked(
    model: TextModel, request: TextRequest, *, counts: CallCounts, stop: threading.Event
) -> TextAnswer:
    """Ask as a batch does, with patience for an hour."""
    policy = RetryPolicy(attempts=30, first_wait=0.0, longest_wait=3600.0)
    return call(model, request, policy=policy, limiter=NoLimit(), counts=counts, stop=stop)


class ModelContract:
    """What holds for each model, also for one that asks nobody."""

    rig: ClassVar[Rig]

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.rig.environment.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def service(self) -> Iterator[Service | None]:
        """The model's service, which answers until a test has it fail; None where it has none."""
        if self.rig.serve is None:
            yield None
            return
        with self.rig.serve() as running:
            yield running

    @pytest.fixture
    def url(self, service: Service | None) -> str | None:
        return None if service is None else service.url

    @pytest.fixture
    def model(self, url: str | None) -> Iterator[TextModel]:
        opened = open_model(self.rig.settings_at(url))
        yield opened
        opened.close()

    def test_an_answer_is_json_of_the_asked_shape(self, model: TextModel) -> None:
        """An item for each key, with each field."""
        answer = model.generate(REQUEST)
        items = json.loads(answer.text)["items"]
        assert [set(item) for item in items] == [{"key", *FIELDS}] * len(TEXTS)
        assert keys_of(answer) == list(TEXTS)

    def test_it_says_who_it_is_and_who_has_answered(
        self, model: TextModel, url: str | None
    ) -> None:
        """The same where it is planned and where it is run; and an answer counts as its own."""
        assert model.provider
        assert model.name.removeprefix("models/") == model.name != ""
        assert identify(self.rig.settings_at(url)) == (model.provider, model.name)
        assert same_model(model.generate(REQUEST).model, model.name)

    def test_tokens_are_counted(self, model: TextModel) -> None:
        """The cached ones are part of the input."""
        answer = model.generate(REQUEST)
        assert answer.tokens_in > 0
        assert answer.tokens_out > 0
        assert 0 <= answer.cached <= answer.tokens_in

    def test_one_instance_serves_many_threads(self, model: TextModel) -> None:
        """Each gets the answer to its own request."""
        keys = [f"k-{number}" for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            requests = [text_request({key: f"Passage {key}."}) for key in keys]
            assert [keys_of(one) for one in pool.map(model.generate, requests)] == [
                [key] for key in keys
            ]

    def test_closing_twice_is_fine(self, url: str | None) -> None:
        """Also of a model that has asked something."""
        model = open_model(self.rig.settings_at(url))
        model.generate(REQUEST)
        model.close()
        model.close()

    @pytest.mark.parametrize("tier", [FLEX, BATCH])
    def test_a_tier_that_it_has_no_word_for_is_not_bought(
        self, model: TextModel, service: Service | None, tier: Tier
    ) -> None:
        """It serves a call of it as one, or asks nothing: the whole price is never paid unasked."""
        try:
            answer = model.generate(replace(REQUEST, tier=tier))
        except failures.BadRequest as refused:
            told = str(refused)
        else:
            assert service is None or service.calls[0].tier == answer.tier == tier
            return
        assert tier in told
        assert service is not None
        assert list(service.calls) == []

    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_setting_is_taken_or_refused_before_anything_is_sent(
        self, url: str | None, name: str
    ) -> None:
        """By a sentence that names the variable; what the service would refuse is not sent."""
        settings = self.rig.settings_at(url, **SETTINGS[name])
        try:
            model = open_model(settings)
        except TextModelError as refused:
            told = str(refused)
        else:
            assert keys_of(model.generate(REQUEST)) == list(TEXTS)
            model.close()
            return
        assert "TEXT_MODEL_" in told

    def test_nothing_is_asked_after_a_stop(self, model: TextModel) -> None:
        stop, counts = threading.Event(), CallCounts()
        stop.set()
        with pytest.raises(failures.Stopped):
            asked(model, REQUEST, counts=counts, stop=stop)
        assert counts.calls == 0


class ServiceContract(ModelContract):
    """What holds for each model that asks a service: its counts, its failures, and its secret."""

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Try each fault that this rig has, and each of its names."""
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", [kind for kind in CLASSES if kind not in cls.rig.cannot])
        if "other_name" in metafunc.fixturenames:
            metafunc.parametrize("other_name", cls.rig.names)

    @pytest.fixture
    def service(self) -> Iterator[Service]:
        assert self.rig.serve is not None, "a rig of this contract has a service"
        with self.rig.serve() as running:
            yield running

    def test_tokens_are_those_that_the_service_bills(
        self, model: TextModel, service: Service
    ) -> None:
        """Cached ones as such, and thoughts as output."""
        service.use({"cached": 0.5, "thoughts": 1000})
        answer = model.generate(REQUEST)
        (one,) = service.calls
        found = answer.tokens_in, answer.tokens_out, answer.cached
        assert found == (one.tokens_in, one.tokens_out, one.cached)
        assert answer.cached > 0
        assert answer.tokens_out > 1000

    @pytest.mark.parametrize("kind", ["other_model", "unnamed"])
    def test_an_answer_is_named_by_what_has_answered(
        self, model: TextModel, service: Service, kind: str
    ) -> None:
        """And not by what was asked: who asks refuses it, and knows what it was billed."""
        service.use({"faults": [kind] * 4})
        answer = model.generate(REQUEST)
        (first,) = service.calls
        assert answer.model == first.answered != model.name
        counts = CallCounts()
        with pytest.raises(failures.OtherModel):
            asked(model, REQUEST, counts=counts, stop=threading.Event())
        assert counts.tokens_in == sum(one.tokens_in for one in service.calls) - first.tokens_in

    def test_each_failure_has_its_class_and_tells_no_secret(
        self, model: TextModel, service: Service, caplog: pytest.LogCaptureFixture, fault: str
    ) -> None:
        """One call is one request, whose cost is known where it is told; the next one works.

        The key is in no error, its traceback with all values, a name, or any log at any level.
        """
        service.use({"faults": [fault]})
        seconds = 0.5 if CLASSES[fault] is failures.ModelTimeout else 20.0
        lines: list[str] = []
        sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
        try:
            with caplog.at_level(logging.DEBUG), pytest.raises(ModelFailure) as caught:
                model.generate(replace(REQUEST, timeout=seconds))
            failure = caught.value
            logger.opt(exception=failure).error("failed")
        finally:
            logger.remove(sink)
        assert type(failure) is CLASSES[fault], str(failure)
        (one,) = service.calls
        billed = failure.billed
        assert (billed.tokens_in, billed.tokens_out) == (one.tokens_in, one.tokens_out)
        told = traceback.TracebackException.from_exception(failure, capture_locals=True)
        lines += [*told.format(), repr(model), repr(failure)]
        lines += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
        assert [line for line in lines if self.rig.secret in line] == []
        assert failure.__context__ is None, "the package's error leads to the request"
        assert keys_of(model.generate(REQUEST)) == list(TEXTS)

    @pytest.mark.parametrize(("told", "seconds"), [("0.05s", 0.05), ("37s", 37.0), (None, None)])
    def test_the_time_to_wait_is_taken_from_the_service(
        self, model: TextModel, service: Service, told: str | None, seconds: float | None
    ) -> None:
        """In seconds; where it says none there is none."""
        service.use({"faults": [{"kind": "rate_limited", "retry": told}]})
        with pytest.raises(failures.RateLimited) as caught:
            model.generate(REQUEST)
        assert caught.value.retry_after == seconds

    def test_a_stop_ends_the_pause_that_the_service_asks_for(
        self, model: TextModel, service: Service
    ) -> None:
        """And nothing is asked after it."""
        service.use({"faults": [{"kind": "rate_limited", "retry": "3000s"}]})
        stop, counts = threading.Event(), CallCounts()
        with ThreadPoolExecutor(1) as pool:
            one = pool.submit(asked, model, REQUEST, counts=counts, stop=stop)
            try:
                eventually(lambda: counts.failures.total() == 1, what="the first call is refused")
            finally:
                stop.set()
            with pytest.raises(failures.Stopped):
                one.result(timeout=60)
        assert len(service.calls) == counts.calls == 1

    def test_what_goes_wrong_in_between_is_counted_and_nothing_is_lost(
        self, model: TextModel, service: Service
    ) -> None:
        """Of many calls at a time: each failure by its kind, and every token that was billed."""
        kinds = [
            kind
            for kind, failure in CLASSES.items()
            if failure.retryable and failure is not failures.ModelTimeout
        ]
        kinds = 3 * [kind for kind in kinds if kind not in self.rig.cannot]
        faults: list[JsonValue] = []
        for kind in kinds:
            faults += [{"kind": kind, "retry": "0.001s"}, "ok"]
        service.use({"faults": faults})
        keys, counts = [f"k-{number}" for number in range(40)], CallCounts()

        def ask(key: str) -> list[str]:
            request = text_request({key: f"Passage {key}."})
            return keys_of(asked(model, request, counts=counts, stop=threading.Event()))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, keys)) == [[key] for key in keys]
        assert counts.failures == Counter(CLASSES[kind].kind for kind in kinds)
        assert len(service.calls) == counts.calls == len(keys) + len(kinds)
        assert counts.retries == len(kinds)
        assert counts.tokens_in == sum(one.tokens_in for one in service.calls)
        assert counts.tokens_out == sum(one.tokens_out for one in service.calls)

    def test_nobody_listens(self) -> None:
        """A refused connection is one that failed."""
        model = open_model(self.rig.settings_at(f"http://127.0.0.1:{free_port()}"))
        with pytest.raises(failures.ConnectionFailed):
            model.generate(REQUEST)
        model.close()

    def test_what_a_model_does_not_take_is_not_sent(self, url: str, other_name: str) -> None:
        """By its name: the service, which refuses what it would refuse of it, answers."""
        model = open_model(self.rig.settings_at(url, given_name=other_name))
        assert model.name == other_name
        assert keys_of(model.generate(REQUEST)) == list(TEXTS)
        model.close()
