"""Verify what the generic verdict cannot see: rows and grades, batch by batch and as a whole run.

Each test checks one thing. A row that was changed turns its batch red; one that was written once
more turns ``test_no_row_is_written_twice`` red; one that was deleted its batch, the row counts and
the gaps. Entries that were not selected are not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import Entry, Receipt
from tasks.filling.report import usd
from workflows.gap_fill.accounts import Account, account_of, accounts_of, ids_of
from workflows.gap_fill.batch_checks import faults_of_batch
from workflows.gap_fill.costs import cost_sentence, paid_reports, unknown_bills
from workflows.gap_fill.grades import Grades, faults_of_grades, grades_of, report_of
from workflows.gap_fill.quality import (
    agreement_of,
    agreement_sentence,
    quality_of,
    quality_sentence,
    thresholds_of,
)
from workflows.gap_fill.run_checks import (
    gaps_left,
    of_other_models,
    orphans_left,
    paid_in_rows,
    rows_after,
    rows_written_again,
)

SHOWN: Final = 5
"""Faults that a failure names; the others are counted."""

of_filling = pytest.mark.entries(tag=["gap_fill", "orphans"])
of_judging = pytest.mark.entries(tag="judge")

if TYPE_CHECKING:
    from pytest_manifest import ManifestRun
    from tasks.movie_bible.bible import MovieBible


@pytest.mark.entries(tag="gap_fill")
def test_rows_of_batch(entry: Entry, receipt: Receipt | None, movie_bible: MovieBible) -> None:
    """Check that every id has its valid row, as this job's batch wrote it; the tokens add up."""
    account = account_of(entry, receipt)
    if account is None or account.receipt.state != "succeeded":
        return  # the verdict says what happened; a failure may even be expected
    refuse_another_database(account.report.database, movie_bible)
    fail_for(faults_of_batch(account, movie_bible))


@pytest.mark.entries(tag="orphans")
def test_orphans_are_gone(entry: Entry, receipt: Receipt | None, movie_bible: MovieBible) -> None:
    """Check that no row is left of a passage that does not exist."""
    if receipt is None or receipt.state != "succeeded" or not isinstance(receipt.result, dict):
        return
    refuse_another_database(receipt.result.get("database"), movie_bible)
    ids = set(ids_of(entry))
    fail_for([f"{one}: its rows are still there" for one in movie_bible.orphans() if one in ids])


@of_filling
def test_row_counts(manifest_run: ManifestRun, movie_bible: MovieBible) -> None:
    """Check that the rows before and the rows inserted add up to the rows that exist."""
    counts = rows_after(batches_of(manifest_run, movie_bible), movie_bible)
    assert counts.before + counts.inserted == counts.after, (
        f"{counts.before} rows before and {counts.inserted} inserted make "
        f"{counts.before + counts.inserted}, and there are {counts.after}"
    )


@of_filling
def test_no_row_is_written_twice(manifest_run: ManifestRun, movie_bible: MovieBible) -> None:
    """Check that every row has the revision its batch reports, and each passage one row."""
    accounts = batches_of(manifest_run, movie_bible)
    ids = {one for account in accounts for one in account.ids}
    doubled = [
        f"{passage}: {count} rows of prompt {version}"
        for version in sorted({account.report.prompt for account in accounts})
        for passage, count in movie_bible.count_duplicates(version)
        if passage in ids
    ]
    fail_for(doubled + rows_written_again(accounts, movie_bible))


@of_filling
def test_no_row_is_an_orphan(manifest_run: ManifestRun, movie_bible: MovieBible) -> None:
    """Check that every row of the run has its passage."""
    fail_for(orphans_left(batches_of(manifest_run, movie_bible), movie_bible))


@of_filling
def test_no_other_model_has_answered(manifest_run: ManifestRun, movie_bible: MovieBible) -> None:
    """Check that every row was filled by the planned model, or by one that was accepted."""
    fail_for(of_other_models(batches_of(manifest_run, movie_bible), movie_bible))


@of_filling
def test_no_planned_gap_is_left(manifest_run: ManifestRun, movie_bible: MovieBible) -> None:
    """Check that every gap that was planned, and selected, is filled."""
    batches_of(manifest_run, movie_bible)
    selected = [entry for entry in selected_entries(manifest_run) if "gap_fill" in entry.tags]
    fail_for(gaps_left(selected, movie_bible))


@of_filling
def test_cost(
    manifest_run: ManifestRun,
    movie_bible: MovieBible,
    record_property: Callable[[str, object], None],
) -> None:
    """Check that receipts report all that rows have cost, and that the budget, if any, is kept."""
    accounts = batches_of(manifest_run, movie_bible)
    cost = told_cost(manifest_run, record_property)
    in_rows = usd(paid_in_rows(accounts, movie_bible, manifest_run.run))
    assert cost > in_rows or math.isclose(cost, in_rows, abs_tol=1e-9), (
        f"the run's rows have cost {in_rows:g}, and its receipts tell of {cost:g}"
    )


