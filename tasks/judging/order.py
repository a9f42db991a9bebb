"""Parse the order of a judge's batch: what an entry of a manifest tells the task to do."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tasks.filling.order import BadOrderError, PlannedModel
from tasks.judging.grades import GradeNumber

RowDigests = Annotated[dict[Annotated[str, Field(min_length=1)], str], Field(min_length=1)]


class Control(BaseModel):
    """Spoiled rows, of which a judge must grade enough below ``bar``: the share ``at_least``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bar: GradeNumber
    at_least: Annotated[float, Field(gt=0, le=1)]
    values: Annotated[dict[str, dict[str, JsonValue]], Field(min_length=1)]
    """By passage, the spoiled fields, which are graded instead of those in the database."""


class JudgeOrder(BaseModel):
    """Grade rows of one prompt by a rubric. With ``control`` the judge itself is tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    rubric: str
    rubric_digest: str
    judge: PlannedModel
    control: Control | None = None


class _Arguments(BaseModel):
    rows: RowDigests
    data: JudgeOrder


def read_judge_order(rows: object, data: object) -> tuple[dict[str, str], JudgeOrder]:
    """Check the task's arguments. Raises BadOrderError with a sentence."""
    try:
        checked = _Arguments.model_validate({"rows": rows, "data": data})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "data"
        raise BadOrderError(f"grade_rows_task(rows, data): {place}: {first['msg']}") from None
    control = checked.data.control
    if control is not None and set(control.values) != set(checked.rows):
        raise BadOrderError(
            "grade_rows_task(rows, data): data.control.values must have the passages of rows"
        )
    return checked.rows, checked.data
