"""Whole runs of jobs that start others in each way of Celery's canvas, on brokers and pools.

An entry has passed when all that its job has started has; where one of those has not, the entry of
that one says so, and no other. What ran is counted by the tasks themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_manifest.schema import Entry
from tests.live.apps.canvas import SHAPES
from tests.live.broker_support import database
from tests.live.canvas_support import Bench, bench, play

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
    assert not wrong, played.log
    assert {name: len(tree) for name, tree in played.trees.items()} == NUMBERS
    assert played.told == played.noted
