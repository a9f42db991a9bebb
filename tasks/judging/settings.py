"""Read from the environment which judges grade rows, and by which rubric."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.judging.checks import CHECKS, OVERLAP
from tasks.templates import DEFAULT_NAME
from tasks.text_model.settings import OFFLINE

NONE: Final = "none"


class Chosen(NamedTuple):
    """A judge as the settings choose it; ``name`` None: the provider's default model."""

    provider: str
    name: str | None


class JudgingSettings(BaseSettings):
    """Read at every batch. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    judge: str = Field(OFFLINE, validation_alias="GAP_FILL_JUDGE")
    judge_name: str | None = Field(None, validation_alias="GAP_FILL_JUDGE_NAME")
    second: str = Field(OFFLINE, validation_alias="GAP_FILL_SECOND_JUDGE")
    second_name: str | None = Field(None, validation_alias="GAP_FILL_SECOND_JUDGE_NAME")
    rubric: str = Field(DEFAULT_NAME, validation_alias="GAP_FILL_RUBRIC")
    """``NAME/NUMBER``, or a name alone for its newest version."""
    rubrics: Path | None = Field(None, validation_alias="GAP_FILL_RUBRICS")
    """The folder of rubrics; without it the one that comes with this package."""

    @property
    def chosen(self) -> list[Chosen]:
        """Return the judges, one or two."""
        first = Chosen(self.judge, _name(self.judge, self.judge_name, CHECKS))
        if self.second == NONE:
            return [first]
        return [first, Chosen(self.second, _name(self.second, self.second_name, OVERLAP))]


def _name(provider: str, given: str | None, offline: str) -> str | None:
    return given or (offline if provider == OFFLINE else None)
