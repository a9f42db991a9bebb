"""The reasons that the judge gives: codes with the figures from which sentences are made."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pytest_manifest.redaction.texts import HIDDEN
from pytest_manifest.schema import Entry
from pytest_manifest.verdict.judge import Rules
from tests.unit.judge_world import (
    BEGAN,
    CRASHES,
    LIFETIME,
    REPEATABLE,
    Step,
    an_entry,
    announced,
    child_ended,
    crash,
    elsewhere,
    ended,
    gone,
    handed_on,
    later,
    nowhere,
    of_root,
    other_place,
    passed_with,
    planned,
    play,
    recalled,
    resent,
    result,
    run_over,
    search,
    seen,
    segment,
    sending,
    sent,
    several,
    spawned,
    started,
    store,
    stored,
    taken_up,
    time_over,
    unreadable,
    withheld,
)

PLAIN = an_entry()
LATE = an_entry(expect={"state": "timed_out"})
AT = "2026-03-01 12:00:00.000000 UTC"
RESTARTS = [started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 5)]
REASONS: list[tuple[list[Step], Entry, dict[str, object]]] = [
    (
        [planned(), withheld("unknown_task", "tasks.word", "tasks.worm")],
        PLAIN,
        {"code": "unknown_task", "names": ["tasks.word", "tasks.worm"], "task": "tasks.work"},
    ),
    (
        [planned(), withheld("after", "e0", "e9", end="failed", left_out=3)],
        PLAIN,
        {"code": "waits_for", "names": ["e0", "e9"], "end": "failed", "left_out": 3},
    ),
    (
        [planned(), sending(), result("refused", error="no such queue")],
        PLAIN,
        {"code": "refused", "error": "no such queue"},
    ),
    (
        [planned(), sending(), result("refused", error="gives it no id", is_unmade=True)],
        PLAIN,
        {"code": "not_made", "error": "gives it no id"},
    ),
    (
        [planned(), sending(), result("unsent"), time_over("deadline")],
        PLAIN,
        {"code": "never_taken", "limit": 60.0, "timeout": 60.0},
    ),
    (
        [planned(), run_over()],
        PLAIN,
        {"code": "run_deadline", "limit": 20.0, "unsent": True, "timeout": 60.0},
    ),
    (
        [sent(), run_over(error="the store is away")],
        PLAIN,
        {"code": "run_deadline", "limit": 20.0, "unread": "the store is away", "timeout": 60.0},
    ),
    (
        [sent(), seen("unacked", "w9@h"), run_over()],
        PLAIN,
        {"code": "run_deadline", "limit": 20.0, "holder": "worker w9@h", "timeout": 60.0},
    ),
    ([sent(), run_over("gave_up", error="away")], PLAIN, {"code": "run_gave_up", "error": "away"}),
    ([sent(), run_over("unanswered")], PLAIN, {"code": "run_deadline_unanswered", "limit": 20.0}),
    ([sent(), run_over("unasked")], PLAIN, {"code": "run_deadline_unasked", "limit": 20.0}),
    (
        [sent(), run_over("nobody", fields={"others": "w9@h", "queues": "q"})],
        PLAIN,
        {"code": "run_nobody", "limit": 20.0, "others": "w9@h", "queues": "q"},
    ),
    (
        [sent(), run_over("undecodable", fields={"workers": 2, "answered": "a", "format": "b"})],
        PLAIN,
        {"code": "run_undecodable", "workers": 2, "answered": "a", "format": "b"},
    ),
    (
        [sent(), run_over("silent", fields={"workers": 2, "gone": 3})],
        PLAIN,
        {"code": "run_unanswered", "workers": 2, "gone": 3},
    ),
    ([planned(), run_over("ended")], PLAIN, {"code": "never_sent"}),
    (
        [sent(), later(LIFETIME + 1), run_over("ended")],
        PLAIN,
        {"code": "past_lifetime", "where": "the result store"},
    ),
    ([sent(), later(LIFETIME + 1), nowhere()], PLAIN, {"code": "past_lifetime"}),
    ([sent(), seen("queue")], PLAIN, {"code": "in_queue"}),
    ([sent(), seen("worker")], PLAIN, {"code": "with_worker"}),
    ([sent(), seen("unacked")], PLAIN, {"code": "with_dead_worker"}),
    ([sent(), seen("queue"), seen("unknown")], PLAIN, {"code": "problem"}),
    ([sent(), seen("queue"), taken_up()], PLAIN, {"code": "problem"}),
    ([sent(), recalled(), recalled(stage="heard")], PLAIN, {"code": "stopped_before_start"}),
    (
        [sent(), started(), handed_on(), recalled(stage="heard")],
        PLAIN,
        {"code": "stopped_between_tries"},
    ),
    (
        [segment(deadline=7.0), sent(), recalled("time", "withdrawn"), segment(deadline=8.0)],
        PLAIN,
        {"code": "run_deadline_before_start", "limit": 7.0, "timeout": 60.0},
    ),
    (
        [segment(deadline=7.0), sent(), started(), handed_on(), recalled("time", "heard")],
        LATE,
        {
            "code": "run_deadline_between_tries",
            "limit": 7.0,
            "timeout": 60.0,
            "expected": True,
        },
    ),
    (
        [sent(), started(), gone(), nowhere()],
        PLAIN,
        {"code": "process_gone", "worker": "w1@h", "pid": 11},
    ),
    (
        [sent(), started(worker=None), gone(), nowhere()],
        PLAIN,
        {"code": "process_gone", "worker": "h", "pid": 11},
    ),
    (
        [sent(), started(), gone(exit_code=-9), nowhere()],
        PLAIN,
        {"code": "process_ended", "worker": "w1", "exit_code": -9},
    ),
    (
        [sent(), started(), stored(), gone(), search(), nowhere()],
        PLAIN,
        {"code": "process_gone_unconfirmed", "worker": "w1@h", "pid": 11},
    ),
    (
        [sent(), started(), stored(), gone(exit_code=1), search(), nowhere()],
        PLAIN,
        {"code": "process_ended_unconfirmed", "worker": "w1", "exit_code": 1},
    ),
    ([sent(), store("emptied"), nowhere()], PLAIN, {"code": "store_emptied"}),
    (
        [sent(), store("emptied"), store("marked"), nowhere()],
        PLAIN,
        {"code": "store_emptied_earlier"},
    ),
    (
        [sent(), store("emptied"), store("intact"), nowhere()],
        PLAIN,
        {"code": "store_emptied_earlier"},
    ),
    ([sent(), started(), store("emptied"), gone(), time_over()], PLAIN, {"code": "store_emptied"}),
    (
        [segment(), sent(), recalled("time", "heard")],
        PLAIN,
        {"code": "run_deadline_before_start", "limit": 0.0, "timeout": 60.0},
    ),
    (
        [sent(), store("emptied"), store("unreachable"), nowhere()],
        PLAIN,
        {"code": "store_emptied"},
    ),
    (
        [sent(), other_place(), nowhere()],
        PLAIN,
        {"code": "other_broker", "broker": "redis://other"},
    ),
    ([sent(), nowhere()], PLAIN, {"code": "never_begun"}),
    ([sent(), started(), nowhere()], PLAIN, {"code": "lost_in_flight", "worker": "w1@h"}),
    (
        [sent(), started(), handed_on("task"), nowhere()],
        PLAIN,
        {"code": "lost_between", "worker": "w1@h", "how": "task"},
    ),
    (
        [sent(), time_over("deadline")],
        PLAIN,
        {"code": "deadline_over", "limit": 60.0, "timeout": 60.0},
    ),
    (
        [sent(), seen("unacked"), time_over("deadline")],
        PLAIN,
        {"code": "deadline_over", "limit": 60.0, "holder": "a worker", "timeout": 60.0},
    ),
    (
        [sent(), started(), time_over()],
        PLAIN,
        {"code": "timeout_over", "limit": 60.0, "timeout": 60.0},
    ),
    ([sent(), unreadable(), nowhere()], PLAIN, {"code": "unreadable", "why": "no JSON"}),
    (
        [sent(), *RESTARTS],
        PLAIN,
        {"code": "kills_workers", "deaths": 3, "pids": [1, 2, 3]},
    ),
    (
        [sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3")],
        REPEATABLE,
        {"code": "kills_workers", "deaths": 3},
    ),
    (
        [sent(), started(), ended(fault="it is not signed"), nowhere()],
        PLAIN,
        {"code": "unsigned", "fault": "it is not signed"},
    ),
    (
        [sent(), started(), ended(task_id="t9"), nowhere()],
        PLAIN,
        {"code": "of_another", "of_what": "task id", "found": "'t9'", "true": "'a1'"},
    ),
    (
        [sent(), started(), ended(task="tasks.other")],
        PLAIN,
        {
            "code": "of_another",
            "of_what": "task",
            "found": "'tasks.other'",
            "true": "'tasks.work'",
        },
    ),
    (
        [sent(), started(), ended(result=1, result_sha256="0" * 64)],
        PLAIN,
        {"code": "changed_result", "result": "1"},
    ),
    (
        [sent(), started(), ended(sent_at=BEGAN - timedelta(seconds=1))],
        PLAIN,
        {"code": "of_another_message", "found": "2026-03-01 11:59:59.000000 UTC", "true": AT},
    ),
    (
        [sent(), started(started_at=BEGAN - timedelta(minutes=6)), ended()],
        PLAIN,
        {
            "code": "before_sending",
            "did": "started",
            "moment": "2026-03-01 11:54:00.000000 UTC",
            "sent": AT,
            "host": "h",
        },
    ),
    (
        [sent(), started(), ended(result=1), ended("failed")],
        PLAIN,
        {"code": "ends_differ", "one": "'failed' with 'ValueError'", "other": "'succeeded' with 1"},
    ),
    ([sent(), started(), ended("expired")], PLAIN, {"code": "end_after_start", "state": "expired"}),
    (
        [sent(), started(), gone(), nowhere()],
        CRASHES,
        {
            "code": "ended_as_expected",
            "ended": "crashed",
            "why": {"code": "process_gone", "worker": "w1@h", "pid": 11},
        },
    ),
    (passed_with(announced("k"), spawned("c")), PLAIN, {"code": "awaits_tree", "tasks": 2}),
    (
        [sent(), started(), child_ended(), of_root(), ended(children=3)],
        PLAIN,
        {
            "code": "descendants_unknown",
            "why": {"code": "children_missing", "children": 3, "known": 1},
        },
    ),
    (
        passed_with(spawned("c"), time_over("deadline")),
        PLAIN,
        {
            "code": "by_descendant",
            "task": "tasks.part",
            "task_id": "c",
            "parent": "tasks.work",
            "ended": "timed_out",
            "why": {"code": "deadline_over", "limit": 60.0, "whose": "the", "timeout": 60.0},
            "total": 1,
        },
    ),
    (
        [sent(), started(), handed_on("canvas"), child_ended("c", "revoked"), of_root(), nowhere()],
        an_entry(expect={"descendants": "succeeded"}),
        {
            "code": "by_descendant",
            "task": "tasks.part",
            "task_id": "c",
            "parent": "tasks.work",
            "ended": "revoked",
            "why": {"code": "revoked", "worker": "w1@h", "pid": 11},
            "total": 1,
            "handed_on": True,
        },
    ),
]


@pytest.mark.parametrize(("steps", "entry", "document"), REASONS)
def test_a_reason(steps: list[Step], entry: Entry, document: dict[str, object]) -> None:
    """Its code, and each figure that is other than by default."""
    assert play(steps, entry).judge().finding.reason.document() == document


def test_where_results_were_looked_for_is_said_of_a_stack_that_is_not_ours() -> None:
    """And where the app's own settings keep them, where that is elsewhere."""
    steps = [started(), sent(), other_place("own_store"), nowhere()]
    world = play([planned(), *steps], is_private=False)
    found = world.judge().finding.reason.document()
    own = {"store": "redis://results", "own": "redis://other"}
    assert found == {"code": "never_begun", **own}
    unreported = play([sent(), other_place("own_store"), nowhere()], is_private=False).judge()
    assert unreported.finding.reason.document() == {"code": "start_unreported", **own}


