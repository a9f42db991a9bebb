"""Define the facts of a job that a ledger holds: what was seen or done, by whom and when.

A fact is set once and never changed; everything else is a function of facts. ``seq`` orders all
facts and verdicts of one run, and is compared within that run only. Reports of workers and of the
result store (see :data:`REPORTS`) commute between two milestones, which all others are; those are
never reordered, nor are ``Job.seq`` and verdicts. The facts of a run are in ``schema.run_facts``.

Make classes of values that are never changed, where hundreds of thousands of them are made.

For a type checker they are frozen. Python itself is not asked to watch over that: it would set each
field by a call, which took a third of the time of judging an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import ClassVar, Final, Literal, TypeVar

from typing_extensions import dataclass_transform

from pytest_manifest.schema.receipts import Receipt

Made = TypeVar("Made")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[Made]) -> type[Made]:
    """Return it as a class of values."""
    return dataclass(slots=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def named_value(cls: type[Made]) -> type[Made]:
    """Return it as a class of values whose fields are given by name."""
    return dataclass(slots=True, kw_only=True)(cls)


class Kind(IntEnum):
    """The kinds of facts, by their codes in a ledger; a code is never given another meaning."""

    # Of a job, by the controller, a search or an operator
    WITHHELD = 1
    SENDING = 2
    SEND_RESULT = 3
    GONE = 4
    NOWHERE = 5
    SEEN = 6
    MOVED = 7
    TIME_OVER = 8
    RECALLED = 9
    TAKEN_UP = 10
    # Of a job, by workers or the result store
    STARTED = 20
    HANDED_ON = 21
    ENDED = 22
    STORED = 23
    CHILD_UNSENT = 24
    CHILD_ELSEWHERE = 25
    ANNOUNCED = 26
    CLOSED = 27
    # Of a run
    SEGMENT = 40
    SEGMENT_ENDED = 41
    TASK = 42
    STORE = 43
    NODE = 44
    PLACE = 45
    SEARCH = 46
    SET_BACK = 47
    RUN_OVER = 48
    THROTTLED = 50
    STEERED = 49


REPORTS: Final = frozenset(
    {
        *(Kind.STARTED, Kind.HANDED_ON, Kind.ENDED, Kind.STORED),
        *(Kind.CHILD_UNSENT, Kind.CHILD_ELSEWHERE, Kind.ANNOUNCED, Kind.CLOSED),
    }
)
"""Kinds that workers and the result store report: between two milestones their order is nothing."""


class FactSource(IntEnum):
    """Name those who know a fact; only the judge weighs them."""

    CONTROLLER = 1
    WORKER = 2
    """A worker, unsigned, or by a signature that nobody has asked for."""
    SIGNED_WORKER = 3
    """A worker whose signature was checked by the run's keys."""
    STORE = 4
    """The result store, by hearsay."""
    SEARCH = 5
    SUPERVISOR = 6
    """The parent of the private stack's worker processes."""
    OPERATOR = 7


@named_value
class Fact:
    """A fact; ``at`` is the controller's time (UTC), ``job`` a task id, "" of a fact of the run."""

    kind: ClassVar[Kind]
    seq: int
    at: datetime
    source: FactSource = FactSource.CONTROLLER
    job: str = ""

    def __init_subclass__(cls, kind: Kind | None = None) -> None:
        if kind is not None:  # which is not given again where slots make the class anew
            cls.kind = kind


@named_value
class JobFact(Fact):
    """A fact of a job."""


# Jobs: an attempt of an entry, or a descendant of one

Why = Literal["first", "retry", "resume", "requeue", "reuse"]
"""Why an attempt is made: ``retry`` counts towards the entry's ``retries``; an operator has asked
for a ``requeue``."""


@named_value
class Reused:
    """The origin of a reused attempt; ``by`` is the run that reuses it, ``at`` (UTC) when."""

    run: str
    entry: str
    attempt: int
    by: str
    at: datetime


@named_value
class Spawn:
    """The start of a descendant by its parent; see ``results.records.Child``.

    ``by_record``: by the record of its spawning, which wins over what a start alone reports of it.
    ``announcement``: the key under which it was announced, of one that nobody has reported sent.
    """

    root: str
    parent: str
    task: str
    how: str
    queue: str | None = None
    fulfils: str | None = None
    chords: tuple[str, ...] | None = None
    due: datetime | None = None
    spawned_at: datetime | None = None
    by_record: bool = True
    announcement: str = ""

    @property
    def delay(self) -> float:
        """Return the seconds of its countdown, or until its ETA."""
        if self.due is None or self.spawned_at is None:
            return 0.0
        return max((self.due - self.spawned_at).total_seconds(), 0.0)


@named_value
class Job:
    """A job: an attempt that was planned at ``seq``, or a descendant that was reported then.

    ``asked_for``: an operator had it sent though one before it may have run.
    """

    task_id: str
    entry: str
    number: int
    run: str
    seq: int
    at: datetime
    position: int = 0
    why: Why = "first"
    asked_for: bool = False
    reused: Reused | None = None
    spawn: Spawn | None = None

    @property
    def root(self) -> str:
        """Return the task id of the attempt that it is, or descends from."""
        return self.task_id if self.spawn is None else self.spawn.root


# What the controller does with a job

WithheldCode = Literal["unknown_task", "after", "canary", "max_failed", "budget", "operator"]


