"""Situations in which several judges once said different things, and what is right of each."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.unit.judge_world import (
    AS_EXPECTED,
    BEGAN,
    CRASHES,
    FINISHES,
    IS_LATE,
    IS_REVOKED,
    LIFETIME,
    OTHER_CODE,
    PASSED,
    REPEATABLE,
    Row,
    an_entry,
    announced,
    closed,
    code,
    crash,
    ended,
    gone,
    handed_on,
    judged,
    later,
    moved,
    nowhere,
    of_root,
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
    unsent,
)

QUARANTINED = ("quarantined", "kills_workers")
OTHER_ARGUMENTS = {"args_sha256": "0" * 64}
CRASHED_CHILD = several(spawned("c1"), started("y1"), ended("crashed", "y1", pid=11), of_root())


FOUR_STARTS = [started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 5)]
PUBLISHED_TWICE = [
    *(planned(), sending(), result("uncertain"), nowhere(), later(5), sending(2), result(number=2)),
    *(started(), ended(sent_at=BEGAN)),
]
ROWS = [
    Row(
        "1: a third death, by receipts",
        [sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3")],
        QUARANTINED,
        REPEATABLE,
    ),
    Row(
        "1: a third death, and a later start of pytest allows more",
        [sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3"), segment(kills=9)],
        QUARANTINED,
        REPEATABLE,
    ),
    Row(
        "1: a third death, where more are allowed",
        [segment(kills=9), sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3")],
        ("crashed", "died"),
        REPEATABLE,
    ),
    Row(
        "2: a false end, later a true one",
        [sent(), started(), ended(**OTHER_ARGUMENTS), ended()],
        ("forged", "other_arguments"),
    ),
    Row(
        "2: a true end, later a false one",
        [sent(), started(), ended(), ended(**OTHER_ARGUMENTS)],
        ("forged", "other_arguments"),
    ),
    Row(
        "2: a false end of another execution",
        [sent(), started(), ended("succeeded", "x9"), ended()],
        ("forged", "end_without_start"),
    ),
    Row(
        "3: an end of another entry under this id, then the true one",
        [sent(), started(), ended("failed", entry="e2"), ended()],
        PASSED,
    ),
    Row(
        "3: an end of another entry under this id, after the true one",
        [sent(), started(), ended("failed"), ended(entry="e2")],
        ("failed", "raised"),
    ),
    Row(
        "3: an end of another entry under this id, and the job runs",
        [sent(), started(), ended(entry="e2")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "3: nothing but an end of another entry under this id",
        [sent(), started(), ended(entry="e2"), time_over()],
        ("forged", "of_another"),
    ),
    Row("4: published twice, and a receipt of the first message", PUBLISHED_TWICE, PASSED),
    Row(
        "5: imported: recalled, and it expects that",
        [sent(), recalled("max_failed"), ended("revoked")],
        ("revoked", "recalled_by_run"),
        IS_REVOKED,
    ),
    Row(
        "5: imported: two ends differ",
        [sent(), started(), ended(), ended("failed")],
        ("forged", "ends_differ"),
    ),
    Row("5: imported: an end of no start", [sent(), ended()], ("forged", "end_without_start")),
    Row(
        "5: imported: other code",
        [sent(), started(), ended(code=OTHER_CODE)],
        ("failed", "other_code"),
    ),
    Row(
        "5: imported: past the task's own limit",
        [code(limit=5.0), sent(), started(), ended(runtime=6.0)],
        ("timed_out", "ran_too_long"),
    ),
    Row(
        "6: a shard's own limit, clock and store",
        [store("intact"), code(limit=5.0), sent(), ended(runtime=6.0)],
        ("forged", "end_without_start"),
    ),
    Row(
        "7: it sent itself again and succeeded, and pytest was killed",
        [sent(), started(), handed_on(), ended(), segment(), taken_up()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "8: a child that its parent could not send, and pytest was killed",
        passed_with(spawned("c1"), unsent(), segment(), taken_up(), search(), nowhere()),
        PASSED,
    ),
    Row(
        "9: a handler was announced, and has ended without starting anything",
        passed_with(announced("k", "after"), closed("k")),
        PASSED,
    ),
    Row(
        "10: the store was emptied, the start is lost, and an end came",
        [sent(), store("emptied"), ended()],
        PASSED,
    ),
    Row(
        "10: the same of a descendant",
        passed_with(spawned("c1"), store("emptied"), ended("succeeded", "y1")),
        PASSED,
    ),
    Row(
        "11: the same, and the store was away when its end was looked at",
        [sent(), ended(), store("unreachable"), store("intact")],
        PASSED,
    ),
    Row(
        "12: a descendant counts three children, and two are known",
        passed_with(
            spawned("c1"),
            started("y1"),
            ended("succeeded", "y1", children=3),
            *(several(spawned(n, parent="c1"), started(n), ended("succeeded", n)) for n in "de"),
        ),
        ("unknown", "descendants_unknown"),
    ),
    Row(
        "13: a descendant timed out without an end, where ends are all that is expected",
        passed_with(spawned("c1"), started("y1"), time_over()),
        ("timed_out", "by_descendant"),
        FINISHES,
    ),
    Row(
        "14: crashed descendants in three attempts",
        [
            *(sent(), started(), CRASHED_CHILD, ended()),
            *(resent(), started("x2"), CRASHED_CHILD, ended("succeeded", "x2")),
            *(resent(), started("x3"), CRASHED_CHILD, ended("succeeded", "x3")),
        ],
        ("crashed", "by_descendant"),
        REPEATABLE,
    ),
    Row(
        "15: resume leaves it: gone, and it expects to crash",
        [sent(), started(), segment(), taken_up(), gone(), search(), nowhere()],
        AS_EXPECTED,
        CRASHES,
    ),
    Row(
        "15: resume leaves it: an unsigned end",
        [sent(), started(), ended(fault="it is not signed"), segment(), taken_up(), nowhere()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "16: a dead worker had its message, and its pid is not visible",
        [sent(), started(), segment(), taken_up(), search(), moved("left")],
        ("crashed", "process_gone"),
    ),
    Row(
        "17: the run was over before its timeout, which it expects",
        [sent(), started(), run_over()],
        ("timed_out", "run_deadline"),
        IS_LATE,
    ),
    Row(
        "18: unknown with a receipt, by what was expected",
        [sent(), stored()],
        ("unknown", "times_not_reported"),
        an_entry(expect={"max_runtime": 9.0}),
    ),
    Row("18: and as that is expected no more", [sent(), stored()], PASSED),
    Row(
        "19: seen queued, and the run is older than its stream",
        [sent(), later(LIFETIME + 1), seen("queue"), run_over("ended")],
        ("pending", "in_queue"),
        is_final=False,
    ),
    Row(
        "21: unknown is an end", [sent(), store("emptied"), nowhere()], ("unknown", "store_emptied")
    ),
    Row(
        "21: unknown, as it was never sent, is none",
        [planned(), run_over("ended")],
        ("unknown", "never_sent"),
        is_final=False,
    ),
    Row(
        "22: its timeout counts by the controller's clock",
        [sent(), started(started_at=BEGAN - timedelta(minutes=4)), later(30), run_over()],
        ("timed_out", "run_deadline"),
        IS_LATE,
    ),
    Row(
        "23: its worker was killed, and its process asked for first",
        [sent(), started(), gone(), time_over()],
        ("crashed", "process_gone"),
    ),
    Row(
        "24: a fourth start and an end, in one poll",
        [sent(), *FOUR_STARTS, ended("succeeded", "x4")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "24: a fourth start, quarantined, and an end",
        [sent(), *FOUR_STARTS, recalled("poison"), ended("succeeded", "x4")],
        QUARANTINED,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_right(row: Row) -> None:
    """One judge says one thing, whoever asks."""
    found = judged(row)
    assert ((found.status, found.code), found.is_final) == (row.comes_to, row.is_final)


def test_20_retries_are_counted_in_the_run() -> None:
    """Whoever takes the run up again does not send it once more than its entry allows."""
    entry = an_entry(idempotent=True, retries=1)
    once = play([sent(), started(), nowhere()], entry).judge()
    twice = play(
        [sent(), started(), nowhere(), resent(), segment(), started("x2"), nowhere()], entry
    )
    assert (once.again, twice.judge().again) == ("attempt", "")


def test_25_what_was_never_begun_has_not_run() -> None:
    """Its cost and what a resume does with it follow from the same answer."""
    entry = an_entry(cost=2.0)
    unstarted = play([sent(), time_over("deadline")], entry).judge()
    begun = play([sent(), started(), time_over()], entry).judge()
    doubtful = play([sent(), time_over("deadline")], entry, is_private=False).judge()
    assert [(one.may_have_run, one.cost) for one in (unstarted, begun, doubtful)] == [
        (False, Decimal(0)),
        (True, Decimal(2)),
        (True, Decimal(2)),
    ]


def test_26_a_message_that_was_rejected_after_its_start_may_have_run() -> None:
    """What it did before that is done."""
    begun = play([sent(), started(), ended("rejected", pid=11)]).judge()
    turned_away = play([sent(), ended("rejected")]).judge()
    assert [one.may_have_run for one in (begun, turned_away)] == [True, False]


def test_a_late_child_and_a_doubled_receipt_leave_what_was_reported() -> None:
    """More is awaited then, so what is said now is not final, and nothing is corrected by it."""
    steps = [sent(), started(), ended()]
    assert play(steps).judge().is_final
    late = play([*steps, spawned("c1"), of_root(), ended()]).judge()
    assert (late.status, late.is_final) == ("pending", False)
