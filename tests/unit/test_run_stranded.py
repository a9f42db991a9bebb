"""Jobs that a worker took and nobody is heard of: said at once, for the dead and for the busy."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.run.inflight import PendingAttempts, StrandedJobs
from pytest_manifest.schema import Entry

RUN = "20261124T150000-0123abcd"
CLOCK = r"\d\d:\d\d:\d\d"


def flights() -> PendingAttempts:
    made = PendingAttempts()
    for name in "abc":
        made.track(attempt_of(RUN, Entry(id=name, task="t"), 1), 0.0)
    return made


def look(made: PendingAttempts, *, silent: str = "", held: str = "") -> BrokerSnapshot:
    """a and b were taken, c waits."""
    a, b, c = made.by_task_id
    return BrokerSnapshot(
        queued={c: "celery"},
        unacked={a: frozenset({"t1"}), b: frozenset({"t2"})},
        reserved={a: held, b: held} if held else {},
        unresponsive=frozenset({silent}) if silent else frozenset(),
        answered=frozenset({"w1@h"}),
        delivered_at={a: time.time() - 60, b: time.time() - 50},
        visibility_timeout=3600.0,
    )


def test_what_is_known_is_said_once_while_it_is_waited_for() -> None:
    """Since when, until when, and what would free it; the flights are marked."""
    made, said = flights(), list[str]()
    stranded = StrandedJobs(made, said, allowed=False)
    for _ in range(2):
        stranded.update(look(made), look(made))
    (sentence,) = said
    assert re.fullmatch(
        rf"a worker that is gone holds 2 jobs, 'a' first, since {CLOCK}; the broker gives them "
        rf"back when its visibility timeout is over \(from {CLOCK} on\), --manifest-repair at once",
        sentence,
    )
    assert [flight.stranded for flight in made.by_task_id.values()] == [True, True, False]
    holding = look(made, held="w1@h")
    stranded.update(holding, holding)
    assert not any(flight.stranded for flight in made.by_task_id.values())
    assert len(said) == 1


@pytest.mark.parametrize("silent", ["", "w2@h"])
def test_what_a_repair_would_not_put_back_is_not_said_to_be_put_back(silent: str) -> None:
    made, said = flights(), list[str]()
    stranded = StrandedJobs(made, said, allowed=False, repairs=lambda _: False)
    stranded.update(look(made, silent=silent), look(made, silent=silent))
    (sentence,) = said
    assert "back when its visibility timeout is over" in sentence
    assert "--manifest-repair" not in sentence


def test_a_worker_that_does_not_answer_may_be_busy() -> None:
    """Of it nothing is claimed."""
    made, said = flights(), list[str]()
    busy = look(made, silent="w2@h")
    StrandedJobs(made, said, allowed=False).update(busy, busy)
    (sentence,) = said
    assert "w2@h did not answer: one that is busy may run them yet" in sentence
    assert "of one that is gone the broker gives them back" in sentence


def test_what_is_put_back_at_once_needs_no_word() -> None:
    """On a stack of our own, or where repairs are allowed."""
    made, said = flights(), list[str]()
    StrandedJobs(made, said, allowed=True).update(look(made), look(made))
    assert not said


def test_what_has_begun_is_not_waiting_for_anybody() -> None:
    """A late-acknowledged job stays with the broker while it runs; how that ends is looked for."""
    made, said = flights(), list[str]()
    first, *_ = made.by_task_id.values()
    first.started = 1.0
    StrandedJobs(made, said, allowed=False).update(look(made), look(made))
    assert [flight.stranded for flight in made.by_task_id.values()] == [False, True, False]
    (sentence,) = said
    assert "holds 1 job, 'b' first" in sentence


def test_who_had_them_is_remembered_and_said_of_each() -> None:
    """A worker that held them when it answered last, else those that do not answer now."""
    made = flights()
    first, second, *_ = made.by_task_id.values()
    stranded = StrandedJobs(made, [], allowed=False)
    holding = look(made, held="w1@h")
    stranded.update(holding, holding)
    second.holder = None
    silent = look(made, silent="w2@h")
    stranded.update(silent, silent)
    assert [one.holder for one in (first, second) if one.stranded] == ["w1@h", "w2@h"]
    stranded.update(holding, holding)
    assert not first.stranded


def test_a_note_is_said_again_only_where_far_more_are_stranded() -> None:
    """Not at each look, with another number; and of many silent workers some are named."""
    made, said = flights(), list[str]()
    first, *_ = made.by_task_id.values()
    first.started = 1.0
    stranded = StrandedJobs(made, said, allowed=False)
    nodes = replace(look(made), unresponsive=frozenset(f"w{n}@h" for n in range(12)))
    stranded.update(nodes, nodes)
    stranded.update(nodes, nodes)
    (sentence,) = said
    assert "w0@h, w10@h, w11@h and 9 more did not answer" in sentence
    assert max(map(len, sentence.split("; "))) <= 200
    first.started = None
    stranded.update(nodes, nodes)
    assert [line.split(",")[0] for line in said] == [
        "no worker that answers has 1 job",
        "no worker that answers has 2 jobs",
    ]
