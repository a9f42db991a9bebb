"""The rules of preflight, on figures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from celery import Celery

from pytest_manifest.broker import checks
from pytest_manifest.broker.checks import Demand, Finding, demand_of
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.redelivery import (
    Visibility,
    findings_of,
    holdings,
    redelivery_findings,
    visibility_of,
)
from pytest_manifest.broker.transports import REDIS_VISIBILITY, transport_of
from pytest_manifest.broker.workers import QUESTIONS, Worker, unsaid_warnings, workers_of
from pytest_manifest.schema import Entry

if TYPE_CHECKING:
    from pytest_manifest.broker.publisher import Publisher

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc)


def held(
    demand: Demand,
    *workers: Worker,
    late: bool = False,
    visibility: float = 3600,
    accepted: tuple[str, ...] = (),
) -> list[Finding]:
    """Apply the visibility rule, where each task goes to the queue that its entries name."""
    queues = {key: key[1] or "celery" for key in demand.samples}
    found = holdings(demand, workers, queues, lambda task: late or task.startswith("late."))
    return findings_of(list(found), Visibility(visibility, "visibility_timeout"), accepted)


def batch(count: int, timeout: float, task: str = "t", queue: str | None = None) -> list[Entry]:
    """Entries of one task."""
    return [Entry(id=f"{task}{n}", task=task, timeout=timeout, queue=queue) for n in range(count)]


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

    assert len(demand.samples) == 4
    task = demand.tasks["t.1"]
    assert (task.count, task.idempotent) == (500, 5)
    held = [one for (name, _), one in demand.held.items() if name == "t.1"]
    assert max(one.longest_delay for one in held) == 999
    assert {one.delayed.id for one in demand.held.values() if one.delayed} == {
        "e-0",
        "e-1",
        "e-2",
        "e-3",
    }
    assert max(one.longest_occupation for one in held) == 1001
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

    assert demand.held["a", None].longest_delay == 7200
    assert demand.held["b", None].longest_delay == 0


@pytest.mark.parametrize(
    ("countdown", "timeout", "prefetch", "late", "refused"),
    [
        (0, 300, 4, True, False),
        (0, 900, 4, False, True),  # behind one that runs and three that wait: 3600 is not below
        (0, 899, 4, False, False),
        (0, 900, 4, True, True),  # what runs is one of the four: 3 * 900 + 900
        (0, 899, 4, True, False),
        (0, 3600, 1, True, True),
        (0, 3599, 1, True, False),  # nothing is prefetched beside what runs
        (0, 86400, 1, False, True),
        (3599, 0.5, 1, False, False),
        (3600, 1, 1, False, True),
        (3000, 300, 2, True, True),
        (2999, 300, 2, True, False),
    ],
)
def test_visibility_rule(
    countdown: float, timeout: float, prefetch: int, late: bool, refused: bool
) -> None:
    """Countdown, what runs before, and with late acks the own run must stay below the timeout."""
    entries = [
        Entry(id=f"e{n}", task="t", countdown=countdown or None, timeout=timeout) for n in range(99)
    ]
    found = held(demand_of(entries), Worker("w", prefetch=prefetch), late=late)
    assert bool(found) is refused


def test_what_is_prefetched_of_the_batch_counts_and_not_the_worst_of_any_task() -> None:
    """One long entry is before the others once, and not four times."""
    few = demand_of([*batch(1, 1800, "late.long"), *batch(50, 30, "late.short")])
    assert held(few, Worker("w", prefetch=4)) == []
    [found] = held(demand_of(batch(4, 1800, "late.long")), Worker("w", prefetch=4))
    assert (
        "That is 5400 s for 3 prefetched jobs before it + its own timeout of 1800 s"
        in found.message
    )


def test_only_what_the_same_worker_takes_is_before_an_entry() -> None:
    """Reports and mails go to workers of their own; a queue that nobody has may be anyone's."""
    demand = demand_of([*batch(9, 1800, "report", "reports"), *batch(9, 1, "mail", "mails")])
    mails = Worker("m", queues=frozenset({"mails"}), prefetch=4)
    reports = Worker("r", queues=frozenset({"reports"}), prefetch=1)
    assert held(demand, mails, reports) == []
    [found] = held(demand, mails)
    assert "That is 7200 s for 4 prefetched jobs before it" in found.message
    assert found.message.count("so may entries of") == 1


