"""Parse the order of a batch: what an entry of a manifest tells the task to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)

from tasks.filling.gaps import Gap, find_gap
from tasks.movie_bible.documents import Document
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import STANDARD
from tasks.text_model.settings import TierChoice

REPLACES: Final = "replaces"

FieldName = Literal["summary", "themes", "characters", "mood"]
Ids = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class BadOrderError(Exception):
    """The arguments of the task are not an order; nothing was done."""


class PlannedModel(BaseModel):
    """The model that the batch was planned, and priced, for.

    ``accept`` names others whose answers count too; ``tier`` is how urgent its calls are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    name: str
    accept: list[str] = Field(default_factory=list)
    tier: TierChoice = STANDARD

    @property
    def accepted(self) -> Accepted:
        """Return the rule by which an answer counts."""
        return Accepted(self.name, tuple(self.accept))


class Order(BaseModel):
    """Fill ``fields`` of some passages by one prompt and one model.

    ``documents`` are passages that the database does not have yet, or has with another text or
    without what people have written; ``replaces`` of each is the SHA-256 of the text that the
    database had when this was planned, or null.
    ``replace_models``: rows that another model has filled are filled anew. ``cap``: what all
    attempts may cost together, in US dollars.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["fill"] = "fill"
    fields: Annotated[list[FieldName], Field(min_length=1)]
    prompt: str
    prompt_digest: str
    model: PlannedModel
    documents: list[dict[str, JsonValue]] = Field(default_factory=list)
    replace_models: bool = False
    cap: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def carried(self) -> list[Carried]:
        """Parse the documents that the order carries."""
        return [_carried(one) for one in self.documents]

    def gap_of(self, passage: ScannedPassage) -> Gap | None:
        """Return the fields to be filled of a passage, or None if there are none."""
        model = (self.model.provider, self.model.name) if self.replace_models else None
        return find_gap(passage, self.fields, self.prompt_digest, model=model)

    @field_validator("documents")
    @classmethod
    def _are_documents(cls, value: list[dict[str, JsonValue]]) -> list[dict[str, JsonValue]]:
        for one in value:
            _carried(one)
        return value


@dataclass(frozen=True, slots=True)
class Carried:
    """A document, and the digests of the texts that it may replace, its own and the planned one;
    None: of any."""

    document: Document
    may_replace: frozenset[str] | None


def _carried(data: dict[str, JsonValue]) -> Carried:
    document = Document.from_json({k: v for k, v in data.items() if k != REPLACES})
    if REPLACES not in data:
        return Carried(document, None)
    replaces = data[REPLACES]
    planned = {replaces} if isinstance(replaces, str) else set()
    return Carried(document, frozenset({document.digest} | planned))


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
