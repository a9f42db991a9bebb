"""Which workers are gone, by their processes and by the broker; a silent one alone is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.ledger import Ledger
from pytest_manifest.processes import ProcessIdentity, own_identity, parse_identity
from pytest_manifest.run.search import HEARD_WITHIN, LEFT_FOR, Departures, WorkerFacts
from tests.processes import said_by_system
from tests.support import eventually
from tests.unit.ledger_support import INFO

NODE = frozenset({"a@h"})
OTHER = frozenset({"b@h"})
SILENT = BrokerSnapshot(unresponsive=NODE, answered=OTHER)
ABSENT = replace(SILENT, absent=NODE)
CONNECTED = replace(SILENT, maybe_alive=NODE)
ANSWERING = BrokerSnapshot(answered=NODE | OTHER)


def identity_of(pid: int) -> ProcessIdentity:
    own = own_identity()
    assert own is not None
    started = int(said_by_system(pid, "stat").rpartition(")")[2].split()[19])
    return ProcessIdentity(own.scope, pid, os.getpgid(pid), started)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, with a child."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        eventually(lambda: _children(process.pid), what="it has a child")
        yield process
        process.kill()


def _children(pid: int) -> list[int]:
    return [int(one) for one in said_by_system(pid, f"task/{pid}/children").split()]


def departures(process: ProcessIdentity | None, pool: str = "prefork") -> Departures:
    made = Departures()
    made.meet({"a@h": WorkerFacts(process, pool), "b@h": WorkerFacts(None, pool)}, 0.0)
    return made


def test_an_identity_is_told_and_read() -> None:
    own = own_identity()
    assert own is not None
    assert parse_identity(str(own)) == own
    assert own.is_here
    assert not own.has_ended


@pytest.mark.parametrize("text", ["", "x", "x_1_2", "x_1_1_5", "x_0_9_5", "x_1_-9_5", "x_1_9_5_6"])
def test_what_is_no_identity_is_none(text: str) -> None:
    """A group of 1 would be everybody: killpg takes it for that."""
    assert parse_identity(text) is None


def test_a_pid_that_another_process_has_by_now_has_ended() -> None:
    own = own_identity()
    assert own is not None
    assert replace(own, started=own.started - 1).has_ended


def test_a_process_of_another_boot_or_namespace_is_not_judged_here() -> None:
    own = own_identity()
    assert own is not None
    other = replace(own, scope=own.scope + "1")
    assert not other.is_here
    with pytest.raises(ValueError, match="another machine"):
        _ = other.has_ended


def test_a_worker_whose_process_is_dead_with_its_children_is_gone_at_once(
    worker: subprocess.Popen[bytes],
) -> None:
    """Not while it lives, however long it is silent and away, nor while a child of it does."""
    made = departures(identity_of(worker.pid))
    (child,) = _children(worker.pid)
    for now in (1.0, 1000.0):
        assert not made.gone(ABSENT, ABSENT, now)
    worker.kill()
    worker.wait(30)
    assert not made.gone(SILENT, SILENT, 1001.0)
    os.kill(child, 9)
    eventually(lambda: made.gone(SILENT, SILENT, 1002.0) == NODE, what="its child has ended")


def test_that_a_process_has_ended_is_found_once(worker: subprocess.Popen[bytes]) -> None:
    made = departures(identity_of(worker.pid))
    assert not made.has_lost_some(None)
    worker.kill()
    worker.wait(30)
    assert made.has_lost_some(None)
    assert not made.has_lost_some(None)


def test_fewer_connections_are_a_worker_less() -> None:
    made = departures(None)
    seen = [made.has_lost_some(count) for count in (2, 2, 1, 1, None, 0, 3, 2)]
    assert seen == [False, False, True, False, False, False, False, True]


def test_a_node_that_is_started_again_has_another_process(worker: subprocess.Popen[bytes]) -> None:
    """The new one is silent then: it is busy."""
    own = own_identity()
    made = Departures(lambda: {"a@h": WorkerFacts(own, "solo")})
    made.meet({"a@h": WorkerFacts(identity_of(worker.pid), "solo")}, 0.0)
    os.killpg(worker.pid, 9)
    worker.wait(30)
    assert not made.gone(ANSWERING, ANSWERING, 1.0)
    assert not made.gone(SILENT, SILENT, 2.0)


def test_all_are_there_while_each_answers_as_the_one_that_it_was(
    worker: subprocess.Popen[bytes],
) -> None:
    both, own = NODE | OTHER, identity_of(worker.pid)
    made = departures(own)
    assert made.are_all_there(both | {"c@h"})
    assert not made.are_all_there(NODE)
    made.hear({"c@h"}, 1.0)
    assert not made.are_all_there(both)
    made.meet({"a@h": WorkerFacts(own, "prefork")}, 2.0)
    assert made.are_all_there(both | {"c@h"})
    made.meet({"a@h": WorkerFacts(own_identity(), "prefork")}, 3.0)
    assert not made.are_all_there(both | {"c@h"})


def test_one_elsewhere_that_answered_and_left_is_gone_after_a_while() -> None:
    """Longer than it would take to connect anew."""
    made = departures(None)
    assert not made.gone(ABSENT, ABSENT, 10.0)
    assert made.still_leaving(10.0) == LEFT_FOR
    assert not made.gone(ABSENT, ABSENT, 10.0 + LEFT_FOR / 2)
    assert made.gone(ABSENT, ABSENT, 10.0 + LEFT_FOR) == NODE
    assert made.still_leaving(10.0 + LEFT_FOR) is None


def test_one_that_comes_back_has_not_left() -> None:
    made = departures(None)
    made.gone(ABSENT, ABSENT, 10.0)
    made.gone(ANSWERING, ANSWERING, 12.0)
    assert not made.gone(ABSENT, ABSENT, 10.0 + LEFT_FOR)
    made.hear(NODE, 11.0 + LEFT_FOR)  # it has reported a start meanwhile
    assert not made.gone(ABSENT, ABSENT, 12.0 + LEFT_FOR)


def test_one_that_fell_silent_before_it_was_cut_off_may_live() -> None:
    """So looks one that the network keeps away: the broker keeps its connection for minutes."""
    made = departures(None)
    assert not made.gone(CONNECTED, CONNECTED, 10.0)
    for now in (20.0, 1000.0):
        assert not made.gone(ABSENT, ABSENT, now)


def test_one_that_was_not_heard_of_for_long_may_live() -> None:
    made = departures(None)
    for now in (HEARD_WITHIN + 1, HEARD_WITHIN + LEFT_FOR + 2):
        assert not made.gone(ABSENT, ABSENT, now)


@pytest.mark.parametrize("pool", ["threads", "gevent", ""])
def test_one_whose_pool_goes_on_with_what_it_had_taken_may_live(pool: str) -> None:
    made = departures(None, pool)
    for now in (10.0, 11.0 + LEFT_FOR):
        assert not made.gone(ABSENT, ABSENT, now)


def test_a_broker_that_does_not_tell_who_is_connected_shows_nobody_gone() -> None:
    made = departures(None)
    for now in (10.0, 11.0 + LEFT_FOR):
        assert not made.gone(SILENT, SILENT, now)


def test_what_was_known_is_known_to_the_next_session(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    """Which cannot ask a worker that has died meanwhile."""
    before, after = departures(identity_of(worker.pid)), Departures()
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        before.keep(ledger.info)
        os.killpg(worker.pid, 9)
        worker.wait(30)
        after.recall(ledger.info)
    # The group is of its child as well, which ends in its own time.
    eventually(lambda: after.gone(SILENT, SILENT, 1.0) == NODE, what="its group has ended")