def test_a_risk_names_the_simplest_remedy_first_and_can_be_accepted() -> None:
    """The timeout that it names is short enough; what is certain is refused all the same."""
    worker = Worker("w", prefetch=4)
    many = demand_of(batch(10, 1800))
    [found] = held(many, worker)
    assert found.level == "error"
    assert 'Give the entries a "timeout" of 899 s or less, raise ' in found.message
    assert "raise visibility_timeout above 7200, or set manifest_accept" in found.message
    assert all(len(sentence) <= 200 for sentence in found.message.split(". "))
    assert held(demand_of(batch(10, 899)), worker) == []

    [accepted] = held(many, worker, accepted=("redelivery",))
    assert accepted.level == "warning"
    assert accepted.message.endswith("accepted by manifest_accept = redelivery")
    far = demand_of([Entry(id="far", task="t", countdown=4000)])
    [certain] = held(far, worker, accepted=("redelivery",))
    assert certain.level == "error"
    assert "would run twice. Shorten it, or raise visibility_timeout above 4000" in certain.message


def test_the_worst_entry_is_named_and_the_other_tasks_are_counted() -> None:
    """One finding; with late acks the worst is not the one with the longest countdown."""
    entries = [
        Entry(id="far", task="t", countdown=90, timeout=10),
        Entry(id="long", task="t", countdown=50, timeout=200),
        Entry(id="other", task="u", countdown=40, timeout=10),
    ]
    [early] = held(demand_of(entries), Worker("w", prefetch=1), visibility=100)
    [late] = held(demand_of(entries), Worker("w", prefetch=2), late=True, visibility=100)
    assert "'far' (t) may be held by a worker for 290 s" in early.message
    assert "'long' (t) may be held by a worker for 260 s" in late.message
    assert (
        "That is 90 s of countdown or eta + 200 s for 1 prefetched job before it" in early.message
    )
    assert early.message.count("; so may entries of u") == 1


@pytest.mark.parametrize(
    ("prefetch", "slots", "entries", "ahead"),
    [
        (4, 1, 1000, 4),
        (16, 4, 1000, 4),
        (5, 2, 1000, 3),
        (4, 1, 3, 2),  # two others are all that there is
        (4, 1, 1, 0),
        (0, 2, 1000, 499),  # no limit: all of them may be held
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
    assert notices[0].startswith("early: acknowledged early")
    assert "1 of 2 entries are not declared idempotent" in notices[1]


def test_acknowledgement_notices_name_all_tasks_at_once() -> None:
    """Twelve tasks with the same fault make one line, which names five and counts all entries."""
    entries = [Entry(id=f"{n}-{i}", task=f"t{n:02}") for n in range(12) for i in range(n + 1)]
    late = {entry.task: True for entry in entries}
    (two,) = checks.acknowledgement_notices(demand_of(entries[:3]), late)
    (twelve,) = checks.acknowledgement_notices(demand_of(entries), late)

    assert two.startswith("t00, t01: acknowledged late, so a job whose worker dies")
    assert "but 3 of 3 entries are not declared idempotent" in two
    assert "t03, t04 and 7 more: acknowledged late" in twelve
    assert "78 of 78 entries" in twelve


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
    publisher = SimpleNamespace(transport=transport_of("redis://h"), app=app)
    return visibility_of(cast("Publisher", publisher), workers, ["celery"])


def test_a_worker_without_stats_is_taken_to_be_as_the_app_here() -> None:
    """Its timeout and its prefetch: neither kombu's default, nor all the jobs that there are."""
    app = Celery(set_as_current=False)
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    slow, well = Worker("slow", unsaid=frozenset({"stats"})), Worker("well", prefetch=4)
    assert _held_for(app, slow).timeout == 100
    assert _held_for(app, well).timeout == REDIS_VISIBILITY
    publisher = cast("Publisher", SimpleNamespace(app=app, tasks={}))
    many = demand_of([Entry(id=f"e{n}", task="t", timeout=10) for n in range(100)])
    queues: dict[tuple[str, str | None], str | None] = {("t", None): "celery"}
    assert redelivery_findings(publisher, many, [slow], queues, Visibility(100, "it")) == []
    assert redelivery_findings(publisher, many, [Worker("all")], queues, Visibility(100, "it"))


def test_a_queue_whose_timeout_cannot_be_read_is_told_with_the_reason() -> None:
    """One sentence for each reason, with the queues and what counts instead."""
    unread = {"a": "ClientError: no", "b": "ClientError: no", "c": "OSError: gone"}
    first, second = Visibility(30, "it", unread).warnings()
    assert "queues 'a', 'b' cannot be read (ClientError: no)" in first
    assert "30 s count" in first
    assert "queue 'c' cannot be read (OSError: gone)" in second
    assert Visibility(30, "it").warnings() == []
