"""Read the settings of the language model, its limits and its prices from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveInt, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.text_model.base import BATCH, FLEX, STANDARD, Tier

GOOGLE_GENAI: Final = "google-genai"
GOOGLE_GENERATIVEAI: Final = "google-generativeai"
OFFLINE: Final = "offline"

DEFAULT_GEMINI: Final = "gemini-3.5-flash-lite"
DEFAULT_OFFLINE: Final = "extractive-1"

PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TierChoice = Literal["standard", "flex", "flex-or-standard", "batch"]
TIERS: Final[Mapping[TierChoice, tuple[Tier, Tier]]] = {
    "standard": (STANDARD, STANDARD),
    "flex": (FLEX, FLEX),
    "flex-or-standard": (FLEX, STANDARD),
    "batch": (BATCH, BATCH),
}
"""The tier at which a call is asked first, and the dearest one at which it may be answered."""
ThinkingLevel = Literal["minimal", "low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Times:
    """The patience with calls of one tier, in seconds: for one call, and between attempts."""

    timeout: float
    first_wait: float
    longest_wait: float


USUAL: Final = Times(timeout=60.0, first_wait=0.5, longest_wait=60.0)
UNHURRIED: Final = Times(timeout=900.0, first_wait=5.0, longest_wait=120.0)
"""For flex calls, which take minutes, and which the service takes on when it has room."""


def first_tier(choice: TierChoice) -> Tier:
    """Return the tier at which a call is asked first."""
    return TIERS[choice][0]


def last_tier(choice: TierChoice) -> Tier:
    """Return the dearest tier at which a call may be answered."""
    return TIERS[choice][1]


class TextModelSettings(BaseSettings):
    """Read once a process; times in seconds. ``repr`` shows neither the key nor URLs.

    An empty variable counts as not set. Raises pydantic's ValidationError for a bad value;
    ``choosing.read_settings`` makes a sentence of it.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    choice: str | None = Field(None, validation_alias="TEXT_MODEL")
    given_name: str | None = Field(None, validation_alias="TEXT_MODEL_NAME")
    accept: str = Field("", validation_alias="TEXT_MODEL_ACCEPT")
    """Names of models whose answers count too, with commas or spaces between them."""
    key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("GEMINI_API_KEY", "GOOGLE_API_KEY"), repr=False
    )
    base_url: str | None = Field(None, validation_alias="TEXT_MODEL_BASE_URL", repr=False)
    service_tier: TierChoice = Field("standard", validation_alias="TEXT_MODEL_SERVICE_TIER")
    timeout: PositiveSeconds | None = Field(None, validation_alias="TEXT_MODEL_TIMEOUT")
    concurrency: PositiveInt = Field(4, validation_alias="TEXT_MODEL_CONCURRENCY")
    most_at_once: PositiveInt | None = Field(None, validation_alias="TEXT_MODEL_MOST_AT_ONCE")
    requests_per_minute: PositiveInt | None = Field(
        None, validation_alias="TEXT_MODEL_REQUESTS_PER_MINUTE"
    )
    tokens_per_minute: PositiveInt | None = Field(
        None, validation_alias="TEXT_MODEL_TOKENS_PER_MINUTE"
    )
    limits_url: str | None = Field(None, validation_alias="TEXT_MODEL_LIMITS_URL", repr=False)
    attempts: PositiveInt = Field(6, validation_alias="TEXT_MODEL_ATTEMPTS")
    first_wait: Seconds | None = Field(None, validation_alias="TEXT_MODEL_FIRST_WAIT")
    longest_wait: Seconds | None = Field(None, validation_alias="TEXT_MODEL_LONGEST_WAIT")
    stream: bool = Field(default=False, validation_alias="TEXT_MODEL_STREAM")
    thinking_tokens: NonNegativeInt | None = Field(
        None, validation_alias="TEXT_MODEL_THINKING_TOKENS"
    )
    thinking_level: ThinkingLevel | None = Field(None, validation_alias="TEXT_MODEL_THINKING_LEVEL")
    prices: Path | None = Field(None, validation_alias="TEXT_MODEL_PRICES")
    latency: Seconds = Field(0.0, validation_alias="TEXT_MODEL_LATENCY")
    inline_bytes: NonNegativeInt = Field(10_000_000, validation_alias="TEXT_MODEL_INLINE_BYTES")
    """The most bytes of requests that a batch job is created with; more of them go into a file."""

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("it must start with http:// or https://")
        return url

    @property
    def provider(self) -> str:
        """Return the kind of model: as chosen, else Gemini with a key, else the offline model."""
        if self.choice is not None:
            return self.choice
        return GOOGLE_GENAI if self.key is not None else OFFLINE

    @property
    def name(self) -> str:
        """Return the model's name: as given, else the provider's default, without ``models/``."""
        default = DEFAULT_OFFLINE if self.provider == OFFLINE else DEFAULT_GEMINI
        return (self.given_name or default).removeprefix("models/")

    def times(self, tier: Tier = STANDARD) -> Times:
        """Return the patience with calls of a tier: as set, else as usual for it."""
        usual = UNHURRIED if tier == FLEX else USUAL
        return Times(
            usual.timeout if self.timeout is None else self.timeout,
            usual.first_wait if self.first_wait is None else self.first_wait,
            usual.longest_wait if self.longest_wait is None else self.longest_wait,
        )

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return the names that ``accept`` lists, each once, without ``models/``."""
        names = self.accept.replace(",", " ").split()
        return tuple(dict.fromkeys(name.removeprefix("models/") for name in names))
