"""Warn of a model whose end is announced, and refuse one that has ended, by a data file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from tasks.text_model.accepting import same_model
from tasks.text_model.failures import TextModelError

MODELS: Final = Path(__file__).with_name("models.json")


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    end: date
    instead: str
    source: str
    read: date


class _Ends(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    note: str
    models: dict[str, _End]


@cache
def _ends() -> _Ends:
    return _Ends.model_validate_json(MODELS.read_bytes())


def end_of(name: str, today: date, accepted: Sequence[str] = ()) -> str | None:
    """Return a sentence on the announced end of a model; None where none is known.

    Raises TextModelError where that is past, unless this very name is among those ``accepted``.
    """
    known = _ends().models
    found = next((end for model, end in known.items() if same_model(name, model)), None)
    if found is None:
        return None
    source = f"{found.source}, read on {found.read}"
    if found.end > today:
        return (
            f"the end of {name} is announced for {found.end} ({source}): after it another model "
            f"may answer, which is refused as other_model; plan for {found.instead}"
        )
    if name in accepted:
        return f"{name} was to end on {found.end} ({source}), and is accepted all the same"
    raise TextModelError(
        f"{name} has ended on {found.end} ({source}): plan for {found.instead}, or, if it answers "
        f"still, accept it with TEXT_MODEL_ACCEPT={name}"
    )
