"""Where Gemini's SDKs may go, and what they may tell: nobody else, and never the key."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import traceback

import pytest
from loguru import logger
from pydantic import JsonValue, SecretStr

from tasks.text_model import failures
from tasks.text_model.choosing import open_model
from tasks.text_model.failures import ModelFailure, TextModelError
from tasks.text_model.gemini import http_failure
from tests.processes import free_port
from tests.workflows.crud_load import ROOT
from tests.workflows.gemini_server import KEY, GeminiServer, gemini_server
from tests.workflows.gemini_support import TEXTS, settings_of
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.gemini_support import provider as provider
from tests.workflows.gemini_support import server as server
from tests.workflows.text_requests import text_request

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]


@pytest.mark.parametrize("kind", ["ok", "reset", "unauthorized", "unauthenticated", "unavailable"])
def test_the_key_is_shown_nowhere(
    provider: str, server: GeminiServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Not in repr, exceptions, their tracebacks with all values, or any log at any level."""
    lines: list[str] = []
    contexts: list[BaseException | None] = []
    sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    server.use({"faults": [kind]})
    settings = settings_of(provider, server.url)
    google = logging.getLogger("google")  # the old SDK keeps its records from the root logger
    google.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="google"):
        model = open_model(settings)
        try:
            model.generate(text_request(TEXTS))
        except ModelFailure as failure:
            logger.exception("failed")
            contexts.append(failure.__context__)
            lines += traceback.TracebackException.from_exception(
                failure, capture_locals=True
            ).format()
        finally:
            model.close()
            logger.remove(sink)
            google.removeHandler(caplog.handler)
    assert caplog.records
    shown = [repr(settings), repr(model), str(settings.model_dump()), *lines]
    shown += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert not [one for one in shown if KEY in one]
    assert contexts == ([] if kind == "ok" else [None])  # the SDK's exception leads to the request


def test_a_key_that_the_service_repeats_is_hidden() -> None:
    """Whatever an error document says."""
    body: JsonValue = {"error": {"message": f"key {KEY} is not allowed here"}}
    failure = http_failure(403, body, model="m", key=SecretStr(KEY))
    assert KEY not in str(failure)
    assert "is not allowed here" in str(failure)


def test_a_wrong_key_is_told(provider: str, server: GeminiServer) -> None:
    """The sentence says which variable to look at."""
    model = open_model(settings_of(provider, server.url, key=SecretStr("wrong")))
    with pytest.raises(failures.Unauthorized, match="check GEMINI_API_KEY"):
        model.generate(text_request(TEXTS))
    model.close()


def test_nobody_listens(provider: str) -> None:
    """A refused connection is one that failed."""
    model = open_model(settings_of(provider, f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(failures.ConnectionFailed, match="connection to gemini"):
        model.generate(text_request(TEXTS))
    model.close()


def test_models_of_one_process_keep_apart(provider: str) -> None:
    """Two addresses and two keys side by side."""
    with gemini_server(key="one") as one, gemini_server(key="two") as two:
        models = [
            open_model(settings_of(provider, server.url, key=SecretStr(server.key)))
            for server in (one, two)
        ]
        for model in models * 2:
            model.generate(text_request(TEXTS))
        assert one.faults == two.faults == {"ok": 2}
        for model in models:
            model.close()
            model.close()
        del model, models
        gc.collect()  # a connection that was left open would warn now


def test_the_environment_leads_nowhere_else(
    provider: str, server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another service, nor its credentials, nor another key or version is looked up."""
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
    monkeypatch.setenv("GOOGLE_GENAI_CLIENT_MODE", "record")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "somebody-else")
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    model = open_model(settings_of(provider, server.url))
    assert model.generate(text_request(TEXTS)).tokens_in
    model.close()
    assert server.faults == {"ok": 1}


def test_a_base_url_may_end_with_a_slash(provider: str, server: GeminiServer) -> None:
    """As people write it."""
    model = open_model(settings_of(provider, f"{server.url}/"))
    assert model.generate(text_request(TEXTS)).tokens_in
    model.close()


def test_the_old_sdk_says_that_its_support_has_ended() -> None:
    """Once, in the log; and its warning is no error where warnings are errors."""
    script = """
from tasks.text_model.choosing import open_model
from tasks.text_model.settings import TextModelSettings
for _ in range(2):
    open_model(TextModelSettings(choice="google-generativeai", key="k")).close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("support for the SDK google-generativeai has ended") == 1
    assert "TEXT_MODEL=google-genai" in done.stderr


def test_a_missing_sdk_is_told_with_the_command(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has what to type."""
    module = provider.replace("-", ".")
    name = provider.replace("-", "_")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"tasks.text_model.{name}", raising=False)
    with pytest.raises(TextModelError, match=f"pip install {provider}"):
        open_model(settings_of(provider, "http://127.0.0.1:1"))
