"""Children of what a task spawns, and of what is called after its end, in every pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.live.apps.tree_support import Tree, grown, noted, plant
from tests.live.apps.worker_support import INCLUDE, Bench, Flavour, running_worker
from tests.support import eventually

pytestmark = pytest.mark.live

POOLS = ("prefork", "solo", "threads", "gevent", "eventlet")
SPAWNING, SPEAKING = (f"tests.live.apps.worker_{name}" for name in ("spawning", "speaking"))
GEVENT = ("spawn", "later", "pool", "map", "nested")
SMOKE = (SPAWNING, "threads")
"""What is tried at each push."""


def flavours(app: str, pools: Sequence[str] = POOLS) -> Sequence[object]:
    """A worker of each pool."""
    return [
        pytest.param(
            Flavour(f"{pool}-{app.rpartition('_')[2]}", app, (*INCLUDE, "-P", pool, "-c", "4")),
            id=pool,
            marks=pytest.mark.ring(1) if (app, pool) == SMOKE else pytest.mark.ring(2),
        )
        for pool in pools
    ]


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, valkey: str) -> Iterator[Bench]:
    with running_worker(valkey, valkey, request.param) as running:
        yield running


def hows(package: str) -> Sequence[str]:
    """The ways to start what runs beside a task."""
    return {"threads": ("",), "gevent": GEVENT}[package]


@pytest.mark.parametrize("bench", flavours(SPAWNING), indirect=True)
def test_what_a_task_spawns_belongs_to_it(bench: Bench) -> None:
    """Threads in each pool; greenlets where the pool is of them, or the task alone uses them."""
    pool = bench.flavour.name.partition("-")[0]
    packages = ["threads"] if pool == "eventlet" else ["threads", "gevent"]
    found = {
        (package, way): grown(bench, "spawning", package, way, 3).hows()
        for package in packages
        for way in hows(package)
    }
    assert found == {key: {("leaf", "call"): 3} for key in found}


@pytest.mark.ring(2)
@pytest.mark.parametrize("bench", flavours(SPAWNING, ["threads", "gevent"]), indirect=True)
def test_what_outlives_its_task_belongs_to_nobody(bench: Bench) -> None:
    """Neither to its own, which has ended, nor to the one that runs then; the log says so."""
    package = bench.flavour.name.partition("-")[0]
    left = plant(bench, "leaving", package)
    bench.receipt(left)
    before = len(noted(bench))
    following = plant(bench, "following")
    bench.receipt(following)
    eventually(
        lambda: "leaf" in {name for _, name in noted(bench)[before:]},
        within=30,
        what="the child of nobody",
    )
    bench.settle_with("leaf")
    trees = [Tree(one.task_id, bench.records(one)) for one in (left, following)]
    assert [one.hows() for one in trees] == [{}, {}]
    assert f"started by what {left.task_id} left running" in bench.log.read_text()


@pytest.mark.parametrize("bench", flavours(SPEAKING), indirect=True)
@pytest.mark.parametrize("how", ["succeeds", "fails", "ignored"])
def test_what_is_called_after_the_end_may_start_others(bench: Bench, how: str) -> None:
    """Handlers of the task, and receivers of its end that were connected before and after ours."""
    speak = {"early", "late", "after_return"} | ({"on_success"} if how == "succeeds" else set())
    if how == "ignored":
        speak.remove("after_return")  # Celery calls none
    tree = grown(bench, "speaking", how, *sorted(speak))
    assert tree.hows() == {("leaf", "call"): len(speak)}
    assert f"{tree.ends[tree.root].execution}/after" in tree.closed
