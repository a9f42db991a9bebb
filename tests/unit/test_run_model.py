"""The engine in a world where anything may break: whatever happens, no verdict is wrong.

Hypothesis chooses a plan and what happens to it; then the world becomes fair, and the engine must
come to an end in bounded time. ``run_rig`` says what must hold all the while, and at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pytest_manifest.errors import StackError
from pytest_manifest.run.connections import CRASH_LOOP
from pytest_manifest.schema import Entry
from tests.rings import examples
from tests.unit.run_actions import FATES, HOWS, SECONDS, WorldActions
from tests.unit.run_rig import Plan, Rig, rig
from tests.unit.run_world import Worker

Name = Literal[
    "step", "idle", "run", "fair", "take", "begin", "end", "work", "kill_child", "kill", "vanish",
    "pause", "go_on", "double", "give_back", "uncertain", "broker", "store", "fate", "flush",
    "jump", "stop", "again", "kill_retrying",
]  # fmt: skip
POISONS = (*[None] * 8, "child", "worker")
OFTEN: tuple[Name, ...] = ("step", "run", "take", "begin", "end", "work")
BREAKS: tuple[Name, ...] = (
    "kill_child", "kill", "vanish", "pause", "go_on", "double", "give_back", "uncertain", "broker",
    "store", "fate", "flush", "jump", "idle", "fair", "again", "kill_retrying",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Something that happens: to which worker, how; ``calls``: not at once but when the engine has
    asked broker or store so many times more for something."""

    name: Name
    worker: int = 1
    number: int = 0
    calls: int | None = None


class Actor(WorldActions):
    """Does what steps say."""

    def __init__(self, made: Rig) -> None:
        super().__init__(made.world)
        self.rig = made

    def do(self, step: Step) -> None:
        act = getattr(self, step.name)
        worker = self.world.workers[f"w{step.worker}@box"]
        if step.calls is None or step.name in ("step", "run", "idle", "fair", "stop"):
            act(worker, step.number)
        else:
            self.world.between(step.calls, lambda: act(worker, step.number))

    def step(self, worker: Worker, number: int) -> None:
        self.rig.step(1 + number % 3)

    def idle(self, worker: Worker, number: int) -> None:
        self.world.clock.sleep(SECONDS[number % len(SECONDS)])

    def run(self, worker: Worker, number: int) -> None:
        self.rig.run(SECONDS[number % len(SECONDS)])

    def fair(self, worker: Worker, number: int) -> None:
        self.world.fair = True
        self.rig.run(SECONDS[number % len(SECONDS)])
        self.world.fair = False

    def stop(self, worker: Worker, number: int) -> None:
        self.rig.stop(by_a_person=number % 2 == 1)


COSTS: tuple[dict[str, JsonValue], ...] = ({}, {"costs": 0.0}, {"costs": 0.1}, {"costs": 0.7})
"""What receipts tell of costs."""
KEYS: tuple[dict[str, str], ...] = ({}, {"tenant": "x"}, {"tenant": "y", "host": "h"})
names = st.sampled_from("abcde")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 5))
    entries: list[Entry] = []
    for name in "abcde"[:size]:
        earlier = [entry.id for entry in entries]
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=2)) if earlier else []
        entries.append(
            Entry(
                id=name,
                task="t",
                idempotent=draw(st.booleans()),
                retries=draw(st.integers(0, 2)),
                timeout=30.0,
                deadline=draw(st.sampled_from((None, None, None, 60.0))),
                cost=draw(st.sampled_from((None, 0.1, 0.5, 1.0))),
                after=after if draw(st.booleans()) else [],
                key=draw(st.sampled_from(KEYS)),
                meta={
                    "late": draw(st.booleans()),
                    "poison": draw(st.sampled_from(POISONS)),
                    **draw(st.sampled_from(COSTS)),
                },
            )
        )
    owned = draw(st.booleans())
    return Plan(
        entries=tuple(entries),
        owned=owned,
        repair=draw(st.booleans()),
        window=draw(st.sampled_from((1, 2, 10))),
        canary=draw(st.sampled_from((0, 0, 1, 2))),
        max_failed=draw(st.sampled_from((None, None, 0, 1))),
        revoke_on_max_failed=draw(st.booleans()),
        budget=draw(st.sampled_from((None, None, 0.5, 1.0, 3.0))),
        key_limits=draw(st.sampled_from(({}, {}, {"tenant": 1}, {"tenant": 2, "host": 1}))),
        kills=draw(st.integers(2, 3)),
    )


