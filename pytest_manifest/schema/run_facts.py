"""Define the facts of a run that a ledger holds, and what the judge takes: a job's and a run's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Final, Literal, TypeVar

from pydantic import JsonValue

from pytest_manifest.schema import facts as of_jobs
from pytest_manifest.schema.facts import Fact, Job, Kind, named_value, value
from pytest_manifest.schema.facts import JobFact as JobFact


@named_value
class RunFact(Fact):
    """A fact of a run."""


@named_value
class Segment(RunFact, kind=Kind.SEGMENT):
    """A stretch of a run begins, with the settings of this start of pytest.

    ``lifetime``: seconds for which the result store keeps a result; ``window``: entries in flight
    at most, None: no limit.
    """

    kills: int
    lifetime: float
    deadline: float | None = None
    canary: int = 0
    max_failed: str | None = None
    budget: float | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, str] = field(default_factory=dict)
    window: int | None = None
    """How fast at most, like ``200/s``, by the key that it is of; "": the whole run."""
    queue_depth: int | None = None
    arguments: Sequence[str] = ()
    """Those of pytest by which another session finds run and stack, without passwords."""


@named_value
class SegmentEnded(RunFact, kind=Kind.SEGMENT_ENDED):
    """A stretch of a run ends."""

    how: Literal["finished", "stopped", "detached"]


@named_value
class TaskFact(RunFact, kind=Kind.TASK):
    """A task's code or own time limit (s), for what is sent from here on; None: not this one."""

    task: str
    code: str | None = None
    limit: float | None = None


@named_value
class StoreFact(RunFact, kind=Kind.STORE):
    """The finding of a look at the result store.

    marked: it begins; intact: it has all; emptied: it has lost what it held; unreachable: it does
    not answer. With a ``job``: of that one alone, as of one that was reused.
    """

    what: Literal["marked", "intact", "emptied", "unreachable"]


@named_value
class NodeFact(RunFact, kind=Kind.NODE):
    """Something known of a worker, or of a queue's.

    reports: it reports each start, or ended before the first message; stock: it does not report
    starts; unserved: no worker of this queue had answered; nobody: none at all had; silent: only
    its name is known; heard, left: it answered, it is gone.
    """

    name: str
    what: Literal["reports", "stock", "unserved", "nobody", "silent", "heard", "left"]


@named_value
class PlaceFact(RunFact, kind=Kind.PLACE):
    """Another broker that jobs were sent to, or the store that the app's own settings name."""

    what: Literal["other_broker", "own_store"]
    url: str


@named_value
class Search(RunFact, kind=Kind.SEARCH):
    """Both looks of a search: one row, if something is missing; ``counts`` by place."""

    as_of: int
    answered: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    blind_spot: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@named_value
class SetBack(RunFact, kind=Kind.SET_BACK):
    """The clock was set back ``by`` so many seconds; ``most``: behind the most that it ever was.

    With a ``job``: of that one alone.
    """

    by: float
    most: float


RunOverReason = Literal[
    "deadline", "unanswered", "unasked", "nobody", "undecodable", "silent", "gave_up", "ended"
]
"""deadline: the run's; unanswered: the same, while all waits and no worker has answered; unasked:
while none can be asked; nobody: no worker has answered for long; undecodable: workers answer, and
cannot decode the messages; silent: messages left the queue, and their workers answer nothing;
gave_up: a server stayed out of reach, or the stack has ended; ended: an audit looks at a run that
was stopped, or killed."""


@named_value
class RunOver(RunFact, kind=Kind.RUN_OVER):
    """The run ends before its work, with all that has no verdict.

    ``error``: why there was no last look, or why it gave up; ``fields``: figures, by their names in
    the verdicts' reason.
    """

    why: RunOverReason
    limit: float | None = None
    error: str = ""
    fields: Mapping[str, str | int] = field(default_factory=dict)


ThrottleCause = Literal["rate", "queue", "health"]
"""rate: sending is as fast as it may be; queue: too many messages wait; health: the project's
``manifest_health`` asks for it."""


@named_value
class Throttled(RunFact, kind=Kind.THROTTLED):
    """Sending begins to be held back, or no longer is (``is_over``).

    ``key``: like ``tenant=acme`` where only that key's entries wait; ``detail``: for people.
    """

    why: ThrottleCause
    detail: str
    is_over: bool = False
    key: str = ""


Action = Literal["pause", "resume", "drain", "set", "cancel", "requeue", "stop"]
"""pause: send nothing new; resume: send again; drain: pause, and end when nothing is in flight;
set: other limits; cancel: entries are not wanted any more; requeue: they are sent again; stop: end
now."""


@named_value
class Steered(RunFact, kind=Kind.STEERED):
    """An operator's command took effect: the ``command``-th of the ledger, by whom and why.

    ``changed``: it made a difference; ``data``: the limits that were set, by their names, the
    entries that were cancelled or sent again, or how the run is to end.
    """

    command: int
    action: Action
    by: str
    reason: str = ""
    changed: bool = True
    data: Mapping[str, JsonValue] = field(default_factory=dict)


def names_in(data: Mapping[str, JsonValue]) -> Sequence[str]:
    """Return the entries that a command, or its fact, names."""
    given = data.get("entries")
    return [str(one) for one in given] if isinstance(given, list | tuple) else []


def cancelled_by(steered: Iterable[Steered]) -> frozenset[str]:
    """Return the entries that operators have cancelled, and not asked for again since."""
    found = set[str]()
    for one in steered:
        names = {str(name) for name in names_in(one.data)}
        if one.action == "cancel":
            found |= names
        elif one.action == "requeue":
            found -= names
    return frozenset(found)