def test_a_descendant_on_another_broker_is_out_of_sight() -> None:
    """It is said where it was sent."""
    found = play(passed_with(spawned("c"), elsewhere(), nowhere())).judge().finding.reason
    why = found.document()["why"]
    assert why == {"code": "elsewhere", "broker": "redis://other"}


def test_a_task_that_runs_twice_had_a_delay() -> None:
    """For which a worker held its message, so that the broker gave it to another."""
    twice = several(
        started("y1"), started("y2", redelivered=True, pid=12), ended("succeeded", "y2")
    )
    found = play(passed_with(spawned("c", due=BEGAN + timedelta(seconds=90)), twice)).judge()
    why = found.finding.reason.document()["why"]
    assert isinstance(why, dict)
    assert (why["code"], why["delay"]) == ("duplicated", 90.0)


def test_of_two_failures_the_first_is_the_tasks_own() -> None:
    """The second is of what could not be sent after it, in whatever order they arrive."""
    own = ended("failed", "x1", error={"type": "Own", "message": "m"})
    second = ended("failed", finished_at=BEGAN + timedelta(seconds=1))
    for ends in ([own, second], [second, own]):
        reason = play([sent(), started(), *ends]).judge().finding.reason
        assert reason.document()["error"] == "Own: m"


def test_other_work_is_named() -> None:
    """By what of it was changed."""
    rules, entry = Rules(other_work="its task was changed"), an_entry(idempotent=True, retries=1)
    found = play([sent(), started(), nowhere()], entry).judge(rules)
    document = {"code": "other_work", "changed": "its task was changed"}
    assert (found.finding.reason.document(), found.again) == (document, "")


