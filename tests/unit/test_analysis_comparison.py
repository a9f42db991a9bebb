"""Two runs held against each other."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

import pytest

from pytest_manifest.analysis.comparison import (
    compare,
    rank_sum_p,
)
from pytest_manifest.analysis.records import EntryRecord
from tests.unit.analysis_support import attempt, record, timed


def test_verdicts_that_changed_are_told_apart() -> None:
    before = [
        record("ok"),
        record("broke"),
        record("errs"),
        record("mended", "failed"),
        record("worse", "failed"),
        record("held", "failed"),
        record("gone"),
    ]
    after = [
        record("new-bad", "failed"),
        record("worse", "crashed"),
        record("mended"),
        record("errs", "lost"),
        record("broke", "failed"),
        record("ok"),
        record("held", "skipped"),
        record("new-ok"),
    ]
    found = compare(before, after, before_run="one", after_run="two")
    assert (found.before.run, found.after.run) == ("one", "two")
    assert (found.before.entries, found.after.entries) == (7, 8)
    assert (found.before.passed, found.after.passed) == (4, 3)
    assert [(c.id, c.before, c.after) for c in found.newly_failing] == [
        ("new-bad", None, "failed"),
        ("errs", "passed", "lost"),
        ("broke", "passed", "failed"),
    ]
    assert found.newly_failing[2].sentence == "broke is failed."
    assert [c.id for c in found.fixed] == ["mended"]
    assert [(c.id, c.before, c.after) for c in found.still_failing] == [
        ("worse", "failed", "crashed")
    ]
    assert (found.added, found.removed) == (["new-bad", "new-ok"], ["gone"])


def test_a_run_compared_with_itself_shows_nothing() -> None:
    run = [timed(f"e-{n}", n / 10) for n in range(60)]
    found = compare(run, run)
    changes: list[Sequence[object]] = [
        found.newly_failing,
        found.fixed,
        found.still_failing,
        found.added,
        found.removed,
        found.slower,
        found.faster,
        found.changed_results,
    ]
    assert not any(changes)


def noisy(median: float, count: int = 40, *, seed: int = 1, task: str = "t") -> list[EntryRecord]:
    """Runtimes around a median, with one of an hour among them."""
    draw = random.Random(seed)
    made = [timed(f"{task}-{n}", median * draw.uniform(0.8, 1.2), task=task) for n in range(count)]
    return [*made[:-1], timed(f"{task}-{count - 1}", 3600.0, task=task)]


def test_slower_and_faster_tasks_are_found() -> None:
    found = compare(
        [*noisy(1.0, task="a"), *noisy(1.0, task="b"), *noisy(1.0, task="c")],
        [*noisy(2.0, task="a", seed=2), *noisy(0.5, task="b", seed=2), *noisy(1.05, task="c")],
    )
    (slower,), (faster,) = found.slower, found.faster
    assert (slower.task, faster.task) == ("a", "b")
    assert slower.ratio == pytest.approx(2.0, rel=0.15)
    assert faster.ratio == pytest.approx(0.5, rel=0.15)
    assert (slower.samples_before, slower.samples_after, slower.same) == (40, 40, True)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (noisy(1.0, 19), noisy(3.0, 19), "too few"),
        (noisy(1.0), noisy(1.2, seed=2), "below the threshold"),
        (noisy(0.002), noisy(0.008, seed=2), "nobody would notice"),
        (
            [timed(f"e-{n}", 1.0 if n % 2 else 5.0) for n in range(20)],
            [timed(f"e-{n}", 4.9 if n < 11 else 1.0) for n in range(20)],
            "chance",
        ),
        (
            [timed(f"e-{n}", 1.0) for n in range(40)],
            [timed(f"e-{n}", 9.0, "failed") for n in range(40)],
            "failed ones say nothing of how long a job takes",
        ),
    ],
)
def test_what_may_be_chance_or_does_not_count_is_not_told(
    before: list[EntryRecord], after: list[EntryRecord], why: str
) -> None:
    found = compare(before, after)
    assert (found.slower, found.faster) == ([], []), why


def test_heavier_entries_that_were_added_do_not_make_a_task_slower() -> None:
    before = [timed(f"e-{n}", 1.0) for n in range(30)]
    after = [*before, *(timed(f"new-{n}", 60.0) for n in range(60))]
    assert compare(before, after).slower == []


def test_runs_that_share_no_entry_are_compared_by_all_of_a_task() -> None:
    before = [timed(f"a-{n}", 1.0 + n / 100) for n in range(30)]
    after = [timed(f"b-{n}", 2.0 + n / 100) for n in range(25)]
    (slower,) = compare(before, after).slower
    assert (slower.samples_before, slower.samples_after, slower.same) == (30, 25, False)


def test_other_results_are_found_by_their_digests() -> None:
    a, b = "a" * 64, "b" * 64
    before = [
        record("same", digest=a),
        record("other", digest=a),
        record("untold"),
        record("plain", result={"n": 1}),
        record("plain-same", result={"n": 1, "m": 2}),
        record("retasked", digest=a),
        record("broke", digest=a),
    ]
    after = [
        record("same", digest=a),
        record("other", digest=b),
        record("untold", digest=b),
        record("plain", result={"n": 2}),
        record("plain-same", result={"m": 2, "n": 1}),
        record("retasked", digest=b, task="jobs.u"),
        record("broke", "forged", digest=b),
    ]
    found = compare(before, after).changed_results
    assert [change.id for change in found] == ["other", "plain"]
    assert (found[0].before, found[0].after) == (a, b)


def test_costs_are_told_where_receipts_tell_them() -> None:
    def run(*costs: float | None) -> Iterable[EntryRecord]:
        return [
            record(f"e-{n}", "passed", attempt(cost=c, billed_cost=c)) for n, c in enumerate(costs)
        ]

    found = compare(run(None, None), run(0.1, 0.2))
    assert (found.before.cost, found.after.cost) == (None, 0.3)


def test_the_document_is_json_and_whole() -> None:
    found = compare(
        [record("a"), *noisy(1.0)], [record("a", "failed"), *noisy(2.0, seed=2)], before_run="one"
    )
    document = json.loads(found.model_dump_json())
    assert document["before"] == {"run": "one", "entries": 41, "passed": 41, "cost": None}
    assert document["newly_failing"] == [
        {
            "id": "a",
            "task": "jobs.t",
            "before": "passed",
            "after": "failed",
            "sentence": "a is failed.",
        }
    ]
    assert document["slower"][0]["samples_after"] == 40


def test_the_rank_test_agrees_with_shuffling() -> None:
    """Of all ways to divide the values, so many are at least as uneven as what was seen."""
    draw = random.Random(5)
    first = [round(draw.gauss(1.0, 0.3), 1) for _ in range(20)]  # rounded, so that some are equal
    second = [round(draw.gauss(1.1, 0.3), 1) for _ in range(25)]
    both = sorted(first + second)
    ranks = {value: both.index(value) + (both.count(value) + 1) / 2 for value in both}
    middle = len(first) * (len(both) + 1) / 2

    def distance(values: list[float]) -> float:
        return abs(sum(ranks[value] for value in values) - middle)

    seen, trials = distance(first), 4000
    worse = sum(distance(draw.sample(both, len(first))) >= seen for _ in range(trials))
    assert rank_sum_p(first, second) == pytest.approx(worse / trials, abs=0.02)
    assert 0.01 < worse / trials < 0.3
    assert rank_sum_p(first, second) == pytest.approx(rank_sum_p(second, first))


def test_values_that_are_often_equal_are_no_less_sure() -> None:
    """Ties lessen what chance can do; a test that passed over them would say 3.7e-5 here."""
    assert rank_sum_p([1.0] * 12, [2.0] * 12) < 3e-6


def test_equal_values_tell_no_difference() -> None:
    assert rank_sum_p([1.0] * 8, [1.0] * 9) == 1.0


def test_what_was_only_not_selected_is_neither_added_nor_removed() -> None:
    """As with ``-k``, in either run, of the same manifest or of one that has other entries too."""
    few, many = [timed("e-0", 1.0)], [timed(f"e-{n}", 1.0) for n in range(3)]
    names = {"e-0", "e-1"}
    assert compare(many, few, known_after=names).removed == ["e-2"]
    assert compare(few, many, known_before=names).added == ["e-2"]
    assert compare(many, few).removed == ["e-1", "e-2"]
