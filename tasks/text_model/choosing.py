"""Make the model and the limiter that the settings name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from pydantic import ValidationError

from tasks.settings import Settings, is_redis
from tasks.text_model.base import TextModel
from tasks.text_model.failures import TextModelError
from tasks.text_model.limits import Limiter, NoLimit, Rates
from tasks.text_model.settings import (
    DEFAULT_OFFLINE,
    GOOGLE_GENAI,
    GOOGLE_GENERATIVEAI,
    OFFLINE,
    TextModelSettings,
)

if TYPE_CHECKING:
    from tasks.text_model.gemini_model import GeminiModel
    from tasks.text_model.jobs import BatchJobs

SDKS: Final = {
    GOOGLE_GENAI: ("tasks.text_model.google_genai", "GoogleGenaiModel"),
    GOOGLE_GENERATIVEAI: ("tasks.text_model.google_generativeai", "GoogleGenerativeaiModel"),
}
"""By provider: the module that loads its SDK, and the class in it."""
BATCH_JOBS: Final = ("tasks.text_model.google_genai_jobs", "GoogleGenaiJobs")

CHOICES: Final = f"{GOOGLE_GENAI}, {GOOGLE_GENERATIVEAI}, {OFFLINE} or package.module:factory"


class _Factory(Protocol):
    """A function of the user's that makes a model."""

    def __call__(self, settings: TextModelSettings) -> TextModel: ...


def read_settings() -> TextModelSettings:
    """Read the settings from the environment. Raises TextModelError that names the variable."""
    try:
        return TextModelSettings()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    raise TextModelError(f"the environment does not fit the language model: {faults}; correct it")


def open_model(settings: TextModelSettings) -> TextModel:
    """Open the model that the settings choose. Raises TextModelError."""
    provider = settings.provider
    if provider == OFFLINE:
        from tasks.text_model.offline import ExtractiveModel

        return ExtractiveModel(name=_offline_name(settings), latency=settings.latency)
    if provider in SDKS:
        return _gemini(provider, settings, SDKS[provider])
    if ":" in provider:
        return _own(provider, settings)
    raise TextModelError(f"TEXT_MODEL names {provider!r}, which is no model; set it to {CHOICES}")


def open_jobs(settings: TextModelSettings) -> BatchJobs:
    """Open the batch jobs of the model that the settings choose. Raises TextModelError."""
    if settings.provider != GOOGLE_GENAI:
        raise TextModelError(
            f"the tier is batch, and {settings.provider} has no batch jobs; set "
            f"TEXT_MODEL={GOOGLE_GENAI} and GEMINI_API_KEY, or TEXT_MODEL_SERVICE_TIER=standard, "
            "and plan anew"
        )
    opened = _gemini(GOOGLE_GENAI, settings, BATCH_JOBS)
    return cast("BatchJobs", opened)


def identify(settings: TextModelSettings) -> tuple[str, str]:
    """Return provider and name of the model that ``open_model`` opens.

    Of Gemini without its key and SDK; what a factory makes is opened and closed. Raises
    TextModelError as ``open_model`` does.
    """
    if settings.provider in SDKS:
        from tasks.text_model.parameters import parameters

        parameters(settings)  # what no call will take is said where it is planned
        return settings.provider, settings.name
    model = open_model(settings)
    try:
        return model.provider, model.name
    finally:
        model.close()


def _offline_name(settings: TextModelSettings) -> str:
    """Return the offline model's only name; raise TextModelError if another model's name is set.

    So rows of the offline model never pass for those of another one.
    """
    if settings.name == DEFAULT_OFFLINE:
        return DEFAULT_OFFLINE
    why = "no key is set" if settings.choice is None else f"TEXT_MODEL is {OFFLINE}"
    raise TextModelError(
        f"TEXT_MODEL_NAME is {settings.name}, and {why}, so it would be the offline model that "
        f"answers, which has one name ({DEFAULT_OFFLINE}); set GEMINI_API_KEY, or leave "
        "TEXT_MODEL_NAME unset"
    )


def _gemini(provider: str, settings: TextModelSettings, place: tuple[str, str]) -> GeminiModel:
    if settings.key is None:
        raise TextModelError(
            f"TEXT_MODEL is {provider}, and there is no key; set GEMINI_API_KEY, "
            f"or TEXT_MODEL={OFFLINE} for the model that needs none"
        )
    module, name = place
    try:
        make = cast("type[GeminiModel]", getattr(import_module(module), name))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tasks"):
            raise
        missing = error.name
    else:
        return make(settings, settings.key)
    raise TextModelError(
        f"TEXT_MODEL is {provider}, and its SDK is not installed ({missing} is missing); "
        f"install it: pip install {provider}"
    )


def _own(path: str, settings: TextModelSettings) -> TextModel:
    """Make a model by a factory, ``package.module:factory``, called with the settings.

    Raises TextModelError where the factory cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        make = cast("_Factory", getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        reason = str(error)
    else:
        return make(settings)
    raise TextModelError(
        f"TEXT_MODEL names {path!r}, which cannot be imported: {reason}; "
        "give the path of a module and a function in it, package.module:factory"
    )


def open_limiter(settings: TextModelSettings, model: TextModel) -> Limiter:
    """Open the limits that the settings have, shared by all workers. Raises TextModelError.

    Nothing is connected yet: a server that is unreachable shows at the first call.
    """
    key = f"{model.provider}:{model.name}"
    limiter = _open_rates(settings, key)
    if settings.most_at_once is None:
        return limiter
    from tasks.text_model.shared_concurrency import SharedConcurrency

    return SharedConcurrency(limits_url(settings), key, settings.most_at_once, limiter)


def _open_rates(settings: TextModelSettings, key: str) -> Limiter:
    rates = Rates(settings.requests_per_minute, settings.tokens_per_minute)
    if rates == Rates():
        return NoLimit()
    from tasks.text_model.shared_limits import SharedLimit

    return SharedLimit(limits_url(settings), key, rates)


def limits_url(settings: TextModelSettings) -> str:
    """Return the URL of the shared limits' server: as set, else Celery's broker or result store.

    Raises TextModelError where none of them is Redis or Valkey.
    """
    if settings.limits_url is not None:
        if is_redis(settings.limits_url):
            return settings.limits_url
        raise TextModelError(
            "TEXT_MODEL_LIMITS_URL is no URL of a Redis or Valkey server; "
            "set it to redis://HOST:PORT/NUMBER"
        )
    celery = Settings()
    for url in (celery.broker_url, celery.results_url):
        if url is not None and is_redis(url):
            return url
    raise TextModelError(
        "there is a limit for the language model, and no server that all workers could share it "
        "by; set TEXT_MODEL_LIMITS_URL to redis://HOST:PORT/NUMBER"
    )
