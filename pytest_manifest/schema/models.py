"""Define the lines of a manifest: its header and its entries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from pytest_manifest.schema import fields
from pytest_manifest.schema.json_schemas import pattern_problem, schema_problem
from pytest_manifest.schema.statuses import State
from pytest_manifest.schema.wire import MOST
from pytest_manifest.text import middle, number_unprintable

Names = Annotated[list[fields.Name], fields.FirstFault]
"""Ids, tags, names of tasks."""


class ExpectedError(fields.Document):
    """The error that a task is expected to end with."""

    type: fields.Name | None = None
    """The exception's class name, with or without its module."""
    match: str | None = None
    """A regular expression (ECMA 262's) that is searched in the error's message."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        why = pattern_problem(value or "")
        if why:
            shown = number_unprintable(middle(why, 400))
            raise PydanticCustomError("regex", "is not a regular expression: {why}", {"why": shown})
        return value


class CountRange(fields.Document):
    """A number, by its bounds."""

    min: fields.Count = 0
    """The smallest that is allowed."""
    max: fields.Count | None = None
    """The largest that is allowed."""

    @model_validator(mode="after")
    def _has_an_inside(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise PydanticCustomError("empty_range", "has a 'max' below its 'min'")
        return self


DescendantsOutcome = Literal["succeeded", "finished", "ignored"]
"""What must become of the tasks that a job starts: each succeeds, once; each comes to an end; it
does not matter."""


def _form(value: object) -> str | None:
    """Return which of its forms a field is written in: "(short)", "(long)", None: neither."""
    if isinstance(value, (dict, fields.Document)):
        return "(long)"
    return "(short)" if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def _either(must: str) -> Discriminator:
    return Discriminator(_form, custom_error_type="no_form", custom_error_message=must)


_Short, _Long = Tag("(short)"), Tag("(long)")
_OF_COUNT = _either('must be a number, or an object with "min" and "max"')
_OF_DESCENDANTS = _either('must be one of "succeeded", "finished" or "ignored", or an object')


class ExpectedDescendants(fields.Document):
    """The demands on the tasks that a job starts, and on those that these start."""

    outcome: DescendantsOutcome = "succeeded"
    """"succeeded": each of them, once; "finished": each comes to an end; "ignored"."""
    count: (
        Annotated[Annotated[fields.Count, _Short] | Annotated[CountRange, _Long], _OF_COUNT] | None
    ) = None
    """How many there must be, or from how many to how many."""
    tasks: Names | None = None
    """The names of their tasks: each of these, and no other, must be among them."""


ASKED_BY_NAME: Final = frozenset(("result", "descendants"))
"""Expectations whose default, where it is given, says more than nothing."""


class Expectations(fields.Document):
    """The demands on an entry's receipt."""

    state: State = "succeeded"
    """How the task must end."""
    result: fields.Json = None
    """What the result must contain: objects contain, arrays are equal, true is not 1."""
    result_schema: fields.JsonObject | None = Field(default=None, alias="schema")
    """A JSON Schema (2020-12) that the result must satisfy."""
    error: ExpectedError | None = None
    """The error that the task must end with; goes with a state other than "succeeded"."""
    max_runtime: fields.Seconds | None = None
    """The longest that the task may run, in seconds from its start."""
    max_wait: fields.Seconds | None = None
    """The longest that the task may wait before it starts, in seconds from its sending."""
    executions: Annotated[int, Field(ge=1, le=MOST)] = 1
    """How often the job may run; Celery's own retries of the task are not counted."""
    descendants: Annotated[
        Annotated[DescendantsOutcome, _Short] | Annotated[ExpectedDescendants, _Long],
        _OF_DESCENDANTS,
    ] = "succeeded"
    """What must become of the tasks that the job starts, and of those that these start."""

    @property
    def of_descendants(self) -> ExpectedDescendants:
        """Return what is expected of the tasks that the job starts, in its long form."""
        given = self.descendants
        if isinstance(given, ExpectedDescendants):
            return given
        return ExpectedDescendants(outcome=given)

    @property
    def is_nothing(self) -> bool:
        """Return whether it demands no more than an entry without expectations does.

        A result that is null is demanded where it is named, and so is what descendants become.
        """
        return self == _NOTHING and self.model_fields_set.isdisjoint(ASKED_BY_NAME)

    @field_validator("result_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if value is not None:
            why = schema_problem(value)
            if why:
                raise PydanticCustomError(
                    "json_schema", "is not a valid JSON Schema (2020-12): {why}", {"why": why}
                )
        return value

    @field_validator("error")
    @classmethod
    def _goes_with_a_failure(
        cls, value: ExpectedError | None, info: ValidationInfo
    ) -> ExpectedError | None:
        if value is not None and info.data.get("state") == "succeeded":
            raise PydanticCustomError(
                "error_without_failure",
                "'error' is expected of a task whose 'state' is to be \"succeeded\"; "
                'add "state": "failed"',
            )
        return value


_NOTHING: Final = Expectations()


class Entry(fields.Document):
    """One background job of a manifest."""

    id: fields.Name
    """Unique within the manifest; printable, at most 200 characters."""
    task: fields.Name
    """The name that the task is registered under."""
    args: fields.JsonArray = Field(default_factory=list)
    """Positional arguments."""
    kwargs: fields.JsonObject = Field(default_factory=dict)
    """Keyword arguments."""
    queue: fields.Name | None = None
    """The queue to send to; without it the app's routes decide."""
    priority: Annotated[int, Field(ge=0, le=255)] | None = None
    """The message's priority; what it means is the broker's."""
    countdown: fields.Seconds | None = None
    """Seconds from the sending before which the task must not start."""
    eta: fields.Time | None = None
    """The time before which the task must not start."""
    expires: fields.Expiry | None = None
    """Seconds from the sending, or the time, after which the task must not start."""
    headers: fields.Headers = Field(default_factory=dict)
    """Headers that its message carries besides Celery's, like a tenant's: texts, whole numbers."""
    timeout: fields.PositiveSeconds = 300.0
    """The longest that the task may run, in seconds from its start."""
    deadline: fields.PositiveSeconds | None = None
    """Seconds from the sending by which there must be a verdict."""
    retries: fields.Count = 0
    """How often the harness may send it again."""
    idempotent: bool = False
    """Whether running it twice does no harm."""
    reuse: bool = True
    """Whether an earlier pass of the same work may count instead, where that is asked for."""
    after: Names = Field(default_factory=list)
    """Ids of entries that must pass before this one is sent."""
    key: fields.Keys = Field(default_factory=dict)
    """Whose job it is, or what it uses, like a tenant; ``--manifest-key-limit`` counts it."""
    tags: Names = Field(default_factory=list)
    """Select an entry's test by -m and -k."""
    cost: fields.Amount | None = None
    """Estimated cost, in units of your own."""
    meta: fields.JsonObject = Field(default_factory=dict)
    """Anything; shown in reports."""
    expect: Expectations = Field(default_factory=Expectations)
    """What the receipt must look like."""

    @field_validator("eta")
    @classmethod
    def _is_alone(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is not None and info.data.get("countdown") is not None:
            raise PydanticCustomError(
                "countdown_and_eta", "'countdown' and 'eta' exclude each other; keep one"
            )
        return value

    @field_validator("after")
    @classmethod
    def _names_others(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("id") in value:
            raise PydanticCustomError(
                "after_itself", "'after' names the entry itself; take that id out"
            )
        return value


class Header(fields.Document):
    """The first line of a manifest; files written by hand may leave it out."""

    manifest: fields.Version = 1
    """The version of this format."""
    workflow: fields.Identifier | None = None
    """The workflow whose planning fixture wrote the file."""
    mode: fields.Identifier | None = None
    """The mode that was planned."""
    params: fields.JsonObject = Field(default_factory=dict)
    """The options that it was planned with."""
    planned_at: fields.Time | None = None
    """When it was planned."""
    entries: fields.Count | None = None
    """How many lines follow."""
    sha256: fields.Sha256 | None = None
    """SHA-256, in lower-case hex, of the bytes of all lines after this one."""
    rerun: bool = True
    """Whether a finished run of this manifest may simply be run again."""