@named_value
class Withheld(JobFact, kind=Kind.WITHHELD):
    """The attempt is not sent.

    ``names``: the nearest names of an unknown task; the chain of entries that it waits for; the
    canary's entries that did not pass. ``fields``: figures, by their names in the verdict's reason.
    """

    code: WithheldCode
    names: tuple[str, ...] = ()
    fields: Mapping[str, str | int] = field(default_factory=dict)


@named_value
class Sending(JobFact, kind=Kind.SENDING):
    """The job's message is about to be published for the ``number``-th time, from 1.

    ``sent_at`` is None where another copy of the ledger has it.
    """

    number: int
    sent_at: datetime | None


SendOutcome = Literal["published", "uncertain", "unsent", "refused"]
"""published: the broker has it; uncertain: the broker failed meanwhile; unsent: the broker took
nothing of it; refused: no broker ever will, ``error`` says why."""


@named_value
class SendResult(JobFact, kind=Kind.SEND_RESULT):
    """The result of a sending; ``is_unmade``: the task's own ``apply_async`` made no message."""

    number: int
    outcome: SendOutcome
    error: str = ""
    is_unmade: bool = False


Place = Literal["queue", "worker", "unacked", "unknown"]
"""queue: it waits there; worker: one that answers has it; unacked: one that does not answer, or is
gone, had taken it; unknown: two looks do not tell."""


@named_value
class Gone(JobFact, kind=Kind.GONE):
    """The process that ran an execution has ended: by its pid here, or as its supervisor says."""

    execution: str
    pid: int | None = None
    exit_code: int | None = None
    worker: str | None = None


@named_value
class Nowhere(JobFact, kind=Kind.NOWHERE):
    """Two looks found the job in no place, and could see all of them.

    ``as_of``: the last fact that had been recorded when the second look was taken.
    """

    as_of: int


@named_value
class Seen(JobFact, kind=Kind.SEEN):
    """A search found the job, where its place decides something; ``holder``: the silent node."""

    place: Place
    as_of: int
    holder: str | None = None


@named_value
class Moved(JobFact, kind=Kind.MOVED):
    """A dead worker's message was handled.

    put_back: it is in its queue again; taken_out: no worker will run it; left: it may not be moved.
    """

    how: Literal["put_back", "taken_out", "left"]


@named_value
class TimeOver(JobFact, kind=Kind.TIME_OVER):
    """A job's own time is over: an execution's ``timeout``, or its entry's ``deadline``.

    ``limit`` (s). Recorded once a worker's process was asked for and the job seen to run, not wait.
    """

    of: Literal["timeout", "deadline"]
    limit: float
    execution: str | None = None


RecallReason = Literal["stop", "time", "deadline", "max_failed", "poison", "operator"]


@named_value
class Recalled(JobFact, kind=Kind.RECALLED):
    """The run takes a job back.

    asked: its revocation is cast; heard: every worker knows of it and none runs the job, so none
    will; withdrawn: the same, and its message was taken out of our own stack before any began it.
    ``why``: "time" is the run's deadline, "deadline" the entry's, "poison" that it kills workers.
    """

    why: RecallReason
    stage: Literal["asked", "heard", "withdrawn"]


@named_value
class TakenUp(JobFact, kind=Kind.TAKEN_UP):
    """The entry's verdict is taken back: what the run had given up is awaited again."""

    why: Literal["resume", "audit", "keys", "requeue"]


# What workers report of a job, and what the result store has of it


@named_value
class Started(JobFact, kind=Kind.STARTED):
    """An execution began; ``started_at`` is the worker's time.

    ``pid`` means the same where ``host``, ``boot`` and ``namespace`` are the same.
    """

    execution: str
    started_at: datetime | None = None
    retries: int = 0
    hop: int = 0
    redelivered: bool = False
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    boot: str | None = None
    namespace: str | None = None


@named_value
class HandedOn(JobFact, kind=Kind.HANDED_ON):
    """An execution ended and its job goes on; see ``results.records.HandedOnRecord``."""

    execution: str
    how: str
    ended_at: datetime | None = None
    next_at: datetime | None = None
    cost: float | None = None
    queue: str | None = None


@named_value
class Ended(JobFact, kind=Kind.ENDED):
    """A worker's receipt of the job's end; ``execution`` is None where that is not reported.

    ``fault``: why it is not believed by the run's keys, "" where it is.
    """

    receipt: Receipt
    execution: str | None = None
    fault: str = ""


@named_value
class Stored(JobFact, kind=Kind.STORED):
    """The result store's own record of an end, once per content, by hearsay.

    Either ``receipt``, or ``unreadable``: why it cannot be read here. ``fault`` as of an
    :class:`Ended`.
    """

    receipt: Receipt | None = None
    unreadable: str = ""
    fault: str = ""


@named_value
class ChildUnsent(JobFact, kind=Kind.CHILD_UNSENT):
    """No broker took the descendant's message, as far as its parent could see."""


@named_value
class ChildElsewhere(JobFact, kind=Kind.CHILD_ELSEWHERE):
    """The descendant's message went to another broker than its parent's."""

    broker: str


@named_value
class Announced(JobFact, kind=Kind.ANNOUNCED):
    """Messages to come of a tree, of which ``job`` is the root; see ``results.records``."""

    key: str
    announcer: str
    how: str
    task: str
    number: int
    task_ids: tuple[str, ...] = ()
    is_off: bool = False


@named_value
class Closed(JobFact, kind=Kind.CLOSED):
    """Nothing more comes by an announcement of a tree, of which ``job`` is the root."""

    key: str
