"""Write down facts in the order in which they are recorded, and have them judged.

A step is a function of a :class:`World`; a story is a list of steps. Time passes only where a step
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TypeAlias, TypeVar

from pytest_manifest.schema import Entry, ErrorInfo, Receipt, wire
from pytest_manifest.schema import facts as f
from pytest_manifest.schema import run_facts as r
from pytest_manifest.verdict.judge import Attempt, Judgement, Rules, judge, judge_descendant
from pytest_manifest.verdict.tree import Tree

RUN = "run-1"
TASK = "tasks.work"
BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
CODE = "py3.11:" + "a" * 64
OTHER_CODE = "py3.11:" + "b" * 64
LIFETIME = 3600.0

Step: TypeAlias = "Callable[[World], None]"

Made = TypeVar("Made", bound=f.Fact | f.Job)


def an_entry(**fields: object) -> Entry:
    return Entry.model_validate({"id": "e1", "task": TASK, "timeout": 60.0, **fields})


class World:
    """A run of one entry; ``root`` is the present attempt, ``job`` what a step is about."""

    def __init__(self, entry: Entry, *, is_private: bool, signed_only: bool) -> None:
        self.entry = entry
        self.is_private = is_private
        self.signed_only = signed_only
        self.seq = 0
        self.now = BEGAN
        self.jobs: dict[str, f.Job] = {}
        self.of: dict[str, list[r.JobFact]] = {}
        self.extra: dict[str, tuple[r.StoreFact | r.SetBack, ...]] = {}
        self.run: list[r.RunFact] = []
        self.job = self.root = ""

    def made(self, kind: type[Made], **fields: object) -> Made:
        """Return the next fact, or job."""
        self.seq += 1
        fields |= {"seq": self.seq, "at": self.now}
        return kind(**fields)  # type: ignore[arg-type]  # the stories' words are not checked

    def add(self, fact: r.JobFact) -> None:
        self.of[self.job].append(replace(fact, job=self.job))

    def plan(self, job: f.Job) -> None:
        self.jobs[job.task_id] = job
        self.of.setdefault(job.task_id, [])
        self.job = job.task_id

    # What the judge takes

    def facts(self) -> r.RunFacts:
        starts = [
            one.seq for facts in self.of.values() for one in facts if isinstance(one, f.Started)
        ]
        return r.RunFacts(
            run=RUN,
            created_at=BEGAN,
            is_private=self.is_private,
            stream_ttl=LIFETIME,
            backend="redis://results",
            signed_only=self.signed_only,
            first_start=min(starts, default=None),
            facts=tuple(self.run),
        )

    def job_facts(self, job: f.Job) -> r.JobFacts:
        ordered = sorted(self.of[job.task_id], key=lambda one: one.seq)
        return r.JobFacts(job, tuple(ordered), self.extra.get(job.task_id, ()))

    def attempts(self, upto: int = 2**62) -> list[Attempt]:
        """Return the attempts with their trees, by what was known then."""
        run = self.facts().until(upto)
        found: list[Attempt] = []
        for root in self.jobs.values():
            if root.spawn is not None or root.seq > upto:
                continue
            own = self.job_facts(root).until(upto)
            tree = Tree(root.task_id)
            tree.announce(own.facts)
            for one in self.jobs.values():
                if one.spawn is not None and one.root == root.task_id and one.seq <= upto:
                    facts = self.job_facts(one).until(upto)
                    tree.add(judge_descendant(self.entry, root, facts, run))
            found.append(Attempt(own, tree or None))
        return found

    def judge(self, rules: Rules | None = None, upto: int = 2**62) -> Judgement:
        return judge(self.entry, self.attempts(upto), self.facts().until(upto), rules)


def play(
    steps: Iterable[Step],
    entry: Entry | None = None,
    *,
    is_private: bool = True,
    signed_only: bool = False,
) -> World:
    """Take the steps in a new world, in which a segment has begun and the task's code is known."""
    world = World(entry or an_entry(), is_private=is_private, signed_only=signed_only)
    segment(kills=3)(world)
    code()(world)
    for step in steps:
        step(world)
    return world


# Time and the run


def later(seconds: float) -> Step:
    def step(w: World) -> None:
        w.now += timedelta(seconds=seconds)

    return step


def segment(*, kills: int = 3, lifetime: float = LIFETIME, deadline: float | None = None) -> Step:
    given = {"kills": kills, "lifetime": lifetime, "deadline": deadline}
    return lambda w: w.run.append(w.made(r.Segment, **given))


def code(digest: str | None = CODE, limit: float | None = None, task: str = TASK) -> Step:
    return lambda w: w.run.append(w.made(r.TaskFact, task=task, code=digest, limit=limit))


def store(what: str) -> Step:
    return lambda w: w.run.append(w.made(r.StoreFact, what=what))


def node(name: str, what: str) -> Step:
    return lambda w: w.run.append(w.made(r.NodeFact, name=name, what=what))


def other_place(what: str = "other_broker") -> Step:
    return lambda w: w.run.append(w.made(r.PlaceFact, what=what, url="redis://other"))


