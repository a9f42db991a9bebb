"""Define what is told of a run while nobody looks: counts, causes and links, never contents."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.run_status import RunState
from pytest_manifest.schema.statuses import VerdictStatus

EventName = Literal["first_failure", "stalled", "late", "recovered", "finished"]
"""first_failure: the first entry went wrong; stalled: nothing is heard of the run, or its pytest is
gone; late: it takes longer than nineteen of twenty earlier runs; recovered: it goes on again;
finished: pytest has ended it, however."""
EVENTS: Final[tuple[EventName, ...]] = get_args(EventName)
MOST_CAUSES: Final = 5


class EventCause(fields.Document):
    """Entries that went wrong in the same way; without what they say, which may have contents."""

    title: fields.Text
    """The cause in a line: the kind of error and its place, or what is not as expected."""
    kind: VerdictStatus
    """Their verdict."""
    count: fields.Count
    """How many they are."""


class EventLink(fields.Document):
    """A place to read on."""

    name: fields.Text
    """What is there."""
    at: fields.Text
    """An address, or a path on the machine that pytest runs on."""


class RunEvent(fields.Document):
    """Something that happened to a run, of which somebody should know."""

    run_event: fields.Version = 1
    """The version of this format."""
    event: EventName
    """What happened."""
    title: fields.Text
    """The event in a line."""
    run: fields.Name
    """The run's id."""
    manifest: fields.Text
    """The manifest's file, from the project's folder."""
    at: fields.Time
    """The moment that all of this is of."""
    state: RunState
    """Whether the run goes on, and by whom."""
    is_bad: bool
    """Whether it needs somebody: false of recovered, and of a session that ended with 0."""
    exit_status: fields.Count | None = None
    """pytest's exit status; null: it has not ended."""
    elapsed: fields.Number
    """Seconds for which pytest has worked on the run."""
    total: fields.Count
    """How many entries the run has."""
    done: fields.Count
    """How many have a verdict."""
    counts: dict[VerdictStatus, fields.Count]
    """How many entries have which verdict."""
    causes: list[EventCause] = Field(max_length=MOST_CAUSES)
    """What goes wrong, the largest first, five at most."""
    links: list[EventLink]
    """Where to read on."""