calls = st.none() | st.integers(0, 5)
numbers = st.integers(0, 127)
workers = st.integers(1, 2)
steps = st.one_of(
    st.builds(Step, st.sampled_from(OFTEN), workers, numbers),
    st.builds(Step, st.sampled_from(OFTEN), workers, numbers),
    st.builds(Step, st.sampled_from(BREAKS), workers, numbers, calls),
    st.builds(Step, st.sampled_from(OFTEN), workers, numbers, calls),
)
programs = st.sampled_from((0, 8, 20, 30)).flatmap(
    lambda size: st.lists(steps, min_size=size, max_size=size + 20).map(tuple)
)
stops = st.none() | st.none() | st.integers(0, 1)


def play(plan: Plan, program: tuple[Step, ...], stop: int | None = None) -> dict[str, str]:
    """Run it, and hold everything against what must be; returns the verdicts' kinds by entry."""
    with rig(plan) as made:
        actor = Actor(made)
        try:
            for step in program:
                actor.do(step)
            if stop is not None:
                actor.do(Step("stop", number=stop))
            made.finish()
        except StackError as error:
            if not may_give_up(made, str(error)):
                raise
            return {}
        made.check()
        for kind in made.kinds().values():
            event(kind)
        return {entry: str(kind) for entry, kind in made.kinds().items()}


def may_give_up(made: Rig, error: str) -> bool:
    """A run may end with an error for nothing but a worker that dies again and again."""
    return "times in a row" in error and len(made.world.losses) >= CRASH_LOOP


def plain(names: str, *, max_failed: int | None = None) -> Plan:
    """A plan of so many entries that nothing is special about."""
    return Plan(
        tuple(Entry(id=n, task="t", timeout=30.0) for n in names),
        max_failed=max_failed,
        revoke_on_max_failed=True,
    )


# Rare in what is drawn, and each wrong once.
LOST_ON_ITS_WAY_AFTER_THE_LIMIT = (
    Step("uncertain", number=1),
    Step("step"),
    Step("work", number=HOWS.index("failed")),
)
STORE_GONE_WITHIN_A_SWEEP = (
    Step("step"),
    Step("take"),
    Step("give_back"),
    Step("store", calls=4),
    Step("work", calls=2),
    Step("step", number=1),
)
CHANGED_ON_ITS_WAY = (Step("step"), Step("fate", number=FATES.index("tampered")), Step("work"))
REVOKED_IN_AN_EMPTIED_STORE = (
    Step("step"),
    Step("work"),
    Step("flush"),
    Step("work", number=HOWS.index("failed")),
)
EMPTIED_BEFORE_THE_STOP = (Step("step"), Step("work"), Step("flush"))


DIED_AND_THE_STORE_ALONE_SAYS_SO = (
    Step("fate", number=FATES.index("unsaid")),
    Step("run", number=2),
    Step("work"),
    Step("run", number=2),
)
KILLS_ITS_PROCESS = Plan(
    (
        Entry(id="a", task="t", timeout=30.0, meta={"poison": "child"}),
        *plain("b").entries,
    ),
    owned=False,
    window=1,
)


TAKEN_BACK_AT_ITS_DEADLINE = (
    Step("run", number=3),
    Step("run", number=3),
    Step("take"),
    Step("run", number=3),
)
HAS_A_DEADLINE = Plan(
    (Entry(id="a", task="t", timeout=30.0, deadline=60.0), *plain("b").entries), window=1
)
POISON_ON_A_STACK_OF_OTHERS = Plan(
    (
        Entry(
            id="a",
            task="t",
            timeout=30.0,
            retries=1,
            idempotent=True,
            meta={"late": True, "poison": "worker"},
        ),
        *plain("bcde").entries,
    ),
    owned=False,
    window=2,
    kills=2,
)
"""The broker hands out the first job again and again, and its worker has reserved the second."""


@example(POISON_ON_A_STACK_OF_OTHERS, (Step("fair", 1, 0, None), Step("run", 1, 1)), None)
@example(HAS_A_DEADLINE, TAKEN_BACK_AT_ITS_DEADLINE, None)
@example(KILLS_ITS_PROCESS, DIED_AND_THE_STORE_ALONE_SAYS_SO, None)
@example(plain("ab", max_failed=0), LOST_ON_ITS_WAY_AFTER_THE_LIMIT, None)
@example(plain("a"), STORE_GONE_WITHIN_A_SWEEP, None)
@example(plain("ab"), CHANGED_ON_ITS_WAY, None)
@example(plain("a"), EMPTIED_BEFORE_THE_STOP, 0)
@example(plain("ab", max_failed=0), REVOKED_IN_AN_EMPTIED_STORE, None)
@given(plans(), programs, stops)
@settings(max_examples=examples(150), database=None)
def test_no_verdict_is_wrong_whatever_happens(
    plan: Plan, program: tuple[Step, ...], stop: int | None
) -> None:
    """Every entry has one right verdict in bounded time, and nothing runs twice by our doing."""
    play(plan, program, stop)