def test_no_reason_has_a_secret() -> None:
    """Neither of a job that was never sent, nor of one that ended as expected."""
    entry = an_entry(kwargs={"password": "s3cretvalue"})
    refused = play([planned(), sending(), result("refused", error="no s3cretvalue")], entry).judge()
    assert refused.finding.reason.document() == {"code": "refused", "error": f"no {HIDDEN}"}
    late = an_entry(kwargs={"password": "s3cretvalue"}, expect={"state": "crashed"})
    ended_so = play([sent(), started(worker="s3cretvalue"), gone(), nowhere()], late).judge()
    why = ended_so.finding.reason.document()["why"]
    assert why == {"code": "process_gone", "worker": HIDDEN, "pid": 11}


def test_what_decided_is_named() -> None:
    """By its place in the order, with the attempt and the receipt that counts."""
    by_end = play([sent(), started(), ended(), search()]).judge()
    by_search = play([sent(), started(), nowhere(), search()]).judge()
    assert (by_end.end, by_end.attempt, by_end.executions) == (7, 1, 1)
    assert by_end.receipt is not None
    by_restarts = play([sent(), *RESTARTS, time_over()]).judge()
    disbelieved = play([sent(), started(), ended(fault="no"), nowhere()]).judge()
    assert (by_restarts.end, disbelieved.end) == (10, 9)
    assert (by_search.end, by_search.receipt, by_search.executions) == (8, None, 1)
    assert play([sent(), *RESTARTS[:2], time_over()]).judge().executions == 2
    assert play([sent(), stored(executions=4)]).judge().executions == 4
