"""Nobody is there: when a run ends for it, and when it must not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.broker.preflight import Presence, Unreadable
from pytest_manifest.errors import StackError
from pytest_manifest.run.connections import EngineContext
from pytest_manifest.run.engine import Absence, Ending
from pytest_manifest.run.settings import RunSettings, Signals
from pytest_manifest.schema import Entry

NOBODY = Presence(frozenset(), frozenset(), 0)
UNASKED = Presence(frozenset(), frozenset(), None)
SILENT = Presence(frozenset(), frozenset(), 1)
SOMEBODY = Presence(frozenset({"w@h"}), frozenset(), 0)


class Watched:
    """A run of so many jobs, and what is found of its workers."""

    def __init__(self, found: Presence | StackError, **more: object) -> None:
        job = SimpleNamespace(is_running=False, entry=Entry(id="e", task="t", timeout=100))
        self.pending = {f"t{n}": job for n in range(2)}
        self.found = found
        self.look = BrokerSnapshot(visibility_timeout=3600.0)
        self.context = SimpleNamespace(
            run="r",
            settings=RunSettings(folder=Path(), no_worker=120.0),
            signals=Signals(),
            is_private=False,
            look_for_workers=self._look_for_workers,
            look_for_unreadable=lambda: None,
            pending=SimpleNamespace(by_task_id=self.pending),
            queues=["celery"],
            locator=SimpleNamespace(snapshot=lambda _: self.look),
            live_warnings=[],
        )
        vars(self.context).update(more)
        self.absence = Absence(cast("EngineContext", self.context))

    def _look_for_workers(self) -> Presence:
        if isinstance(self.found, StackError):
            raise self.found
        return self.found

    def after(self, seconds: float) -> Ending | None:
        return self.absence.check(time.monotonic() + seconds)


def test_nobody_for_two_minutes_ends_the_run() -> None:
    """Not before, and the time is shown from the first look on."""
    run = Watched(NOBODY)
    assert run.after(10) is None
    assert run.context.signals.nobody_since is not None
    ending = run.after(121)
    assert ending is not None
    assert "manifest_no_worker = 15m" in ending[1]
    assert max(map(len, ending[1].split("; "))) <= 200


@pytest.mark.parametrize("found", [SOMEBODY, UNASKED, StackError("away")])
def test_who_may_be_there_is_waited_for(found: Presence | StackError) -> None:
    """A worker that answers, a broker that carries no question, and one that is away."""
    run = Watched(found)
    assert [run.after(seconds) for seconds in (10, 121, 200, 1000)] == [None] * 4


@pytest.mark.parametrize(
    "more",
    [
        {"is_private": True},
        {"settings": RunSettings(folder=Path(), no_worker=0)},
        {"settings": RunSettings(folder=Path(), send_only=True)},
        {"look_for_workers": None},
    ],
)
def test_where_nobody_need_be_there_nobody_is_looked_for(more: dict[str, object]) -> None:
    """Our own stack has its supervisor, and who only sends does not stay."""
    assert Watched(NOBODY, **more).after(1000) is None


def test_queues_without_a_worker_are_named_once() -> None:
    """But not while somebody is silent, who may consume them."""
    found = Presence(frozenset({"w@h"}), frozenset(), 0, ["bulk", "mail"])
    run = Watched(replace(found, silent=1))
    assert run.after(10) is None
    assert not run.context.live_warnings
    run.found = found
    assert [run.after(seconds) for seconds in (60, 200)] == [None] * 2
    (said,) = run.context.live_warnings
    assert said.startswith("no worker that answers consumes 'bulk', 'mail', where jobs ")
    assert "worker -Q bulk,mail" in said


def test_a_job_that_runs_and_a_report_show_that_somebody_is_there() -> None:
    """Whatever the workers answer."""
    run = Watched(NOBODY)
    run.after(10)
    next(iter(run.pending.values())).is_running = True
    assert run.after(1000) is None
    assert run.context.signals.nobody_since is None


def test_a_silent_worker_is_busy_until_more_is_gone_than_it_can_run() -> None:
    """One without a pool runs one job at a time; two that left the queue were thrown away."""
    queued = BrokerSnapshot(queued={"t0": "celery", "t1": "celery"}, visibility_timeout=3600.0)
    run = Watched(SILENT)
    run.look = queued
    assert run.after(500) is None

    one = Watched(SILENT)
    one.look = BrokerSnapshot(queued={"t0": "celery"}, visibility_timeout=3600.0)
    assert one.after(130) is None
    assert len(one.context.live_warnings) == 1, "it is told, and may be busy with that one"
    assert one.after(215) is None
    ended = one.after(260)  # no job may run for longer
    assert ended is not None

    both = Watched(SILENT)
    ended = both.after(130)
    assert ended is not None
    assert "ContentDisallowed" in ended[1]


UNREADABLE = Unreadable(1, "json", ["yaml"])


def test_workers_that_answer_in_another_format_alone_cannot_decode() -> None:
    """It is said at half the time, and ends the run after all of it; twice is asked, no more."""
    asked: list[None] = []

    def unreadable() -> Unreadable:
        asked.append(None)
        return UNREADABLE

    run = Watched(SILENT, look_for_unreadable=unreadable, locator=None)
    assert [run.after(seconds) for seconds in (10, 50)] == [None, None]
    assert not asked
    assert [run.after(seconds) for seconds in (61, 95)] == [None, None]
    assert len(asked) == len(run.context.live_warnings) == 1
    ending = run.after(130)
    assert ending is not None
    assert len(asked) == 2
    assert "1 worker answered in yaml, and none in json" in ending[1]
    assert "ContentDisallowed" in ending[1]
    assert run.after(300) is None, "it has ended already; nobody is asked for ever"
    assert len(asked) == 2


def test_a_busy_worker_beside_one_that_cannot_decode_is_waited_for() -> None:
    """It may take the jobs yet."""
    two = Presence(frozenset(), frozenset(), 2)
    run = Watched(two, look_for_unreadable=lambda: UNREADABLE, locator=None)
    assert [run.after(seconds) for seconds in (70, 130, 500)] == [None, None, None]
    assert len(run.context.live_warnings) == 1


def test_only_who_is_silent_is_asked_in_other_formats() -> None:
    """A worker that cannot decode logs each question."""
    run = Watched(NOBODY, look_for_unreadable=lambda: pytest.fail("it was asked"))
    assert run.after(130) is not None
