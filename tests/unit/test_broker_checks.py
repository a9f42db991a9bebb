"""The rules of preflight, on figures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from celery import Celery

from pytest_manifest.broker import checks
from pytest_manifest.broker.checks import Demand, VisibilityModel, demand_of
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.preflight import visibility_refusals
from pytest_manifest.broker.visibility import Visibility, visibility_of
from pytest_manifest.broker.workers import QUESTIONS, Worker, unsaid_warnings, workers_of
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress

if TYPE_CHECKING:
    from pytest_manifest.broker.publisher import Publisher

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc)


def held(demand: Demand, *, ahead: int, late: bool, visibility: float = 3600) -> list[str]:
    """Apply the visibility rule."""
    return checks.visibility_refusals(demand, VisibilityModel(visibility, ahead, lambda _: late))


def test_demand_is_summed_up() -> None:
    """Counts, longest times and their entries are kept for each task, not the entries."""
    demand = demand_of(
        (
            Entry(
                id=f"e-{n}",
                task=f"t.{n % 2}",
                queue="q" if n % 3 else None,
                timeout=1 + n,
                countdown=1000 - n,
                idempotent=n < 10,
            )
            for n in range(1000)
        ),
        NOW,
    )

    assert (demand.count, demand.longest_timeout, len(demand.samples)) == (1000, 1000, 4)
    task = demand.tasks["t.1"]
    assert (task.count, task.idempotent, task.longest_timeout) == (500, 5, 1000)
    assert (task.longest_delay, task.delayed and task.delayed.id) == (999, "e-1")
    assert task.longest_occupation == 1001
    assert list(demand.without(["t.1"]).tasks) == ["t.0"]
    assert {key[0] for key in demand.without(["t.1"]).samples} == {"t.0"}


def test_eta_counts_from_now() -> None:
    """An eta delays for as long as it is away; one that is over, not at all."""
    demand = demand_of(
        [
            Entry(id="a", task="a", eta=NOW + timedelta(hours=2)),
            Entry(id="b", task="b", eta=NOW - timedelta(hours=2)),
        ],
        NOW,
    )

    assert demand.tasks["a"].longest_delay == 7200
    assert demand.tasks["b"].longest_delay == 0


@pytest.mark.parametrize(
    ("countdown", "timeout", "ahead", "late", "refused"),
    [
        (0, 300, 4, True, False),  # 4 * 300 + 300 = 1500
        (0, 900, 4, False, True),  # 3600 is not below 3600
        (0, 899, 4, False, False),
        (0, 720, 4, True, True),  # 4 * 720 + 720
        (0, 719, 4, True, False),
        (0, 3600, 0, True, True),
        (0, 86400, 0, False, False),  # acknowledged when it starts
        (3599, 1, 0, False, False),
        (3600, 1, 0, False, True),
        (3000, 300, 1, True, True),
        (2999, 300, 1, True, False),
    ],
)
def test_visibility_rule(
    countdown: float, timeout: float, ahead: int, late: bool, refused: bool
) -> None:
    """Countdown, what runs before, and with late acks the own run must stay below the timeout."""
    demand = demand_of([Entry(id="e", task="t", countdown=countdown, timeout=timeout)])

    assert bool(held(demand, ahead=ahead, late=late)) is refused


def test_visibility_refusal_is_about_the_worst_entry_of_each_task() -> None:
    """One sentence a task; with late acks the worst is not the one with the longest countdown."""
    demand = demand_of(
        [
            Entry(id="far", task="t", countdown=100, timeout=10),
            Entry(id="long", task="t", countdown=50, timeout=200),
            Entry(id="other", task="u", countdown=60, timeout=10),
        ]
    )
    early = held(demand, ahead=1, late=False, visibility=100)
    late = held(demand, ahead=1, late=True, visibility=100)

    assert [sentence.split("'")[1] for sentence in early] == ["far", "other"]
    assert [sentence.split("'")[1] for sentence in late] == ["long", "other"]
    assert "unacknowledged for 300 s (countdown or eta 100 s + 1 prefetched jobs" in early[0]
    assert "unacknowledged for 450 s (countdown or eta 50 s + 1 prefetched jobs" in late[0]
    assert "after 100 s" in early[0]
    assert "raise visibility_timeout" in early[0]


@pytest.mark.parametrize(
    ("prefetch", "slots", "entries", "ahead"),
    [
        (4, 1, 1000, 4),
        (16, 4, 1000, 4),
        (5, 2, 1000, 3),
        (4, 1, 3, 2),  # two others are all that there is
        (4, 1, 1, 0),
        (0, 2, 1000, 500),  # no limit: all of them may be held
        (None, 1, 7, 6),
    ],
)
def test_jobs_that_run_before(prefetch: int | None, slots: int, entries: int, ahead: int) -> None:
    """A held message waits behind what its slot has prefetched, and never behind more than all."""
    assert Worker("w", prefetch=prefetch, slots=slots).ahead(entries) == ahead


def test_nearest_names() -> None:
    """The same function elsewhere comes first, then similar spellings; Celery's own never."""
    registered = {"tasks.crud.fast", "crud.slow", "other.fasd", "celery.fast", "zzz"}

    assert checks.similar_tasks("tasks.crude.fast", registered) == ["tasks.crud.fast"]
    assert checks.similar_tasks("fast", registered)[0] == "tasks.crud.fast"
    assert checks.similar_tasks("qqqqqqqq", registered) == []


