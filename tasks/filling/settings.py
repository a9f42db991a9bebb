"""Read from the environment how gaps are filled."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.templates import DEFAULT_NAME


class FillingSettings(BaseSettings):
    """Read at every batch; times in seconds. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    prompt: str = Field(DEFAULT_NAME, validation_alias="GAP_FILL_PROMPT")
    """``NAME/NUMBER``, or a name alone for its newest version."""
    prompts: Path | None = Field(None, validation_alias="GAP_FILL_PROMPTS")
    """The folder of prompt templates; without it the one that comes with this package."""
    per_call: PositiveInt = Field(5, validation_alias="GAP_FILL_PASSAGES_PER_CALL")
    """Passages that one call of the model asks for, at most."""
    asks_alone: PositiveInt = Field(3, validation_alias="GAP_FILL_ASKS_ALONE")
    """How often a passage is asked for alone before it is given up."""
    reserve: NonNegativeFloat = Field(5.0, validation_alias="GAP_FILL_RESERVE")
    """Seconds before the job's time limit at which no more is begun."""
    poll: PositiveFloat = Field(60.0, validation_alias="GAP_FILL_POLL")
    """Seconds between two looks at a batch job of the service."""
    job_patience: PositiveFloat = Field(93_600.0, validation_alias="GAP_FILL_JOB_PATIENCE")
    """Seconds after which a batch job that has not ended is cancelled."""
    job_settle: NonNegativeFloat = Field(60.0, validation_alias="GAP_FILL_JOB_SETTLE")
    """Seconds for which a batch job is looked for whose creation was not answered."""
