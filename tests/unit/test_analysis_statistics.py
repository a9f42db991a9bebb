"""What a run amounts to: counts, spreads, causes, workers, cost and advice."""

from __future__ import annotations

import random
import statistics as reference
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_manifest.analysis.causes import CauseNumbers
from pytest_manifest.analysis.statistics import (
    Statistics,
    distribution,
    quantile,
    statistics,
)
from pytest_manifest.ledger import RunSegment
from pytest_manifest.schema import Entry, Mismatch, VerdictStatus
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import verdict_without_receipt
from tests.unit.analysis_support import INFO, after, attempt, error, record, timed


def figures(*records: object, parts: Sequence[RunSegment] = ()) -> Statistics:
    return statistics(records, INFO, parts)  # type: ignore[arg-type]  # records


def test_an_empty_run_has_figures() -> None:
    made = figures()
    assert (made.entries, made.tasks, made.slowest) == (0, [], [])
    assert (made.duration, made.cost, made.wait, made.advice) == (None, None, None, [])


def test_entries_are_counted_by_verdict_and_outcome() -> None:
    made = figures(
        record("a"), record("b", "crashed"), record("c", "lost"), record("d", None), record("e")
    )
    assert made.entries == 5
    assert made.verdicts == {"passed": 2, "crashed": 1, "lost": 1}
    assert made.outcomes == {"passed": 2, "failed": 1, "error": 1, "pending": 1}


def test_each_task_has_its_row() -> None:
    made = figures(
        timed("a", 1.0, task="jobs.b"),
        timed("b", 3.0, "failed", task="jobs.b"),
        record("c", "skipped", attempt(wait=None, runtime=None, finished_at=None), task="jobs.a"),
    )
    skipped, ran = made.tasks
    assert (skipped.task, skipped.count, skipped.skipped, skipped.passed) == ("jobs.a", 1, 1, 0)
    assert (skipped.wait, skipped.runtime, skipped.throughput) == (None, None, None)
    assert (ran.task, ran.count, ran.passed, ran.failed) == ("jobs.b", 2, 1, 1)
    assert ran.runtime is not None
    assert (ran.runtime.p50, ran.runtime.max, ran.runtime.total) == (2.0, 3.0, 4.0)
    assert ran.throughput == pytest.approx(2 / 3)  # two ended in the 3 s from the first start


def test_percentiles_are_those_of_the_standard_library() -> None:
    values = [random.Random(1).expovariate(1) for _ in range(317)]
    found = distribution(values)
    cuts = reference.quantiles(values, n=20, method="inclusive")
    assert found is not None
    assert [found.p50, found.p95] == pytest.approx([cuts[9], cuts[18]])
    assert quantile([4.0], 0.95) == 4.0


def test_the_five_slowest_come_first_to_last() -> None:
    made = figures(*(timed(f"e-{n}", n % 7) for n in range(30)))
    assert [r.id for r in made.slowest] == ["e-6", "e-13", "e-20", "e-27", "e-5"]


def test_one_cause_is_one_error_at_one_place() -> None:
    def failed(
        name: str, line: int, kind: VerdictStatus = "failed", of: str = "ValueError"
    ) -> object:
        return record(name, kind, error=error(of), place=f"jobs.py:{line} in charge")

    made = figures(
        failed("a", 12),
        *(failed(f"b-{n}", 99) for n in range(4)),
        failed("c", 12, of="KeyError"),
        failed("d", 12, kind="timed_out"),
    )
    assert [(c.title, c.count, c.examples) for c in made.causes] == [
        ("ValueError at jobs.py:99 in charge", 4, ["b-0", "b-1", "b-2"]),
        ("ValueError at jobs.py:12 in charge", 1, ["a"]),
        ("KeyError at jobs.py:12 in charge", 1, ["c"]),
        ("timed_out: ValueError at jobs.py:12 in charge", 1, ["d"]),
    ]
    assert made.causes[0].message == "no good"


