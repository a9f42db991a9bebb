"""Whole runs of jobs that start others in each way of Celery's canvas, on brokers and pools.

An entry has passed when all that its job has started has; where one of those has not, the entry of
that one says so, and no other. What ran is counted by the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

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
PERHAPS_ITSELF = {
    "replaced by a group": {"twice"},
    "replaced by a chord": {"twice"},
    "get": {"stuck"},
}
"""Where the entry's own job may meet the fate as well: a member that ends twice may complete its
chord twice, and what the chord ends with carries the job; what waits for another has the same
timeout."""
FATES: Mapping[str, Mapping[str, str]] = {
    "prefork": {},
    "threads": {"exit": "the worker is the process: see killed"},
    "solo": {
        "exit": "the worker is the process: see killed",
        "stuck": "a worker for each tree: see test_a_solo_worker_each",
        "killed": "a worker for each tree: see test_a_solo_worker_each",
    },
}
"""Fates that are not met by all shapes in one worker, by its pool, each with the reason."""
SMOKE = ("redis", "threads")
"""What is tried at each push."""
DEADLINE = 30
"""Seconds after which a solo worker's silence is no longer waited for; it starts in far fewer."""
FINISHED = {"link_error": {"fail", "exit", "killed"}}
"""Where any end is enough, and this is one; to run twice is not."""


def planted(name: str, shape: str, fate: str = "", **fields: object) -> Entry:
    """An entry whose job starts others in this way."""
    document = {"id": name, "task": "plant", "args": [shape, fate], **fields}
    if shape == "link_error" and "expect" not in fields:
        document["expect"] = {"descendants": "finished"}  # one of them is to fail
    return Entry.model_validate(document)


def stacks(*pools: str) -> Sequence[object]:
    """Each broker with each of these pools."""
    return [
        pytest.param(
            (broker, pool),
            id=f"{broker}-{pool}",
            marks=[*marks, *([pytest.mark.ring(1)] if (broker, pool) == SMOKE else [])],
        )
        for broker, marks in (("redis", []), ("rabbitmq", [pytest.mark.rabbitmq]))
        for pool in pools
    ]


@pytest.fixture(scope="module", params=stacks(*FATES))
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


def as_fated(
    played: Played,
    verdicts: Mapping[str, VerdictStatus] = VERDICTS,
    itself: Mapping[str, Collection[str]] = ITSELF,
    *,
    or_another: bool = False,
) -> Iterable[str]:
    """Yield what is not as it must be by the fates of descendants, a line for each entry.

    ``or_another``: a sentence may be of another one, or of the entry's job, with the same end.
    """
    for name, one in played.verdicts.items():
        shape, fate = name.split(", ")
        kind, sentence = one.verdict.verdict, one.verdict.sentence
        expected = verdicts[fate]
        if fate in FINISHED.get(shape, ()) and expected != "duplicated":
            expected = "passed"
        if kind != expected:
            yield f"{name!r} is {kind}, not {expected}: {sentence}"
        elif kind != "passed":
            tree = played.trees[name].values()
            told = [(one.task, one.status) for one in tree if f"({one.task_id})" in sentence]
            victim = (VICTIMS.get(shape, "victim"), kind)
            if or_another and victim in [(one.task, one.status) for one in tree]:
                told = [victim for _, status in told or [victim] if status == kind]
            if not told and fate in PERHAPS_ITSELF.get(shape, ()):
                told = [victim]
            if told != ([] if fate in itself.get(shape, ()) else [victim]):
                yield f"{name!r} names {told}, not {victim}: {sentence}"


