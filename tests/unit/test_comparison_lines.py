"""What the terminal says of two runs held against each other, by made-up records."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_manifest.analysis.comparison import compare
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.reporting.figures import Sheet, comparison_lines, comparison_phrase
from pytest_manifest.schema.summary import SummaryComparison
from tests.unit.analysis_support import attempt, record, timed


def found(before: Sequence[EntryRecord], after: Sequence[EntryRecord]) -> SummaryComparison:
    return compare(before, after, before_run="one", after_run="two")


def changes(
    before: Sequence[EntryRecord], after: Sequence[EntryRecord], *, everything: bool = False
) -> list[str]:
    """The lines below the counts."""
    lines = [line.text for line in comparison_lines(found(before, after), Sheet(all=everything))]
    assert lines[0] == "  since run one"
    return lines[2:]


def paid(*costs: float | None) -> list[EntryRecord]:
    return [
        record(f"e-{n}", "passed", attempt(cost=cost, billed_cost=cost))
        for n, cost in enumerate(costs)
    ]


def test_counts_and_verdicts_are_told_first() -> None:
    before = [record("broke"), record("mended", "failed"), record("gone"), record("held", "lost")]
    after = [record("broke", "failed"), record("mended"), record("held", "lost"), record("new")]
    lines = [line.text for line in comparison_lines(found(before, after), Sheet())]
    assert lines == [
        "  since run one",
        "    2 of 4 passed, 2 of 4 before",
        "    1 newly failing",
        "      broke  passed -> failed",
        "    1 fixed",
        "      mended  failed -> passed",
        "    1 still failing: held",
        "    1 added: new",
        "    1 removed: gone",
    ]
    assert comparison_phrase(found(before, after)) == "1 newly failing, 1 fixed since run one"


def test_what_has_no_verdict_yet_or_had_none_is_named_so() -> None:
    lines = changes([], [record("bad", "failed"), record("open", None)])
    assert "      bad  not there -> failed" in lines


def test_nothing_that_counts_is_a_line() -> None:
    run = [record("a"), record("b")]
    assert changes(run, run) == ["    no difference that counts"]
    assert comparison_phrase(found(run, run)) == "nothing changed since run one"


def test_a_task_that_became_slower_or_faster_is_named_with_its_times() -> None:
    quick = [timed(f"e-{n}", 1.0 + n / 1000) for n in range(20)]
    slow = [timed(f"e-{n}", 3.0 + n / 1000) for n in range(20)]
    assert changes(quick, slow) == [
        "    slower: jobs.t from 1.010 to 3.010 s (3 times, median of 20 entries)"
    ]
    assert changes(slow, quick) == [
        "    faster: jobs.t from 3.010 to 1.010 s (0.34 times, median of 20 entries)"
    ]
    others = [timed(f"o-{n}", 3.0) for n in range(25)]
    (slower,) = [line for line in changes(quick, others) if "slower" in line]
    assert slower.endswith("(3 times, median of 20 and 25 entries)")
    assert comparison_phrase(found(quick, slow)) == "1 slower since run one"


def test_other_results_are_named() -> None:
    before = [record(f"e-{n}", digest="a" * 64) for n in range(3)]
    after = [record(f"e-{n}", digest="b" * 64) for n in range(3)]
    assert changes(before, after) == ["    3 other results: e-0, e-1, e-2"]
    assert comparison_phrase(found(before, after)) == "3 with other results since run one"


def test_costs_are_told_where_they_differ() -> None:
    assert changes(paid(2.0), paid(3.0)) == ["    cost 2 -> 3 (+50%)"]
    assert changes(paid(None), paid(3.0)) == ["    cost not known -> 3"]
    assert changes(paid(3.0), paid(3.0)) == ["    no difference that counts"]


def test_many_are_cut_short_unless_all_are_wanted() -> None:
    before = [record(f"e-{n}") for n in range(12)]
    after = [record(f"e-{n}", "failed") for n in range(12)]
    few, all_of_them = changes(before, after), changes(before, after, everything=True)
    assert few[-1] == "      and 2 more (-v shows all)"
    assert len(few) == 12
    assert len(all_of_them) == 13
    names = [record(f"new-{n}") for n in range(6)]
    assert changes([], names) == ["    6 added: new-0, new-1, new-2, new-3, new-4 and 1 more"]
