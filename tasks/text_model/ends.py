"""Say of a model that its end is announced, from a dated data file."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from tasks.text_model.accepting import same_model

MODELS: Final = Path(__file__).with_name("models.json")


class _End(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    end: date
    instead: str


class _Ends(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: date
    note: str
    models: dict[str, _End]


@cache
def _ends() -> _Ends:
    return _Ends.model_validate_json(MODELS.read_bytes())


def end_of(name: str, today: date) -> str | None:
    """Return a sentence on the announced end of a model; None where none is known."""
    table = _ends()
    found = next((end for model, end in table.models.items() if same_model(name, model)), None)
    if found is None:
        return None
    when = "was announced for" if found.end <= today else "is announced for"
    return (
        f"the end of {name} {when} {found.end} at the earliest (known on {table.as_of}): after it "
        "another model may answer without an error, which is refused as other_model; plan for "
        f"{found.instead}"
    )
