"""Settings: which model, with which key and limits; and what is said where they do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.text_model.base import TextModel
from tasks.text_model.choosing import limits_url, open_limiter, open_model, read_settings
from tasks.text_model.failures import TextModelError
from tasks.text_model.limits import NoLimit
from tasks.text_model.offline import ExtractiveModel
from tasks.text_model.retrying import RetryPolicy
from tasks.text_model.settings import (
    TextModelSettings,
    TierChoice,
    Times,
    first_tier,
    last_tier,
)
from tests.unit.test_import_cost import modules_after


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CELERY_", "TEXT_MODEL", "GEMINI_", "GOOGLE_")):
            monkeypatch.delenv(name)


def test_without_a_key_the_offline_model_is_chosen() -> None:
    """It needs no environment at all, and says by its name what it is."""
    settings = read_settings()
    assert (settings.provider, settings.name) == ("offline", "extractive-1")
    model = open_model(settings)
    assert isinstance(model, ExtractiveModel)
    assert (model.provider, model.name) == ("offline", "extractive-1")
    assert isinstance(open_limiter(settings, model), NoLimit)


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_with_a_key_gemini_is_chosen(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """By the SDK that is maintained; and the key is not shown."""
    monkeypatch.setenv(variable, "hush")
    settings = read_settings()
    assert (settings.provider, settings.name) == ("google-genai", "gemini-3.5-flash-lite")
    assert settings.key is not None
    assert settings.key.get_secret_value() == "hush"
    assert "hush" not in repr(settings) + str(settings) + repr(settings.model_dump())


def test_the_gemini_key_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two keys, that of the service's own name."""
    monkeypatch.setenv("GOOGLE_API_KEY", "other")
    monkeypatch.setenv("GEMINI_API_KEY", "own")
    key = read_settings().key
    assert key is not None
    assert key.get_secret_value() == "own"


def test_flex_is_waited_for_longer() -> None:
    """In its calls and between them; what is set holds for both tiers."""
    settings = TextModelSettings()
    assert settings.times() == Times(60.0, 0.5, 60.0)
    assert settings.times("flex") == Times(900.0, 5.0, 120.0)
    assert RetryPolicy.of(settings, "flex") == RetryPolicy(6, 5.0, 120.0)
    given = TextModelSettings(timeout=7.0, first_wait=0.0, longest_wait=1.0)
    assert given.times() == given.times("flex") == Times(7.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("choice", "first", "dearest"),
    [
        ("standard", "standard", "standard"),
        ("flex", "flex", "flex"),
        ("flex-or-standard", "flex", "standard"),
        ("batch", "batch", "batch"),
    ],
)
def test_a_choice_of_tiers(choice: TierChoice, first: str, dearest: str) -> None:
    assert (first_tier(choice), last_tier(choice)) == (first, dearest)