def test_nothing_is_unknown_when_nobody_says_what_is_known() -> None:
    """Without an answer about registered tasks no task is called unknown."""
    assert checks.unknown_tasks(["a"], []) == {}
    assert checks.unknown_tasks(["a"], [Worker("w")]) == {}
    assert checks.unknown_tasks(["a", "b"], [Worker("w", {"b": False})]) == {"a": []}
    assert checks.unknown_tasks(["a"], [Worker("w", {"b": False}), Worker("slow")]) == {}


def test_idle_queues() -> None:
    """Queues that nobody consumes are found; not where a worker did not say what it consumes."""
    needed = {"a": {"t"}, "b": {"t"}}
    one, other = Worker("1", queues=frozenset("a")), Worker("2", queues=frozenset("c"))

    assert checks.idle_queues(needed, [one, other]) == ["b"]
    assert checks.idle_queues(needed, [one, Worker("3")]) == []


def test_task_that_its_queue_does_not_know() -> None:
    """A task routed to workers that do not have it is a warning, though others have it."""
    workers = [
        Worker("w1", {"t": False}, frozenset({"a"})),
        Worker("w2", {"u": False}, frozenset({"b"})),
    ]

    [warning] = checks.misrouted({"b": {"t", "u", "nobody's"}, "a": {"t"}}, workers)
    assert warning.startswith("task t goes to queue 'b', which w2 consumes without knowing it")


def test_acknowledgement_notices() -> None:
    """A line where the declarations disagree, none where they agree or nobody knows."""
    demand = demand_of(
        [
            Entry(id="1", task="late", idempotent=True),
            Entry(id="2", task="late"),
            Entry(id="3", task="early", idempotent=True),
            Entry(id="4", task="fine"),
            Entry(id="5", task="fine late", idempotent=True),
            Entry(id="6", task="unknown", idempotent=True),
            Entry(id="7", task="sent again", idempotent=True, retries=1),
        ]
    )
    late = {"late": True, "early": False, "fine": False, "fine late": True, "sent again": False}
    notices = checks.acknowledgement_notices(demand, late)

    assert len(notices) == 2
    assert notices[0].startswith("task early is acknowledged early")
    assert "1 of its 2 entries are not declared idempotent" in notices[1]


def test_acknowledgement_notices_name_all_tasks_at_once() -> None:
    """Twelve tasks with the same fault make one line, which names ten and counts all entries."""
    entries = [Entry(id=f"{n}-{i}", task=f"t{n:02}") for n in range(12) for i in range(n + 1)]
    late = {entry.task: True for entry in entries}
    (two,) = checks.acknowledgement_notices(demand_of(entries[:3]), late)
    (twelve,) = checks.acknowledgement_notices(demand_of(entries), late)

    assert two.startswith("tasks t00 and t01 are acknowledged late, so a job whose worker dies")
    assert "but 3 of their 3 entries are not declared idempotent" in two
    assert "t08, t09 and 2 more are acknowledged late" in twelve
    assert "78 of their 78 entries" in twelve