_CLASSES: Final[tuple[type[JobFact | RunFact], ...]] = (
    *JobFact.__subclasses__(),
    *RunFact.__subclasses__(),
)
KINDS: Final = {one.kind: one for one in _CLASSES}  # of two of one name the later one has slots


# What the judge takes


AnyFact = TypeVar("AnyFact", bound=Fact)


_PLAIN: Final = frozenset({of_jobs.Sending, of_jobs.SendResult, of_jobs.Started, of_jobs.Ended})


@value
class JobFacts:
    """A job with its facts, by ``seq``.

    ``extra`` are facts of the run that were copied for this job alone, as one is reused.
    """

    job: Job
    facts: tuple[JobFact, ...] = ()
    extra: tuple[StoreFact | SetBack, ...] = ()
    _by_kind: dict[type[Fact], list[Fact]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def until(self, seq: int) -> JobFacts:
        """Return what was known of it by then."""
        if not self.extra and (not self.facts or self.facts[-1].seq <= seq):
            return self
        return JobFacts(self.job, _until(self.facts, seq), _until(self.extra, seq))

    def each(self, kind: type[AnyFact]) -> Sequence[AnyFact]:
        """Return its facts of one kind, by ``seq``."""
        kinds = self._by_kind if self._by_kind is not None else self._kinds()
        return kinds.get(kind, ())  # type: ignore[return-value]  # by its own class

    def _kinds(self) -> dict[type[Fact], list[Fact]]:
        if self._by_kind is None:
            object.__setattr__(self, "_by_kind", _by_kind(self.facts))
        return self._by_kind or {}

    @property
    def is_plain(self) -> bool:
        """Return whether all that is known of it is that it was sent, began and ended."""
        if not self._kinds().keys() <= _PLAIN:
            return False
        # Without a generator, as it is asked of each entry.
        return not [one for one in self.each(of_jobs.SendResult) if one.outcome != "published"]


def _each(kind: type[AnyFact]) -> cached_property[tuple[AnyFact, ...]]:
    """Return a property: the run's facts of one kind, by ``seq``."""
    return cached_property(lambda run: run.each(kind))


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of the run that sent a job; immutable, each as of its ``seq``.

    ``signed_only``: only what trusted workers have signed counts. ``has_stream``: workers can
    report starts into its store. ``first_start``: the ``seq`` of the first start that any job of it
    reported, None where none has. ``upto``: the last fact that counts, None: all do.
    """

    run: str
    created_at: datetime
    is_private: bool
    backend: str = ""
    stream_ttl: float = 0.0
    signed_only: bool = False
    has_stream: bool = True
    first_start: int | None = None
    facts: tuple[RunFact, ...] = ()
    upto: int | None = None

    segments = _each(Segment)
    tasks = _each(TaskFact)
    store = _each(StoreFact)
    nodes = _each(NodeFact)
    places = _each(PlaceFact)
    set_backs = _each(SetBack)
    steered = _each(Steered)

    @property
    def has_doubts(self) -> bool:
        """Return whether the store may have lost reports, or the clock was set back."""
        lost = any(one.what in ("emptied", "unreachable") for one in self.store)
        return bool(self.set_backs) or lost

    overs = _each(RunOver)

    @property
    def deadline(self) -> float:
        """Return the seconds that the present stretch of the run has, as was set last."""
        found: list[Segment | Steered] = [*self.segments[-1:]]
        since = found[0].seq if found else 0
        found += [one for one in self.steered if one.seq > since and "deadline" in one.data]
        last = found[-1] if found else None
        if isinstance(last, Steered):
            given = last.data["deadline"]
            return float(given) if isinstance(given, int | float) else 0.0
        return 0.0 if last is None else last.deadline or 0.0

    @cached_property
    def of_reused(self) -> RunFacts:
        """Return what of it judges a job that another run had sent: rules and code alone.

        What that run knew of its store, clock and workers is among the job's own facts.
        """
        return replace(self, facts=(*self.segments, *self.tasks), first_start=None)

    def until(self, seq: int) -> RunFacts:
        """Return what was known of the run by then."""
        upto = seq if self.upto is None else min(seq, self.upto)
        first = self.first_start
        started = first if first is not None and first <= upto else None
        if self._newest <= upto and started == first:
            return self
        found = replace(self, upto=upto, first_start=started)
        vars(found)["_by_kind"] = self._by_kind  # which many that look back at it share
        return found

    @cached_property
    def _newest(self) -> int:
        return max((one.seq for one in self.facts), default=0) if self.upto is None else self.upto

    @cached_property
    def _by_kind(self) -> Mapping[type[Fact], Sequence[Fact]]:
        return _by_kind(self.facts)

    def each(self, kind: type[AnyFact]) -> tuple[AnyFact, ...]:
        found: Sequence[AnyFact]
        found = self._by_kind.get(kind, ())  # type: ignore[assignment]  # by its own class
        return tuple(found) if self.upto is None else _until(found, self.upto)


def _by_kind(facts: Iterable[Fact]) -> dict[type[Fact], list[Fact]]:
    found: dict[type[Fact], list[Fact]] = {}
    for one in facts:
        found.setdefault(type(one), []).append(one)
    return found


def _until(facts: Iterable[AnyFact], seq: int) -> tuple[AnyFact, ...]:
    return tuple(one for one in facts if one.seq <= seq)