def test_without_an_error_one_cause_is_one_verdict_at_one_path() -> None:
    def at(path: str) -> list[Mismatch]:
        return [Mismatch(path=path, expected="1", actual="2")]

    made = figures(
        record("a", "failed", mismatches=at("result.rows[3].n")),
        record("b", "failed", mismatches=at("result.rows[14].n")),
        record("c", "duplicated", mismatches=at("executions")),
        record("d", "lost"),
        record("e", "quarantined", error=error(), mismatches=at("x")),
        record("f", "timed_out", mismatches=[Mismatch(path="state", expected="", actual="failed")]),
    )
    assert [(c.title, c.count) for c in made.causes] == [
        ("result.rows[*].n is not as expected", 2),
        ("duplicated: executions is not as expected", 1),
        ("lost", 1),
        ("quarantined: x is not as expected", 1),
        ("timed_out: ended as failed", 1),
    ]
    assert made.causes[2].message == "d is lost."


def test_verdicts_for_different_reasons_are_different_causes() -> None:
    """Each with its own advice; what is known of one more closely does not make another."""
    unread, unheard = problems.Unreadable(why="no JSON"), problems.StartUnreported()
    reasons = {"a": unread, "b": unheard, "c": unheard.having(store="redis://x"), "d": unread}
    found = [
        verdict_without_receipt(Entry(id=name, task="t"), 1, "unknown", why)
        for name, why in reasons.items()
    ]
    made = figures(*(replace(record(one.entry), verdict=one, outcome="error") for one in found))
    assert [(c.title, c.code, c.count, c.examples) for c in made.causes] == [
        ("unknown", "unreadable", 2, ["a", "d"]),
        ("unknown", "start_unreported", 2, ["b", "c"]),
    ]
    numbers = CauseNumbers()
    assert [numbers.number(one, None) for one in found] == [0, 1, 1, 0]
    assert numbers.positions(made.causes) == [0, 1]


def differs(name: str, actual: str, expected: str = "'done'", **more: object) -> object:
    found = [Mismatch(path="result.status", expected=expected, actual=actual)]
    return record(name, "failed", mismatches=found, **more)  # type: ignore[arg-type]  # any fields


def test_a_failed_expectation_says_what_was_found_where_what_was_expected() -> None:
    (cause,) = figures(differs("a", "'empty'")).causes
    assert cause.title == "result.status is not as expected"
    assert cause.message == "'empty' where 'done' was expected"
    assert (cause.expected, cause.actual) == ("'done'", "'empty'")


def test_values_that_come_again_and_again_are_causes_of_their_own() -> None:
    made = figures(
        *(differs(f"e-{n}", "'empty'") for n in range(4)),
        *(differs(f"p-{n}", "'partial'") for n in range(2)),
    )
    assert [(c.count, c.actual, c.examples) for c in made.causes] == [
        (4, "'empty'", ["e-0", "e-1", "e-2"]),
        (2, "'partial'", ["p-0", "p-1"]),
    ]


@pytest.mark.parametrize("count", [3, 500])
def test_values_that_are_all_different_are_one_cause(count: int) -> None:
    made = figures(*(differs(f"e-{n}", str(n), str(-n)) for n in range(count)))
    assert [(c.count, c.message) for c in made.causes] == [(count, "0 where 0 was expected")]


def test_an_expected_failure_is_told_by_what_differs_of_it() -> None:
    """Its error was expected; that it is another one is the cause."""
    found = [Mismatch(path="error.type", expected="KeyError", actual="ValueError")]
    (cause,) = figures(record("a", "failed", error=error(), mismatches=found)).causes
    assert cause.title == "error.type is not as expected"
    assert cause.message == "ValueError where KeyError was expected"


def test_a_task_that_should_have_failed_is_told_so() -> None:
    found = [Mismatch(path="state", expected="failed", actual="succeeded")]
    (cause,) = figures(record("a", "failed", mismatches=found)).causes
    assert (cause.title, cause.message) == (
        "ended as succeeded",
        "succeeded where failed was expected",
    )