def test_everything_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable has its setting; an empty one counts as not set."""
    values = {
        "TEXT_MODEL": "google-generativeai",
        "TEXT_MODEL_NAME": "models/gemini-2.5-pro",
        "TEXT_MODEL_ACCEPT": "gemini-3.5-flash-lite,models/own",
        "TEXT_MODEL_BASE_URL": "http://127.0.0.1:1",
        "TEXT_MODEL_SERVICE_TIER": "flex-or-standard",
        "TEXT_MODEL_TIMEOUT": "12.5",
        "TEXT_MODEL_CONCURRENCY": "9",
        "TEXT_MODEL_MOST_AT_ONCE": "40",
        "TEXT_MODEL_REQUESTS_PER_MINUTE": "60",
        "TEXT_MODEL_TOKENS_PER_MINUTE": "",
        "TEXT_MODEL_LIMITS_URL": "redis://:hush@h/1",
        "TEXT_MODEL_ATTEMPTS": "2",
        "TEXT_MODEL_FIRST_WAIT": "0",
        "TEXT_MODEL_LONGEST_WAIT": "3",
        "TEXT_MODEL_STREAM": "true",
        "TEXT_MODEL_THINKING_TOKENS": "512",
        "TEXT_MODEL_THINKING_LEVEL": "low",
        "TEXT_MODEL_PRICES": "p.json",
        "TEXT_MODEL_LATENCY": "0.25",
        "TEXT_MODEL_INLINE_BYTES": "0",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert (settings.provider, settings.name) == ("google-generativeai", "gemini-2.5-pro")
    assert (settings.base_url, settings.timeout) == ("http://127.0.0.1:1", 12.5)
    assert (settings.concurrency, settings.stream, settings.latency) == (9, True, 0.25)
    assert (settings.requests_per_minute, settings.tokens_per_minute) == (60, None)
    assert settings.service_tier == "flex-or-standard"
    assert (settings.most_at_once, settings.inline_bytes) == (40, 0)
    assert (settings.prices, settings.thinking_tokens) == (Path("p.json"), 512)
    assert (settings.accepted, settings.thinking_level) == (("gemini-3.5-flash-lite", "own"), "low")
    assert RetryPolicy.of(settings) == RetryPolicy(2, 0.0, 3.0)
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEXT_MODEL_TIMEOUT", "0"),
        ("TEXT_MODEL_TIMEOUT", "inf"),
        ("TEXT_MODEL_CONCURRENCY", "none"),
        ("TEXT_MODEL_MOST_AT_ONCE", "0"),
        ("TEXT_MODEL_REQUESTS_PER_MINUTE", "-1"),
        ("TEXT_MODEL_ATTEMPTS", "0"),
        ("TEXT_MODEL_FIRST_WAIT", "nan"),
        ("TEXT_MODEL_THINKING_LEVEL", "hush"),
        ("TEXT_MODEL_SERVICE_TIER", "hush"),
        ("TEXT_MODEL_BASE_URL", "ftp://hush@h"),
    ],
)
def test_a_bad_value_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """And the value itself, which may hold a secret, is not repeated."""
    monkeypatch.setenv(name, value)
    with pytest.raises(TextModelError, match=name) as caught:
        read_settings()
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(ValidationError) as plain:
        TextModelSettings()
    assert "hush" not in str(plain.value)


@pytest.mark.parametrize("provider", ["google-genai", "google-generativeai"])
def test_gemini_without_a_key_is_told(provider: str) -> None:
    """With the variable to set, and the way to do without."""
    with pytest.raises(TextModelError, match=r"GEMINI_API_KEY.*TEXT_MODEL=offline"):
        open_model(TextModelSettings(choice=provider))


def test_an_unknown_model_is_told() -> None:
    """With all that there are."""
    with pytest.raises(TextModelError, match=r"'gpt'.*google-genai.*package\.module:factory"):
        open_model(TextModelSettings(choice="gpt"))


def make_own(settings: TextModelSettings) -> TextModel:
    """A factory, as anybody may write one."""
    return ExtractiveModel(name=settings.name, latency=settings.latency)


def test_a_factory_makes_a_model_of_ones_own() -> None:
    """It is called with the settings."""
    model = open_model(TextModelSettings(choice=f"{__name__}:make_own", given_name="mine"))
    assert model.name == "mine"


@pytest.mark.parametrize("path", ["no_such.module:make", f"{__name__}:nothing", ":make", "x:"])
def test_a_factory_that_is_not_there_is_told(path: str) -> None:
    """With what it must look like."""
    with pytest.raises(TextModelError, match=r"package\.module:factory"):
        open_model(TextModelSettings(choice=path))


def test_limits_are_kept_where_celery_keeps_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker if it is Redis, else the result store; what is set goes first."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://rabbit//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://results/2")
    assert limits_url(TextModelSettings()) == "redis://results/2"
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://broker/1")
    assert limits_url(TextModelSettings()) == "redis://broker/1"
    assert limits_url(TextModelSettings(limits_url="rediss://own/3")) == "rediss://own/3"


def test_limits_that_nobody_can_share_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of each worker's own would be none."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://rabbit//")
    settings = TextModelSettings(requests_per_minute=5)
    with pytest.raises(TextModelError, match="TEXT_MODEL_LIMITS_URL"):
        open_limiter(settings, open_model(settings))
    with pytest.raises(TextModelError, match="TEXT_MODEL_LIMITS_URL") as caught:
        limits_url(TextModelSettings(limits_url="amqp://:hush@rabbit//"))
    assert "hush" not in str(caught.value)


def test_the_app_and_the_settings_load_no_library_of_a_model() -> None:
    """Neither an SDK, nor the limiter: a worker starts as fast as before."""
    loaded = modules_after("import tasks.text_model.choosing, tasks.text_model.retrying")
    heavy = {
        "google.genai",
        "google.generativeai",
        "google.auth",
        "openai",
        "throttled",
        "sqlalchemy",
        "httpx2",
    }
    assert "tasks.text_model.choosing" in loaded
    assert not loaded & heavy
