"""Define the document of a run at one moment: how far it is, how fast, and what to know of it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.statuses import VerdictStatus

MOST_BYTES: Final = 16_000
"""Bytes of the document as JSON at most, whatever the size of the run."""
MOST_BUCKETS: Final = 600
MOST_NOTICES: Final = 3

RunState = Literal["running", "paused", "draining", "finished", "stopped", "detached", "left"]
"""paused: nothing new is sent, by an operator; draining: the same, and it ends with what is in
flight; detached: its workers go on without pytest; left: its pytest is gone, and has not said how
the run ended."""
IS_OVER: Final[frozenset[RunState]] = frozenset({"finished", "stopped", "detached", "left"})
"""States in which no pytest works on the run."""
FlagKind = Literal["worker", "limit", "paused", "resumed", "began"]
"""worker: a process or a worker is gone; limit: one was changed; paused, resumed: the sending was;
began: pytest took the run up."""
NoticeCode = Literal[
    "left", "quiet", "worker", "paused", "slow", "limit", "cause", "budget", "no_pass", "eta"
]
"""left: its pytest is gone; quiet: nothing was heard for two minutes; worker: one died, or is
silent; paused: nothing is sent, by an operator or by back-pressure; slow: the rate fell; limit: one
will strike; cause: one is new, or rising; budget: it will not last; no_pass: no entry of a task has
passed; eta: the end has moved."""
Moment: TypeAlias = fields.Time | None
Setting: TypeAlias = bool | int | fields.Number | fields.Text | None


class StatusEta(fields.Document):
    """The foreseen end of a run: when nothing waits any more."""

    at: fields.Time
    """When it is foreseen by the rate of the last ten minutes."""
    earliest: fields.Time
    """By the highest of the rates of the last minute, ten minutes and the whole run."""
    latest: fields.Time
    """By the lowest of them."""
    before: Moment = None
    """What was foreseen earlier; null: it is too early for that."""
    before_at: Moment = None
    """When that was foreseen."""


class StatusCause(fields.Document):
    """Entries that went wrong in the same way, as in the summary."""

    number: fields.Count
    """Its number, by which commands name it; it stays the same for as long as the run lasts."""
    title: fields.Text
    """The cause in a line."""
    kind: VerdictStatus
    """Their verdict."""
    count: fields.Count
    """How many they are."""
    last_minute: fields.Count
    """How many of them were judged in the last minute."""
    is_new: bool | None
    """Whether the last run of the manifest did not have it; null: there was none."""
    example: fields.Name
    """The id of the first of them."""
    message: fields.Text
    """What that one says, shortened."""


class StatusWorker(fields.Document):
    """A worker, by its name in Celery."""

    name: fields.Text
    """Celery's name of it."""
    running: fields.Count
    """How many jobs it runs."""
    done: fields.Count
    """How many jobs it has ended, those that these started included."""
    rate: fields.Number
    """How many of these a second in the last minute."""
    heard: Moment
    """When something was last heard from it; null: never."""
    has: list[fields.Name]
    """The ids of the entries that it runs, the longest first, three at most."""
    is_gone: bool = False
    """Whether it has what it began, and its process is gone, or it answers nobody."""


class StatusTask(fields.Document):
    """The entries of one task."""

    task: fields.Name
    """The task's name."""
    waiting: fields.Count | None
    """How many have no verdict and do not run, sent or not; null: the manifest is not at hand."""
    running: fields.Count | None
    """How many run; null: the manifest is not at hand."""
    passed: fields.Count
    """How many have passed."""
    failed: fields.Count
    """How many have failed, or have an unknown fate."""
    p50: fields.Number | None
    """The median of their runtimes in seconds."""
    p95: fields.Number | None
    """The 95th percentile of their runtimes in seconds."""


class StatusRunning(fields.Document):
    """An entry whose job is running."""

    id: fields.Name
    """The entry's id."""
    task: fields.Text | None
    """The task's name; null: the manifest is not at hand."""
    seconds: fields.Number
    """For how long it has been running."""
    p95: fields.Number | None
    """The 95th percentile of the runtimes of its task; null: none has ended."""
    worker: fields.Text | None
    """The worker that runs it, as ``worker#pid``."""


class StatusCost(fields.Document):
    """The cost of a run, in the entries' unit."""

    total: fields.Number | None
    """All attempts that have ended; null: no receipt tells a cost."""
    budget: fields.Number | None
    """What it may cost; null: not limited."""
    foreseen: fields.Number | None
    """What the whole will cost, if the rest costs as much an entry; null: not known."""


class StatusAction(fields.Document):
    """A command of an operator that took effect, or waits for a pytest that carries it out."""

    at: fields.Time
    """When it took effect, or was given."""
    action: fields.Text
    """What was done: pause, resume, drain, set, cancel, requeue or stop."""
    by: fields.Text
    """Who gave the command."""
    reason: fields.Text
    """Why, in that one's words."""
    changed: bool
    """Whether something is otherwise by it."""
    data: dict[str, Setting] = Field(default_factory=dict)
    """What was set, or how many entries it was about; long values are left out."""
    waits: bool = False
    """Whether no pytest has carried it out yet."""


