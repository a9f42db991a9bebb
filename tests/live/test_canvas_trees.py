"""Whole runs of jobs that start others in each way of Celery's canvas, on brokers and pools.

An entry has passed when all that its job has started has; where one of those has not, the entry of
that one says so, and no other. What ran is counted by the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from pytest_manifest.schema import Entry, VerdictStatus
from tests.live.apps.canvas import SHAPES
from tests.live.broker_support import database
from tests.live.canvas_support import Bench, Played, bench, play, tampering
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

NUMBERS = {
    "loop": 3,
    "group": 3,
    "chain": 3,
    "chain of groups": 7,
    "chord": 4,
    "chord body": 3,
    "nested chords": 7,
    "child replaced by a task": 3,
    "child replaced by a chain": 5,
    "child replaced by a group": 6,
    "child replaced by a chord": 5,
    "replaced by a task": 0,
    "replaced by a chain": 2,
    "replaced by a group": 3,
    "replaced by a chord": 2,
    "link": 3,
    "link_error": 3,
    "starmap": 1,
    "chunks": 3,
    "retries": 1,
    "four levels": 4,
    "threads": 5,
    "get": 2,
}
"""How many tasks each shape starts, itself or by what it starts."""
VERDICTS: dict[str, VerdictStatus] = {
    "": "passed",
    "fail": "failed",
    "exit": "crashed",
    "killed": "crashed",
    "stuck": "timed_out",
    "lost": "lost",
    "twice": "duplicated",
}
"""What becomes of an entry by the fate of one of its descendants."""
VICTIMS = {
    "starmap": "celery.starmap",
    "chunks": "celery.starmap",
    "retries": "retrying",
    "link_error": "told",
    "child replaced by a task": "replacing",
}
"""The task of which a sentence must speak, where that is not ``victim``."""
ITSELF = {
    "replaced by a task": VERDICTS.keys(),
    "replaced by a chain": {"twice"},
    "get": {"killed"},
}
"""Where the entry's own job meets the fate: it has been replaced by what does, is sent by it, or
waits for it."""
SOME = ("loop", "chain", "chord", "chord body", "replaced by a group", "threads")
SHAPES_IN: Mapping[str, Iterable[str]] = {"prefork": SHAPES, "threads": SHAPES, "solo": SOME}
"""Shapes that meet each fate, by the worker's pool."""
HELD_IN: Mapping[str, Iterable[str]] = {"prefork": SOME, "threads": SHAPES, "solo": ("chain",)}
"""Those of which one takes a place in the pool until the run has ended: of a pool of one it must be
the last that the run waits for."""
FINISHED = {"link_error": {"fail", "exit", "killed"}}
"""Where any end is enough, and this is one."""


def planted(name: str, shape: str, fate: str = "", **fields: object) -> Entry:
    """An entry whose job starts others in this way."""
    document = {"id": name, "task": "plant", "args": [shape, fate], **fields}
    if shape == "link_error" and "expect" not in fields:
        document["expect"] = {"descendants": "finished"}  # one of them is to fail
    return Entry.model_validate(document)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((broker, pool), id=f"{broker}-{pool}", marks=marks)
        for broker, marks in (("redis", ()), ("rabbitmq", pytest.mark.rabbitmq))
        for pool in ("prefork", "threads", "solo")
    ],
)
def where(request: pytest.FixtureRequest, valkey: str) -> Iterator[Bench]:
    broker, pool = request.param
    url = database(valkey, 10) if broker == "redis" else request.getfixturevalue("rabbitmq_url")
    with bench(url, database(valkey, 9), pool) as made:
        yield made


def test_all_succeed(where: Bench) -> None:
    """Each entry has passed, with as many descendants as there are, all of them noted."""
    played = play(where, [planted(name, name, queue=where.queue) for name in SHAPES])
    wrong = [
        f"{name}: {one.verdict.sentence}"
        for name, one in played.verdicts.items()
        if one.verdict.verdict != "passed"
    ]
    assert not wrong
    assert {name: len(tree) for name, tree in played.trees.items()} == NUMBERS
    assert played.told == played.noted


def as_fated(played: Played, verdicts: Mapping[str, VerdictStatus] = VERDICTS) -> Iterable[str]:
    """Yield what is not as it must be by the fates of descendants, a line for each entry."""
    for name, one in played.verdicts.items():
        shape, fate = name.split(", ")
        kind, sentence = one.verdict.verdict, one.verdict.sentence
        expected = "passed" if fate in FINISHED.get(shape, ()) else verdicts[fate]
        if kind != expected:
            yield f"{name!r} is {kind}, not {expected}: {sentence}"
        elif kind != "passed":
            named = [one for one in played.trees[name].values() if f"({one.task_id})" in sentence]
            told = [(one.task, one.status) for one in named]
            victim = (VICTIMS.get(shape, "victim"), kind)
            if told != ([] if fate in ITSELF.get(shape, ()) else [victim]):
                yield f"{name!r} names {told}, not {victim}: {sentence}"


def test_one_that_meets_its_fate(where: Bench) -> None:
    """Of each shape an entry for each fate, in one run: each is told, and none of another."""
    fates = {"", "fail", "exit", "stuck", "lost", "twice"}
    if where.pool != "prefork":  # where a task ends its process the worker has ended
        fates.remove("exit")
    entries = [
        planted(f"{shape}, {fate}", shape, fate, queue=where.queue, timeout=3 if stuck else 60)
        for shape in SHAPES_IN[where.pool]
        for fate in sorted(fates)
        if not (stuck := fate == "stuck") or shape in HELD_IN[where.pool]
    ]
    # A worker that runs one task at a time runs nothing else while that waits.
    last = [one for one in entries if where.pool == "solo" and one.id.endswith("stuck")]
    with tampering(where):
        played = play(where, [one for one in entries if one not in last])
    wrong = [*as_fated(played), *(as_fated(play(where, last)) if last else ())]
    assert not wrong
    again = {
        task_id
        for name in played.entries
        if name.endswith("twice")
        for task_id in (played.roots[name], *played.trees[name])
    }
    for task_id, number in played.noted.items():  # the second time may be after the run's end
        told = played.told[task_id]
        assert told == number or (task_id in again and told < number)
    assert played.told.keys() <= played.noted.keys()


def test_a_worker_that_dies_while_it_runs_one(where: Bench) -> None:
    """Of each shape one that runs when it does; what had ended before is as it was.

    A solo worker acknowledges a message to RabbitMQ once its task has ended, whatever the task
    says: its successor gets the message again.
    """
    shapes = list(HELD_IN[where.pool])
    sound = [planted(f"{shape}, ", shape, queue=where.queue) for shape in ("chord", "link")]
    after = [one.id for one in sound]
    fated = [
        planted(f"{shape}, killed", shape, "killed", queue=where.queue, after=after)
        for shape in shapes
    ]
    before = where.waiting()

    def end_it() -> None:
        eventually(
            lambda: where.waiting() == before + len(shapes) and where.runs_only_what_waits(),
            within=60,
            what="all of them run, and nothing else",
        )
        if where.pool == "prefork":
            where.kill_worker()
        else:
            where.gate.touch()  # it ends itself
        where.start_worker()

    played = play(where, [*sound, *fated], end_it)
    is_given_again = where.pool == "solo" and where.address.broker_url.startswith("amqp")
    verdicts = VERDICTS | ({"killed": "duplicated"} if is_given_again else {})
    assert not list(as_fated(played, verdicts))
    assert played.told == played.noted
