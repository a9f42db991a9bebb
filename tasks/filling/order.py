"""The order of a batch: what an entry of a manifest tells the task to do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

FieldName = Literal["summary", "themes", "characters", "mood"]
Ids = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class BadOrderError(Exception):
    """The arguments of the task are not an order; nothing was done."""


class PlannedModel(BaseModel):
    """The model that the batch was planned, and priced, for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    name: str


class Order(BaseModel):
    """Fill ``fields`` of some passages by one prompt and one model.

    ``documents`` are passages that the database does not have yet, or has with another text.
    ``replace_models``: rows that another model has filled are filled anew.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["fill"] = "fill"
    fields: Annotated[list[FieldName], Field(min_length=1)]
    prompt: str
    prompt_digest: str
    model: PlannedModel
    documents: list[dict[str, JsonValue]] = Field(default_factory=list)
    replace_models: bool = False


class RemoveOrphans(BaseModel):
    """Remove the rows of passages that do not exist any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["remove_orphans"]


def read_order(ids: object, data: object) -> tuple[list[str], Order | RemoveOrphans]:
    """Check the task's arguments. Raises BadOrderError with a sentence."""
    try:
        checked = _IdsModel.model_validate({"ids": ids}).ids
        removes = isinstance(data, dict) and data.get("action") == "remove_orphans"
        order = (RemoveOrphans if removes else Order).model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "data"
        raise BadOrderError(f"process_batch_task(ids, data): {place}: {first['msg']}") from None
    if len(set(checked)) != len(checked):
        twice = next(one for one in checked if checked.count(one) > 1)
        raise BadOrderError(f"process_batch_task(ids, data): {twice!r} is twice among the ids")
    return checked, order


class _IdsModel(BaseModel):
    ids: Ids