class StatusThrottle(fields.Document):
    """A time in which the sending was held back: back-pressure."""

    began: fields.Time
    """Since when."""
    ended: Moment
    """Until when; null: it still is."""
    why: fields.Text
    """rate, queue or health."""
    detail: fields.Text
    """What it is held back by."""
    key: fields.Text = ""
    """The value of a key that it is about; empty: it is about all."""


class StatusNotice(fields.Document):
    """A thing to know."""

    code: NoticeCode
    """What it is about."""
    text: fields.Text
    """What happened, in a sentence."""
    evidence: fields.Text
    """By which figures that is known."""
    remedy: fields.Text
    """What to do, or the command that does it."""
    since: Moment = None
    """Since when; null: not of a moment."""


class StatusFlag(fields.Document):
    """A moment that the plot of the rate marks."""

    at: fields.Time
    """When it was."""
    kind: FlagKind
    """What it was."""
    text: fields.Text
    """What it was, in words."""


class StatusSeries(fields.Document):
    """The run over time, in buckets of equal width, at most 600."""

    began: fields.Time
    """When the first bucket begins; the n-th begins n times ``width`` later."""
    width: fields.Count
    """Seconds that a bucket is wide; it doubles when there would be too many."""
    done: list[fields.Count]
    """How many entries were judged in each bucket, without reused ones."""
    failed: list[fields.Count]
    """How many of them failed, or have an unknown fate."""
    flags: list[StatusFlag] = Field(default_factory=list)
    """Moments to mark, the last twenty."""


class RunStatus(fields.Document):
    """A run at one moment, in one document of at most 16 kB."""

    run_status: fields.Version = 1
    """The version of this format."""
    run: fields.Name
    """The run's id."""
    manifest: fields.Text
    """The manifest's file."""
    state: RunState
    """Whether it goes on, and by whom."""
    at: fields.Time
    """The moment that all of this is of."""
    began: fields.Time
    """When the run was made."""
    elapsed: fields.Number
    """Seconds for which pytest has worked on it, without the time between its parts."""
    heard: Moment
    """When the ledger was last added to; null: never."""
    total: fields.Count
    """How many entries it has."""
    done: fields.Count
    """How many have a verdict; ``done``, ``running``, ``waiting`` and ``unsent`` make the total."""
    sent: fields.Count
    """How many were sent, be they done or not."""
    running: fields.Count
    """How many run on a worker, by their own jobs or by tasks that these have started."""
    waiting: fields.Count
    """How many were sent, and neither run nor have a verdict."""
    waiting_since: Moment = None
    """When the message was sent that waits longest to be begun; null: none waits."""
    unsent: fields.Count
    """How many were not sent, and have no verdict."""
    retrying: fields.Count = 0
    """How many of the waiting ones wait for a next try that their task has asked for."""
    next_try: Moment = None
    """When the first of these is due; null: not known."""
    reused: fields.Count = 0
    """How many of those done were judged by a job of an earlier run."""
    counts: dict[VerdictStatus, fields.Count]
    """How many entries have which verdict, as ``manifest show`` counts them."""
    accepted: fields.Count = 0
    """How many of those that failed are accepted by ``dispositions.toml``."""
    rate: fields.Number | None
    """Entries judged a second in the last minute; in more, if that had fewer than ten."""
    median_rate: fields.Number | None
    """The median of its minutes; null: it has had none yet."""
    eta: StatusEta | None
    """When it is foreseen to end; null: it is over, or that cannot be foreseen."""
    verdict: fields.Text | None = None
    """What it came to, in a line; null: it goes on."""
    notices: list[StatusNotice] = Field(max_length=MOST_NOTICES)
    """Things to know, the most important first."""
    causes: list[StatusCause]
    """What goes wrong, the largest first."""
    more_causes: fields.Count = 0
    """How many further causes there are."""
    workers: list[StatusWorker]
    """Its workers, those in trouble first."""
    more_workers: fields.Count = 0
    """How many further workers there are."""
    tasks: list[StatusTask]
    """Its tasks, those with most entries first."""
    more_tasks: fields.Count = 0
    """How many further tasks there are."""
    longest: list[StatusRunning]
    """The entries that have been running longest."""
    cost: StatusCost
    """What it has cost."""
    limits: dict[fields.Text, Setting]
    """The limits in force, by the names by which they are set."""
    actions: list[StatusAction]
    """What operators have done, the newest first."""
    throttling: list[StatusThrottle]
    """When the sending was held back, the newest first."""
    series: StatusSeries
    """The run over time."""

    @property
    def is_over(self) -> bool:
        """Return whether no pytest works on it."""
        return self.state in IS_OVER