def test_a_schema_that_cannot_be_applied_is_told_by_its_sentence() -> None:
    found = [Mismatch(path="expect.schema", expected="a schema to check by", actual="is endless")]
    (cause,) = figures(record("a", "failed", mismatches=found)).causes
    assert (cause.message, cause.expected) == ("a is failed.", None)


def test_what_passed_was_skipped_or_is_pending_has_no_cause() -> None:
    made = figures(
        record("a", error=error()),
        record("b", "skipped"),
        record("c", None),
        record("d", "pending"),
    )
    assert made.causes == []


def test_a_cause_tells_hostile_text_plainly_and_shortly() -> None:
    made = figures(record("a", "failed", error=error("E\x1b[31m\x00", "x\n" * 5000)))
    (cause,) = made.causes
    assert cause.title == "E\\x00"
    assert len(cause.message) <= 400


def test_every_attempt_counts_for_the_workers_and_for_retries() -> None:
    died = attempt(1, kind="crashed", runtime=None, finished_at=None, pid=8, redelivered=True)
    made = figures(
        record("a", "passed", died, attempt(2, retries=3)),
        record("b", "passed", attempt(runtime=3.0, pid=8)),
        record("c", "lost", attempt(worker=None, host=None)),
    )
    assert (made.further_sendings, made.retries, made.redeliveries) == (1, 3, 1)
    assert [(w.place, w.jobs, w.busy, w.share) for w in made.workers] == [
        ("w@h#8", 2, 3.0, 0.75),
        ("w@h#7", 1, 1.0, 0.25),
    ]


def test_time_runs_from_the_first_sending_to_the_last_end() -> None:
    made = figures(
        record("a", "passed", attempt(sent_at=after(2), finished_at=after(4))),
        record("b", "passed", attempt(sent_at=after(3), finished_at=after(7))),
    )
    assert (made.began, made.ended, made.duration) == (after(2), after(7), 5.0)
    assert made.throughput == pytest.approx(0.4)


# In several parts

NIGHT = 8 * 3600.0
TWO_PARTS = (RunSegment(after(-1)), RunSegment(after(NIGHT)))


def ran(
    name: str, sent: float, began: float, ended: float | None, *, pid: int = 7, number: int = 1
) -> object:
    """A job by the seconds at which it was sent, began and, where that is known, ended."""
    return record(
        name,
        "passed" if ended is not None else "lost",
        attempt(
            number,
            sent_at=after(sent),
            started_at=after(began),
            finished_at=None if ended is None else after(ended),
            runtime=None if ended is None else ended - began,
            wait=began - sent,
            pid=pid,
        ),
    )


def test_a_pause_between_two_parts_is_not_worked_on() -> None:
    """Ten seconds in the evening and ten in the morning are twenty."""
    evening = [ran(f"e-{n}", 0, n, n + 1) for n in range(10)]
    morning = [ran(f"m-{n}", NIGHT + 5, NIGHT + 5 + n, NIGHT + 6 + n) for n in range(10)]
    made = figures(*evening, *morning, parts=TWO_PARTS)
    assert (made.duration, made.parts, made.pauses) == (20.0, 2, NIGHT + 5 - 10)
    assert (made.began, made.ended) == (after(0), after(NIGHT + 15))
    assert made.throughput == 1.0
    assert made.tasks[0].throughput == 1.0


def test_without_notes_of_parts_all_is_one() -> None:
    made = figures(ran("a", 0, 1, 2), ran("b", 100, 101, 102))
    assert (made.duration, made.parts, made.pauses) == (102.0, 1, 0.0)


def test_a_part_that_nobody_noted_comes_before_the_first() -> None:
    """Of an older run only that it was taken up again is known."""
    made = figures(ran("a", 0, 1, 2), ran("b", NIGHT, NIGHT, NIGHT + 3), parts=TWO_PARTS[1:])
    assert (made.duration, made.parts) == (5.0, 2)