def set_back(seconds: float) -> Step:
    """Set the controller's clock back."""

    def step(w: World) -> None:
        w.run.append(w.made(r.SetBack, by=seconds, most=seconds))
        w.now -= timedelta(seconds=seconds)

    return step


def run_over(why: str = "deadline", **fields: object) -> Step:
    limit = 20.0 if why in ("deadline", "unanswered", "unasked", "nobody") else None
    given = {"limit": limit, **fields}
    return lambda w: w.run.append(w.made(r.RunOver, why=why, **given))


# An attempt


def planned(why: str = "first", **fields: object) -> Step:
    """Plan the next attempt; what follows is about it."""

    def step(w: World) -> None:
        number = sum(one.spawn is None for one in w.jobs.values()) + 1
        given = {"number": number, "task_id": f"a{number}", "entry": w.entry.id, **fields}
        w.plan(w.made(f.Job, run=RUN, why=why, **given))
        w.root = w.job

    return step


def sending(number: int = 1, *, is_known: bool = True) -> Step:
    def step(w: World) -> None:
        sent_at = w.now if is_known else None
        w.add(w.made(f.Sending, number=number, sent_at=sent_at))

    return step


def result(outcome: str = "published", number: int = 1, **fields: object) -> Step:
    return lambda w: w.add(w.made(f.SendResult, number=number, outcome=outcome, **fields))


def sent() -> Step:
    """Plan an attempt and send it."""
    return several(planned(), sending(), result())


def resent(why: str = "retry", **fields: object) -> Step:
    """Plan another attempt and send it."""
    return several(planned(why, **fields), sending(), result())


def several(*steps: Step) -> Step:
    def step(w: World) -> None:
        for one in steps:
            one(w)

    return step


def withheld(code: str, *names: str, **fields: object) -> Step:
    return lambda w: w.add(w.made(f.Withheld, code=code, names=names, fields=fields))


def time_over(of: str = "timeout", execution: str | None = None) -> Step:
    return lambda w: w.add(w.made(f.TimeOver, of=of, limit=60.0, execution=execution))


def recalled(why: str = "stop", stage: str = "asked") -> Step:
    return lambda w: w.add(w.made(f.Recalled, why=why, stage=stage))


def taken_up(why: str = "resume") -> Step:
    return lambda w: w.add(w.made(f.TakenUp, why=why))


def moved(how: str) -> Step:
    return lambda w: w.add(w.made(f.Moved, how=how))


def gone(execution: str = "x1", **fields: object) -> Step:
    return lambda w: w.add(w.made(f.Gone, execution=execution, worker="w1", **fields))


def search() -> Step:
    """Take both looks; what they show is recorded later."""
    return lambda w: w.run.append(w.made(r.Search, as_of=w.seq))


def nowhere() -> Step:
    """Record that the last search found the job in no place; without one, search first."""

    def step(w: World) -> None:
        if not any(isinstance(one, r.Search) for one in w.run):
            search()(w)
        as_of = max(one.seq for one in w.run if isinstance(one, r.Search))
        w.add(w.made(f.Nowhere, as_of=as_of))

    return step


def seen(place: str, holder: str | None = None) -> Step:
    return lambda w: w.add(w.made(f.Seen, place=place, as_of=w.seq, holder=holder))


# Reports


def started(execution: str = "x1", pid: int = 11, **fields: object) -> Step:
    def step(w: World) -> None:
        given = {"started_at": w.now, "worker": "w1@h", "host": "h", **fields}
        w.add(w.made(f.Started, execution=execution, pid=pid, **given))

    return step


def handed_on(how: str = "retry", execution: str = "x1", cost: float | None = None) -> Step:
    return lambda w: w.add(
        w.made(f.HandedOn, execution=execution, how=how, ended_at=w.now, cost=cost)
    )


def receipt(w: World, state: str, fields: dict[str, object]) -> Receipt:
    """Return the receipt that a worker makes of the present job, changed by these fields."""
    job = w.jobs[w.job]
    sendings = [one for one in w.of[w.job] if isinstance(one, f.Sending)]
    starts = [one for one in w.of[w.job] if isinstance(one, f.Started)]
    task = job.spawn.task if job.spawn is not None else w.entry.task
    root = w.jobs[job.root]
    whole: dict[str, object] = {
        "run": RUN,
        "entry": job.entry,
        "attempt": root.number,
        "task_id": job.task_id,
        "task": task,
        "state": state,
        "worker": "w1@h",
        "host": "h",
        "sent_at": sendings[-1].sent_at if sendings else None,
        "args_sha256": wire.arguments_sha256(w.entry.args, w.entry.kwargs),
        "children": 0,
    }
    if state in ("succeeded", "failed", "ignored"):
        began = starts[-1].started_at if starts else w.now
        whole |= {
            "pid": starts[-1].pid if starts else 11,
            "started_at": began,
            "finished_at": w.now,
            "runtime": 1.0,
            "wait": 0.0,
            "executions": 1,
            "code": CODE,
            "cpu": 0.1,
        }
    if state == "succeeded":
        value = fields.get("result")
        whole |= {"result": value, "result_sha256": wire.json_sha256(value)}
    if state == "failed":
        whole["error"] = ErrorInfo(type="ValueError", message="no")
    return Receipt.model_validate({**whole, **fields})