@pytest.mark.ring(2)
def test_one_that_meets_its_fate(where: Bench) -> None:
    """Of each shape an entry for each fate, in one run: each is told, and none of another."""
    fates = sorted(VERDICTS.keys() - {"killed"} - FATES[where.pool].keys())
    entries = [
        planted(name, shape, fate, queue=where.queue, timeout=3 if fate == "stuck" else 60)
        for shape in SHAPES
        for fate in fates
        for name in [f"{shape}, {fate}"]
    ]
    with tampering(where):
        played = play(where, entries)
    assert not list(as_fated(played))
    again = {
        task_id
        for name in played.entries
        if name.endswith("twice")
        for task_id in (played.roots[name], *played.trees[name])
    }
    # The second time may be after the run's end. What ends its process at once may run twice as
    # well, and is told as often: Celery's pool gives the job to another process where the worker
    # has not heard yet that it had begun.
    for task_id, number in played.noted.items():
        told = played.told[task_id]
        assert told == number or (task_id in again and told < number)
    assert played.told.keys() <= played.noted.keys()


@pytest.mark.ring(2)
@pytest.mark.parametrize("where", stacks("prefork", "threads"), indirect=True)
def test_a_worker_that_dies_while_it_runs_one(where: Bench) -> None:
    """Of each shape one that runs when it does; what had ended before is as it was."""
    sound = [planted(f"{shape}, ", shape, queue=where.queue) for shape in ("chord", "link")]
    after = [one.id for one in sound]
    fated = [
        planted(f"{shape}, killed", shape, "killed", queue=where.queue, after=after)
        for shape in SHAPES
    ]
    before = where.waiting()

    def end_it() -> None:
        eventually(
            lambda: where.waiting() == before + len(fated) and where.runs_only_what_waits(),
            within=60,
            what="all of them run, and nothing else",
        )
        if where.pool == "prefork":
            where.kill_worker()
        else:
            where.gate.touch()  # it ends itself
        where.start_worker()

    played = play(where, [*sound, *fated], end_it)
    assert not list(as_fated(played))
    assert played.told == played.noted


@pytest.mark.parametrize("where", stacks("solo"), indirect=True)
def test_a_solo_worker_each(where: Bench) -> None:
    """Of each shape one that keeps its worker from all else, and then one that takes it along.

    What the worker had still to do another one does. A solo worker that is kept busy says nothing:
    that nobody has the body of a chord is not known before the deadline, nor what becomes of a
    message that RabbitMQ has given to it already. And it acknowledges to RabbitMQ what it runs, and
    what has just ended, when it comes to it: its successor gets these messages again.
    """
    queues = where.queues_for(SHAPES)
    before = where.waiting()

    def all_run() -> None:
        eventually(
            lambda: where.waiting() == before + len(SHAPES),
            within=60,
            what="each worker runs what meets its fate",
        )

    def entries(fate: str, **limits: float) -> list[Entry]:
        return [
            planted(f"{shape}, {fate}", shape, fate, queue=queue, **limits)
            for shape, queue in queues.items()
        ]

    with ExitStack() as workers:

        def go_on_elsewhere() -> None:
            all_run()
            workers.enter_context(where.solo_workers(queues.values(), "others"))

        with where.solo_workers(queues.values()):
            stuck = play(where, entries("stuck", timeout=3, deadline=DEADLINE), go_on_elsewhere)
            where.open_gate()
    assert not list(as_fated(stuck, or_another=True))
    before = where.waiting()
    with ExitStack() as workers:

        def replace_them() -> None:
            all_run()
            where.open_gate()
            workers.enter_context(where.solo_workers(queues.values()))

        with where.solo_workers(queues.values()):
            killed = play(where, entries("killed", timeout=60), replace_them)
    is_given_again = where.address.broker_url.startswith("amqp")
    verdicts = VERDICTS | ({"killed": "duplicated"} if is_given_again else {})
    itself = {shape: fates for shape, fates in ITSELF.items() if shape != "get"}
    assert not list(as_fated(killed, verdicts, itself, or_another=is_given_again))
    assert not killed.told - killed.noted
    # RabbitMQ may give a job once more when the run, which needed no more than one, is over.
    assert all(is_given_again and killed.told[one] for one in killed.noted - killed.told)