def test_replies_of_workers() -> None:
    """Tasks, queues, slots, prefetch and visibility timeout are read from Celery's replies."""
    answers: Answers = {
        "registered": {"w": ["t.a [acks_late=True]", "t.b [acks_late=False]", "t.c"]},
        "active_queues": {"w": [{"name": "q1"}, {"name": "q2"}]},
        "stats": {
            "w": {
                "prefetch_count": 8,
                "pool": {"max-concurrency": 2},
                "broker": {"transport_options": {"visibility_timeout": 60}},
            }
        },
    }

    assert workers_of(answers) == {
        "w": Worker(
            "w",
            {"t.a": True, "t.b": False, "t.c": False},
            frozenset({"q1", "q2"}),
            slots=2,
            prefetch=8,
            visibility=60,
        )
    }


def test_a_worker_that_grows_has_the_slots_that_it_grows_to() -> None:
    """It prefetches for all of them, and a job does not wait behind all that one process might."""
    stats = {"pool": {"max-concurrency": 1}, "prefetch_count": 12, "autoscaler": {"max": 3}}
    answers: Answers = {method: {} for method in QUESTIONS} | {"stats": {"w": stats}}
    worker = workers_of(answers)["w"]
    assert (worker.slots, worker.ahead(100)) == (3, 4)


@pytest.mark.parametrize(
    "reply", [None, "text", 5, {"error": "boom"}, [None], [{}], {"pool": "N/A", "broker": None}]
)
def test_replies_that_make_no_sense(reply: object) -> None:
    """A worker that answers with errors or nonsense counts as one that did not say."""
    worker = workers_of({method: {"w": reply} for method in QUESTIONS})["w"]

    assert (worker.slots, worker.prefetch, worker.visibility) == (1, None, None)
    assert not worker.queues


def test_what_a_worker_did_not_say_is_told() -> None:
    """No reply and an error are none; what was not asked of anyone is not missed."""
    answers: Answers = {
        "registered": {"slow": ["t.a"], "well": ["t.a"]},
        "active_queues": {"slow": {"error": "boom"}, "well": []},
        "stats": {"well": {"prefetch_count": 4}},
    }
    slow, well = workers_of(answers).values()
    assert slow.unsaid == {"active_queues", "stats"}
    assert (slow.has_stats, well.has_stats, well.unsaid) == (False, True, frozenset())
    [said] = unsaid_warnings([slow, well], "json")
    assert "worker slow" in said
    assert "(it is busy)" in said
    assert "cannot write that as yaml" in unsaid_warnings([slow], "yaml")[0]
    assert "its queues and its pool, prefetch and time limits" in said


def _held_for(app: Celery, *workers: Worker) -> Visibility:
    publisher = SimpleNamespace(address=StackAddress("redis://h", "", None, False), app=app)
    return visibility_of(cast("Publisher", publisher), workers, ["celery"])


def test_a_worker_without_stats_is_taken_to_be_as_the_app_here() -> None:
    """Its timeout and its prefetch: neither kombu's default, nor all the jobs that there are."""
    app = Celery(set_as_current=False)
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    slow, well = Worker("slow", unsaid=frozenset({"stats"})), Worker("well", prefetch=4)
    assert _held_for(app, slow).timeout == 100
    assert _held_for(app, well).timeout == checks.VISIBILITY_TIMEOUT
    publisher = cast("Publisher", SimpleNamespace(app=app, tasks={}))
    many = demand_of([Entry(id=f"e{n}", task="t", timeout=10) for n in range(100)])
    assert visibility_refusals(publisher, many, [slow], Visibility(100, "it")) == []
    assert visibility_refusals(publisher, many, [Worker("all")], Visibility(100, "it"))


def test_a_queue_whose_timeout_cannot_be_read_is_told_with_the_reason() -> None:
    """One sentence for each reason, with the queues and what counts instead."""
    unread = {"a": "ClientError: no", "b": "ClientError: no", "c": "OSError: gone"}
    first, second = Visibility(30, "it", unread).warnings()
    assert "queues 'a', 'b' cannot be read (ClientError: no)" in first
    assert "30 s count" in first
    assert "queue 'c' cannot be read (OSError: gone)" in second
    assert Visibility(30, "it").warnings() == []