def test_jobs_that_go_on_without_pytest_leave_no_pause() -> None:
    """A job runs while the run is taken up again, as its workers are there all the time."""
    made = figures(
        ran("a", 0, 0, NIGHT + 10), ran("b", NIGHT + 5, NIGHT + 6, NIGHT + 20), parts=TWO_PARTS
    )
    assert (made.duration, made.pauses) == (NIGHT + 20, 0.0)


def test_what_was_sent_in_one_part_may_run_in_the_next() -> None:
    """It was kept in its queue overnight; that is its wait, and nobody's work."""
    made = figures(ran("a", 0, 1, 2), ran("b", 0, NIGHT + 1, NIGHT + 2), parts=TWO_PARTS)
    assert made.duration == 3.0
    assert made.wait is not None
    assert made.wait.max == NIGHT + 1


def test_a_job_that_was_cut_off_ran_until_the_stop() -> None:
    parts = (RunSegment(after(-1), after(60)), RunSegment(after(NIGHT)))
    made = figures(ran("a", 0, 1, None), ran("b", NIGHT, NIGHT, NIGHT + 3, number=2), parts=parts)
    assert made.duration == 63.0


def test_a_death_that_was_noticed_in_the_morning_is_no_work_of_the_night() -> None:
    died = attempt(kind="crashed", started_at=after(1), finished_at=after(NIGHT + 1), runtime=None)
    made = figures(
        record("a", "crashed", died), parts=(RunSegment(after(-1), after(4)), TWO_PARTS[1])
    )
    assert made.duration == 4.0


def test_a_workers_clock_that_is_behind_does_not_bridge_a_pause() -> None:
    """What was sent after the pause was not begun before it."""
    made = figures(ran("a", 0, 1, 2), ran("b", NIGHT + 1, NIGHT - 30, NIGHT - 20), parts=TWO_PARTS)
    assert made.duration == 2.0


def test_a_night_asks_for_no_workers_and_blames_none() -> None:
    """Neither the wait of what was kept in its queue, nor processes of another part, are a hint."""
    evening = [ran(f"e-{n}", 0, n, n + 1, pid=1) for n in range(20)]
    kept = [ran(f"k-{n}", 0, NIGHT + n, NIGHT + n + 1, pid=2) for n in range(3)]
    queued = [ran(f"q-{n}", 0, NIGHT + 3 + n, NIGHT + 4 + n, pid=3) for n in range(20)]
    assert figures(*evening, *kept, *queued, parts=TWO_PARTS).advice == []


def test_what_was_taken_back_before_it_ran_did_not_end() -> None:
    """Its receipt is dated all the same; it says what became of the message."""
    revoked = attempt(
        kind="revoked", started_at=None, finished_at=after(9), runtime=None, wait=None
    )
    made = figures(
        *(timed(f"e-{n}", 1.5) for n in range(4)),
        *(record(f"r-{n}", "revoked", revoked, error=error("Revoked", "")) for n in range(9)),
    )
    assert (made.ended, made.duration, made.throughput) == (after(2), 2.0, 2.0)
    assert made.tasks[0].throughput == pytest.approx(4 / 1.5)
    (cause,) = made.causes
    assert (cause.title, cause.message) == ("revoked", "r-0 is revoked.")


def test_costs_add_up_exactly_with_estimates_where_nobody_tells() -> None:
    told = figures(
        *(record(f"e-{n}", "passed", attempt(cost=0.1, billed_cost=0.1)) for n in range(3))
    )
    assert told.cost == 0.3
    partly = figures(
        record("a", "passed", attempt(cost=0.5, billed_cost=0.5)),
        record("b", "passed", attempt(cost=None, billed_cost=2.0)),
    )
    assert partly.cost == 2.5
    assert figures(record("a", "passed", attempt(billed_cost=2.0))).cost is None