@of_judging
def test_grades_of_batch(entry: Entry, receipt: Receipt | None, movie_bible: MovieBible) -> None:
    """Check that each row has the grade of the planned judge, and is what was graded."""
    report = report_of(receipt)
    if report is None:
        return
    refuse_another_database(report.database, movie_bible)
    fail_for(faults_of_grades(entry, report, movie_bible))


@of_judging
def test_cost_of_grades(
    manifest_run: ManifestRun, record_property: Callable[[str, object], None]
) -> None:
    """Check that the prices of what was billed are known, and that the budget, if any, is kept."""
    told_cost(manifest_run, record_property)


@of_judging
def test_quality(manifest_run: ManifestRun, record_property: Callable[[str, object], None]) -> None:
    """Check that enough rows are good, by the lower bound of the first judge's interval."""
    grades, asked = graded(manifest_run), thresholds_of(manifest_run.manifest.header.params or {})
    numbers = grades.numbers(0)
    if not numbers:
        pytest.fail("no row was graded, so nothing is known of the rows", pytrace=False)
    found = quality_of(numbers, asked.bar, grades.population)
    sentence = quality_sentence(found, grades.judges[0], asked.bar)
    record_property("quality", sentence)
    if found.low < asked.at_least:
        pytest.fail(
            f"{sentence}, and the lower bound was to be {asked.at_least:.1%} at least; grade more "
            "rows (sample=N) where it is close, or look at the worst of them (--manifest-report)",
            pytrace=False,
        )


@of_judging
def test_judges_agree(
    manifest_run: ManifestRun, record_property: Callable[[str, object], None]
) -> None:
    """Check that two judges agree as far as was asked for."""
    grades, asked = graded(manifest_run), thresholds_of(manifest_run.manifest.header.params or {})
    pairs = grades.pairs()
    if not pairs:
        pytest.skip("no row has the grades of two judges")
    found = agreement_of(pairs, asked.seed)
    sentence = agreement_sentence(found, grades)
    record_property("agreement", sentence)
    if asked.agreement is None:
        return
    if found.alpha is None:
        pytest.skip(sentence)
    if found.alpha < asked.agreement:
        pytest.fail(f"{sentence}, and {asked.agreement:g} at least was asked for", pytrace=False)


def told_cost(run: ManifestRun, record_property: Callable[[str, object], None]) -> float:
    """Return what the run has cost, and record how far that is known.

    Skips the test where no price is known; fails it where one of several is not, or where it has
    cost more than its budget.
    """
    reports = list(paid_reports(run.receipts().values()))
    if any(report.cost is None for report in reports):
        pytest.skip("no price is known for the model, so nothing is known of what it has cost")
    unpriced = [report.unpriced for report in reports if report.unpriced]
    if unpriced:
        tokens = sum(one.tokens_in for one in unpriced), sum(one.tokens_out for one in unpriced)
        pytest.fail(
            f"{tokens[0]:,} tokens in and {tokens[1]:,} out were billed by a model without a known "
            "price, so the run has cost more than its receipts tell; name a price table with "
            "TEXT_MODEL_PRICES",
            pytrace=False,
        )
    cost = run.cost()
    record_property("cost", cost_sentence(cost, unknown_bills_of(run)))
    budget = run.budget
    assert budget is None or cost <= budget, f"it has cost {cost:g}, and the budget was {budget:g}"
    return cost


def unknown_bills_of(run: ManifestRun) -> int:
    """Count the calls of all attempts that are in no cost; of a run by hand those of its end."""
    if run.ledger is None:
        return sum(report.unknown_bills for report in paid_reports(run.receipts().values()))
    with Ledger.open(run.ledger) as ledger:
        return unknown_bills(ledger)


def graded(run: ManifestRun) -> Grades:
    """Return the grades of the selected entries."""
    return grades_of(run.manifest, run.receipts().values())


def batches_of(run: ManifestRun, bible: MovieBible) -> list[Account]:
    """Return the accounts of the selected batches."""
    accounts = list(accounts_of(run.manifest, run.receipts()))
    for account in accounts:
        refuse_another_database(account.report.database, bible)
    return accounts


def selected_entries(run: ManifestRun) -> list[Entry]:
    """Return the entries that are part of this run."""
    selected = {settled.verdict.entry for settled in run.settled}
    return [entry for entry in run.manifest if entry.id in selected]


def refuse_another_database(identity: object, bible: MovieBible) -> None:
    """Fail the test where the worker used another database than this process."""
    if identity != bible.identity:
        pytest.fail(
            "the worker used another database than this process does, so nothing can be said about "
            "its rows; set GAP_FILL_DATABASE_URL alike for both",
            pytrace=False,
        )


def fail_for(faults: list[str]) -> None:
    """Fail with the faults, if there are any."""
    if faults:
        more = len(faults) - SHOWN
        lines = [*faults[:SHOWN], *([f"... and {more} more"] if more > 0 else [])]
        pytest.fail("\n".join(lines), pytrace=False)