def ended(state: str = "succeeded", of: str | None = "x1", /, **fields: object) -> Step:
    """Report the end of an execution; ``fault`` is why nobody believes it."""

    def step(w: World) -> None:
        given = dict(fields)
        execution, fault = given.pop("execution", of), given.pop("fault", "")
        said = receipt(w, state, given)
        w.add(w.made(f.Ended, receipt=said, execution=execution, fault=fault))

    return step


def stored(state: str = "succeeded", *, fault: str = "", **fields: object) -> Step:
    """Find an end in the result store alone."""

    def step(w: World) -> None:
        bare = {
            "source": "backend",
            "children": None,
            **dict.fromkeys(("started_at", "runtime", "wait", "code", "cpu", "pid", "sent_at")),
            **dict.fromkeys(("args_sha256", "result_sha256", "worker", "host")),
            "executions": 0,
        }
        said = receipt(w, state, {**bare, **fields})
        w.add(w.made(f.Stored, receipt=said, fault=fault))

    return step


def unreadable() -> Step:
    return lambda w: w.add(w.made(f.Stored, unreadable="no JSON"))


# Trees


def spawned(name: str, task: str = "tasks.part", parent: str = "", **fields: object) -> Step:
    """Have the attempt, or another descendant, start a task; what follows is about it."""

    def step(w: World) -> None:
        given = {"how": "call", "spawned_at": w.now, "chords": (), **fields}
        spawn = f.Spawn(root=w.root, parent=parent or w.root, task=task, **given)  # type: ignore[arg-type]  # options as the callee names them
        root = w.jobs[w.root]
        w.plan(
            w.made(
                f.Job,
                task_id=name,
                entry=w.entry.id,
                number=root.number,
                run=RUN,
                spawn=spawn,
            )
        )

    return step


def report_of(name: str) -> Step:
    """Go on with a descendant whose spawning is recorded later."""

    def step(w: World) -> None:
        w.of[name] = []
        w.job = name

    return step


def placeholder(name: str, key: str, how: str) -> Step:
    """Look for what was announced, and nobody has reported sent."""
    return spawned(name, how=how, announcement=key, spawned_at=None, chords=None)


def of_root() -> Step:
    """Go on with the attempt."""

    def step(w: World) -> None:
        w.job = w.root

    return step


def about(name: str) -> Step:
    def step(w: World) -> None:
        w.job = name

    return step


def unsent() -> Step:
    return lambda w: w.add(
        w.made(
            f.ChildUnsent,
        )
    )


def elsewhere() -> Step:
    return lambda w: w.add(w.made(f.ChildElsewhere, broker="redis://other"))


def announced(key: str, how: str = "chord_body", number: int = 1, **fields: object) -> Step:
    def step(w: World) -> None:
        given = {"announcer": w.job, "task": "tasks.body", **fields}
        fact = w.made(f.Announced, key=key, how=how, number=number, **given)
        w.of[w.root].append(replace(fact, job=w.root))

    return step


def closed(key: str) -> Step:
    def step(w: World) -> None:
        w.of[w.root].append(replace(w.made(f.Closed, key=key), job=w.root))

    return step


# Rows of a table


@dataclass(frozen=True)
class Row:
    """A story, and what it comes to: status and code."""

    name: str
    steps: list[Step]
    comes_to: tuple[str, str]
    entry: Entry = field(default_factory=an_entry)
    is_private: bool = True
    signed_only: bool = False
    rules: Rules | None = None
    is_final: bool = True


PASSED = ("passed", "as_expected")
AS_EXPECTED = ("passed", "ended_as_expected")
CRASHES = an_entry(expect={"state": "crashed"})
IS_LATE = an_entry(expect={"state": "timed_out"})
IS_REVOKED = an_entry(expect={"state": "revoked"})
REPEATABLE = an_entry(idempotent=True, retries=9)
FINISHES = an_entry(expect={"descendants": "finished"})
GIVEN = an_entry(expect={"descendants": "succeeded"})


def crash(execution: str) -> Step:
    return several(started(execution), ended("crashed", execution, pid=11))


def dead(execution: str) -> Step:
    """Start, and die so that the search finds the job nowhere."""
    return several(started(execution), gone(execution), search(), nowhere())


def passed_with(*steps: Step) -> list[Step]:
    return [sent(), started(), *steps, of_root(), ended()]


def child_ended(
    name: str = "c1", state: str = "succeeded", parent: str = "", /, **fields: object
) -> Step:
    given = dict(fields)
    parent = str(given.pop("parent", parent))
    spawn = {key: given.pop(key) for key in ("fulfils", "chords") if key in given}
    begun = several(started(f"{name}-x"), ended(state, f"{name}-x", **given))
    return several(spawned(name, "tasks.part", parent, **spawn), begun)


def judged(row: Row) -> Judgement:
    """Return what a row's story comes to."""
    world = play(row.steps, row.entry, is_private=row.is_private, signed_only=row.signed_only)
    return world.judge(row.rules)