# Advice


def waited(count: int, wait: float, runtime: float, *, workers: int = 2) -> Statistics:
    """So many jobs, one after the other on each worker, that waited so long."""
    return figures(
        *(
            record(
                f"e-{n}",
                "passed",
                attempt(
                    wait=wait,
                    runtime=runtime,
                    pid=n % workers,
                    started_at=after(n // workers * runtime),
                    finished_at=after((n // workers + 1) * runtime),
                ),
            )
            for n in range(count)
        )
    )


def test_long_waits_for_busy_workers_ask_for_more_of_them() -> None:
    assert waited(100, wait=8.0, runtime=0.2).advice == [
        "jobs waited 40 times as long as they ran (median 8 s and 0.2 s): more workers would help",
    ]


def test_long_waits_for_idle_workers_do_not() -> None:
    made = figures(
        *(
            record(
                f"e-{n}",
                "passed",
                attempt(wait=8.0, runtime=0.001, started_at=after(n), finished_at=after(n + 0.001)),
            )
            for n in range(20)
        )
    )
    (sentence,) = made.advice
    assert "busy only 0% of the time" in sentence
    assert "more workers" not in sentence


@pytest.mark.parametrize(
    ("count", "wait", "runtime"), [(9, 8.0, 0.2), (100, 0.9, 0.01), (100, 8.0, 0.9)]
)
def test_few_jobs_and_short_waits_give_no_advice(count: int, wait: float, runtime: float) -> None:
    assert waited(count, wait, runtime).advice == []


def test_jobs_that_were_to_wait_give_no_advice() -> None:
    made = figures(
        *(
            record(f"e-{n}", "passed", attempt(wait=60.0, runtime=1.0), countdown=60)
            for n in range(50)
        )
    )
    assert made.advice == []


def test_one_long_job_at_the_end_is_named() -> None:
    short = [timed(f"e-{n}", 0.5) for n in range(20)]
    long = record("big", "passed", attempt(pid=8, runtime=60.0, finished_at=after(60.5)))
    (sentence,) = figures(*short, long).advice
    assert sentence.startswith("'big' alone ran 60 s of 60 s while other workers had nothing to do")


def test_uneven_work_asks_for_no_prefetching() -> None:
    def job(n: int, pid: int) -> object:
        return record(
            f"e-{pid}-{n}",
            "passed",
            attempt(pid=pid, runtime=1.0, started_at=after(n), finished_at=after(n + 1)),
        )

    made_of = [*(job(n, 1) for n in range(30)), *(job(0, pid) for pid in (2, 3, 4))]
    made = figures(*made_of)
    (sentence,) = made.advice
    assert sentence.startswith("the busiest of 4 worker processes did 91% of the work")
    for one_by_one in (replace(INFO, takes_one=True), replace(INFO, is_private=True)):
        made = statistics(made_of, one_by_one)  # type: ignore[arg-type]  # records
        assert made.advice == [], "no worker took more than it ran"


def test_work_of_two_parts_is_not_called_uneven() -> None:
    """The processes of a short part had less time than those of a long one."""
    evening = [ran(f"e-{n}", n // 2, n // 2, n // 2 + 1, pid=n % 2) for n in range(60)]
    morning = [ran(f"m-{n}", NIGHT, NIGHT, NIGHT + 1, pid=2 + n) for n in range(4)]
    assert figures(*evening, *morning).advice
    assert figures(*evening, *morning, parts=TWO_PARTS).advice == []


def test_many_redeliveries_and_retries_are_told() -> None:
    made = figures(
        *(record(f"e-{n}", "passed", attempt(redelivered=True, retries=2)) for n in range(10))
    )
    assert [sentence.split(":")[0] for sentence in made.advice] == [
        "the broker delivered 10 jobs more than once",
        "tasks asked for 20 retries in 10 jobs",
    ]
