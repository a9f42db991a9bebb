"""Pools other than forked processes, backends of an app's own, and a store that goes away."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest
import redis

from pytest_manifest.schema.wire import stream_key
from tests.live.apps.worker_support import (
    INCLUDE,
    INSTRUMENTED,
    STOCK,
    Bench,
    Flavour,
    bench_of,
    running_worker,
)
from tests.services import valkey_server
from tests.support import eventually

pytestmark = pytest.mark.live

SPAWNED = {"MANIFEST_TEST_POOL_START_METHOD": "spawn"}
OWN = "tests.live.apps.worker_own_backend"
OWN_BACKEND = Flavour("own-backend", OWN, INCLUDE, {"CELERY_RESULT_BACKEND": f"{OWN}:OwnBackend"})
POOLS = [
    Flavour("solo", STOCK, (*INCLUDE, "--pool=solo")),
    Flavour("threads", INSTRUMENTED, ("--pool=threads", "-c", "2")),
    Flavour("spawned", STOCK, INCLUDE, SPAWNED),
    Flavour("spawned-one-line", INSTRUMENTED, (), SPAWNED),
    OWN_BACKEND,
]
bench = bench_of(POOLS, pytest.mark.ring(1))


@pytest.mark.parametrize(
    ("task", "args", "state", "result"),
    [
        ("add", (1, 2), "succeeded", 3),
        ("fail", ("x",), "failed", None),
        ("flaky", (1,), "succeeded", "after 1 retries"),
        ("quiet", (1, 2), "succeeded", 3),
        ("ignore", (), "ignored", None),
        ("reject", (), "rejected", None),
        ("unserialisable", (), "failed", None),
        ("no.such.task", (), "unknown_task", None),
    ],
)
def test_outcomes(
    bench: Bench, task: str, args: tuple[object, ...], state: str, result: object
) -> None:
    """Every outcome is told once, with its execution's one name."""
    sent = bench.send(task, *args)
    bench.receipt(sent)
    bench.settle()
    receipt = bench.receipt(sent)
    assert (receipt.state, receipt.result) == (state, result)
    if task not in ("no.such.task", "flaky"):
        (start,) = bench.starts(sent)
        assert start.execution == bench.ends(sent)[0].execution
        assert receipt.received_at is not None


def test_memory_high_water_mark_is_a_childs(bench: Bench) -> None:
    """The memory mark is given only where the process is the task's own."""
    has_children = "pool=" not in " ".join(bench.flavour.options)
    assert (bench.ask("add", 1, 2).max_rss is not None) is has_children


def test_cpu_is_the_tasks_own(bench: Bench) -> None:
    """CPU seconds are counted in every pool."""
    receipt = bench.ask("burn_here", 0.1)
    assert receipt.cpu is not None
    assert receipt.cpu >= 0.1


def test_tasks_beside_one_another(valkey: str) -> None:
    """In a pool of threads each task's lines go into its own receipt."""
    flavour = Flavour("threads", STOCK, (*INCLUDE, "--pool=threads", "-c", "2"))
    with running_worker(valkey, valkey, flavour) as bench:
        marker = bench.directory / uuid.uuid4().hex
        holding = bench.send("hold", str(marker))
        eventually(lambda: bench.starts(holding), within=30, what="the first task runs")
        beside = bench.ask("long_story", 3)
        marker.touch()
        held = bench.receipt(holding)
    assert [line.rpartition(": ")[2] for line in held.log] == ["holding"]
    assert len(beside.log) == 3


def test_first_message_comes_too_late(valkey: str) -> None:
    """A worker whose backend was made before it was instrumented tells of its first message."""
    with running_worker(valkey, valkey, Flavour("first", INSTRUMENTED)) as bench:
        late = datetime.now(timezone.utc) - timedelta(seconds=5)
        assert bench.receipt(bench.send("add", 1, 2, expires=late)).state == "expired"


def test_app_keeps_its_own_backend(valkey: str) -> None:
    """A result backend class of the app's own still does what it does."""
    with running_worker(valkey, valkey, OWN_BACKEND) as bench:
        bench.ask("add", 1, 2)
        stored = bench.ask("stored_so_far").result
    assert isinstance(stored, int)
    assert stored >= 2


def test_store_that_was_away(valkey: str) -> None:
    """A result store that fails while the task runs gets result and receipt when it is back."""
    flavour = Flavour("away", STOCK, INCLUDE)
    with valkey_server() as store, running_worker(valkey, store, flavour) as bench:
        marker = bench.directory / uuid.uuid4().hex
        sent = bench.send("hold", str(marker))
        eventually(lambda: bench.starts(sent), within=30, what="the task runs")
        with redis.Redis.from_url(store) as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_pause(1500)
        marker.touch()
        receipt = bench.receipt(sent)
        assert (receipt.state, receipt.result) == ("succeeded", "released")


def test_store_without_room(valkey: str) -> None:
    """Where the store refuses what a task returned, no record says that it succeeded."""
    flavour = Flavour("full", STOCK, INCLUDE)
    with (
        valkey_server() as store,
        redis.Redis.from_url(store) as client,
        running_worker(valkey, store, flavour) as bench,
    ):
        marker = bench.directory / uuid.uuid4().hex
        sent = bench.send("hold", str(marker))
        eventually(lambda: bench.starts(sent), within=30, what="the task runs")
        client.config_set("maxmemory", 1)
        marker.touch()
        eventually(
            lambda: "was lost" in bench.log.read_text(), within=30, what="the loss is logged"
        )
        assert bench.ends(sent) == []
        client.config_set("maxmemory", 0)
        assert bench.ask("add", 1, 2).state == "succeeded"


def test_no_stream_where_none_was_asked_for(bench: Bench, valkey: str) -> None:
    """Messages that name no stream get no record, and no stream by another name."""
    sent = bench.send("add", 1, 2, headers={"manifest_stream": ""})
    assert bench.app.AsyncResult(sent.task_id).get(timeout=30) == 3
    with redis.Redis.from_url(valkey) as client:
        assert client.exists(stream_key(sent.run)) == 0


def test_records_are_plain_json(bench: Bench, valkey: str) -> None:
    """Whatever script is written in, a record is one field of UTF-8 JSON."""
    sent = bench.send("echo", "Ünïcødé 映画 \U0001f3ac")
    bench.receipt(sent)
    with redis.Redis.from_url(valkey) as client:
        rows = client.xrange(stream_key(sent.run))
    assert [set(fields) for _, fields in rows] == [{b"r"}] * 2
    assert json.loads(rows[1][1][b"r"])["receipt"]["result"] == "Ünïcødé 映画 \U0001f3ac"
