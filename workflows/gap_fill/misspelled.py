"""Find variables of the environment that look like settings of the gap filling, and are none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from pydantic import AliasChoices

from tasks.filling.settings import FillingSettings
from tasks.judging.settings import JudgingSettings
from tasks.movie_bible.settings import BibleSettings
from tasks.text_model.settings import TextModelSettings

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from pytest_manifest import PlanBuilder

SETTINGS: Final[tuple[type[BaseSettings], ...]] = (
    BibleSettings,
    TextModelSettings,
    FillingSettings,
    JudgingSettings,
)
PREFIXES: Final = ("GAP_FILL_", "TEXT_MODEL_")


def names_of(settings: type[BaseSettings]) -> set[str]:
    """Return the names of the variables that settings are read from."""
    aliases = (field.validation_alias for field in settings.model_fields.values())
    return {
        str(name)
        for alias in aliases
        for name in (alias.choices if isinstance(alias, AliasChoices) else [alias])
    }


def note_misspelled(plan: PlanBuilder) -> None:
    """Say in the plan's summary which variables of this process nothing reads."""
    for sentence in misspelled(os.environ):
        plan.note(sentence)


def misspelled(environment: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable that nothing reads, by its name."""
    known = set[str]().union(*map(names_of, SETTINGS))
    for name in sorted(environment):
        if name.upper().startswith(PREFIXES) and name.upper() not in known:
            near = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            meant = f"; is {near[0]} meant?" if near else ""
            yield f"{name} is set, and nothing reads a variable of that name{meant}"
