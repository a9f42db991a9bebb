"""Define the document of runs over time: what changed from run to run, and what is worth a look."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.run_digest import Partial

EntryKind = Literal["broken", "flaky", "one bad run", "mended"]
"""broken: red in every run since one; flaky: three changes between red and green, or more; one bad
run: red once, green since; mended: red in several runs, green since."""


class Change(fields.Document):
    """A difference of a run from the last one before it that can be compared."""

    what: Literal["code", "python", "celery", "stack", "manifest", "version"]
    """The code of a task, its worker's Python or Celery, the broker or result store, the manifest's
    lines, or the version of pytest-celery-manifest."""
    task: fields.Name | None = None
    """The task whose code it is; null: it is of the whole run."""
    before: fields.Text
    """What it was."""
    after: fields.Text
    """What it is."""


class RunOfMany(fields.Document):
    """One run of the history."""

    n: fields.Count
    """Its place in the history, from 1: what "run 21" means."""
    run: fields.Name
    """The run's id."""
    at: fields.Time
    """When it was made."""
    status: fields.Text
    """Whether it finished."""
    partial: Partial | None = None
    """Why it is not the whole manifest's, and counts in no trend; null: it is."""
    incident: bool = False
    """Whether half of its entries or more were red: then it says nothing about single ones."""
    entries: fields.Count
    """How many entries it had."""
    passed: fields.Count
    """How many passed."""
    bad: fields.Count
    """How many failed, or have no known end."""
    reused: fields.Count = 0
    """How many were judged by jobs of earlier runs."""
    duration: fields.Number | None = None
    """Seconds for which it was worked on."""
    rate: fields.Number | None = None
    """Jobs that ended, per second of that."""
    cost: fields.Number | None = None
    """What it has cost."""
    changes: list[Change] = Field(default_factory=list)
    """What changed in it."""


class Break(fields.Document):
    """Entries that are red since the same run: the first bad run."""

    since: fields.Count
    """The place of that run."""
    count: fields.Count
    """How many entries."""
    tasks: list[fields.Name]
    """Their tasks, that of most first."""
    examples: list[fields.Name]
    """Ids of the first ten."""
    changes: list[Change]
    """What changed in that run, the code of other tasks left out."""
    sentence: fields.Text
    """All of it in words."""


class Slowdown(fields.Document):
    """A task that takes longer since a run, by the rank test over runs."""

    since: fields.Count
    """The place of the first of the slower runs."""
    before: fields.Number
    """The median of the medians of the runs before, in seconds."""
    after: fields.Number
    """The same since then."""
    ratio: fields.Number
    """How many times as long that is."""
    chance: fields.Number
    """How likely the order of the runs' medians would be, had nothing changed."""


class TaskOverTime(fields.Document):
    """One task, a value for each run; null: the run did not have it."""

    task: fields.Name
    """The task's name."""
    bad: list[fields.Count | None]
    """How many of its entries were red."""
    count: list[fields.Count | None]
    """How many it had."""
    p50: list[fields.Number | None]
    """The median of the seconds of its jobs that passed."""
    change: fields.Number | None = None
    """How many times as long the last whole run's median is as that of the first five."""
    slower: Slowdown | None = None
    """Since when it takes longer; null: it does not, or that is not sure."""


class EntryOverTime(fields.Document):
    """An entry that was red in a run."""

    id: fields.Name
    """The entry's id, as of the last run."""
    formerly: list[fields.Name] = Field(default_factory=list)
    """What it was called before: the same work under another id."""
    task: fields.Name
    """The task's name."""
    kind: EntryKind
    """What is to be said of it."""
    states: fields.Text
    """A letter for each run: ``.`` passed, ``F`` red, ``-`` not in it, or cancelled, ``?`` not
    known, held back, or not ended."""
    since: fields.Count
    """The place of the run since which it is red, or was last."""
    bad: fields.Count
    """In how many runs it was red."""
    runs: fields.Count
    """Of how many runs its end is known."""


class Growth(fields.Document):
    """A worker whose processes' memory grows from job to job."""

    worker: fields.Text
    """Celery's name of the worker."""
    per_job: fields.Number
    """Bytes that each job adds, in the last run that shows it."""
    since: fields.Count
    """The place of the first run that shows it."""
    runs: list[fields.Count]
    """The places of all runs that do."""


class ManifestOverTime(fields.Document):
    """The runs of one manifest, oldest first."""

    manifest: fields.Text
    """The manifest's file."""
    sentence: fields.Text
    """What is most worth to know."""
    runs: list[RunOfMany]
    """The runs; merged shards are one."""
    tasks: list[TaskOverTime]
    """By task, sorted by name."""
    slower: Slowdown | None = None
    """Since when all tasks take longer, as multiples of what is usual: their own are told apart
    from that, where there are five or more."""
    breaks: list[Break] = Field(default_factory=list)
    """First bad runs, that of most entries first."""
    entries: list[EntryOverTime] = Field(default_factory=list)
    """Entries that were red, by what is to be said of them."""
    growing: list[Growth] = Field(default_factory=list)
    """Workers whose memory grows."""

    @property
    def last(self) -> RunOfMany:
        """Return the newest run."""
        return self.runs[-1]


class RunsOverTime(fields.Document):
    """The runs of a folder, by manifest."""

    history: fields.Version
    """The version of this format."""
    manifests: list[ManifestOverTime]
    """One for each manifest, the one that ran last first."""
