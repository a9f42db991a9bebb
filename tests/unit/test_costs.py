"""What jobs cost: as a receipt tells it, and as a run's ledger adds it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import STOCK_WORKERS, EntryVerdict, Ledger, Start
from pytest_manifest.ledger.rows import HandedOn, SendState
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.plugin.verdict_reader import ManifestRun
from pytest_manifest.schema import (
    Entry,
    Header,
    Receipt,
    Verdict,
    VerdictStatus,
    actual_cost,
    cost_text,
    exact,
)
from pytest_manifest.testing import make_receipt
from pytest_manifest.verdict import Costs
from pytest_manifest.verdict.costs import cost_of_verdict
from tests.unit.ledger_support import INFO

ENTRY = Entry(id="a", task="t", cost=0.5)
OTHER = Entry(id="b", task="t", cost=0.25)
NONE = Entry(id="c", task="t")


def receipt(
    evidence: Mapping[str, JsonValue] | None = None, *, entry: Entry = ENTRY, **fields: Any
) -> Receipt:
    return make_receipt(entry, run=INFO.run, evidence=dict(evidence or {}), **fields)


@pytest.mark.parametrize(
    ("evidence", "result", "cost"),
    [
        ({"cost": 0.25}, None, 0.25),
        ({"cost": 0}, {"cost": 3}, 0.0),
        ({}, {"cost": 3}, 3.0),
        ({"cost": "much"}, {"cost": 3}, 3.0),
        ({"cost": True}, {"cost": False}, None),
        ({"cost": -1}, None, None),
        ({"cost": 10**400}, None, None),
        ({"cost": None}, [{"cost": 3}], None),
        ({}, "cost", None),
    ],
)
def test_a_receipt_tells_its_cost(
    evidence: dict[str, JsonValue], result: JsonValue, cost: float | None
) -> None:
    """Evidence goes before the result, and what is no number from 0 says nothing."""
    assert actual_cost(receipt(evidence, result=result)) == cost


def test_what_is_not_finite_tells_nothing() -> None:
    """Also where a receipt was not read from a file, which would refuse it."""
    for value in (float("inf"), float("nan")):
        told = receipt().model_copy(update={"evidence": {"cost": value}})
        assert actual_cost(told) is None


@pytest.mark.parametrize(
    ("cost", "text"),
    [(0, "0"), (5.0, "5"), (2.50, "2.5"), (1.23e-7, "0.000000123"), (1234567.891, "1234567.89")],
)
def test_costs_are_written_without_exponents(cost: float, text: str) -> None:
    """However small or large they are."""
    assert cost_text(cost) == cost_text(exact(cost)) == text


class Book:
    """A ledger with entries a, b and c, of which nothing has been sent."""

    def __init__(self, ledger: Ledger, manifest: Manifest) -> None:
        self.ledger = ledger
        self.manifest = manifest
        for ordinal, entry in enumerate((ENTRY, OTHER, NONE)):
            ledger.attempts.plan([(self.task_id(entry), entry.id, 1, ordinal)])

    def task_id(self, entry: Entry, number: int = 1) -> str:
        return attempt_of(INFO.run, entry, number).task_id

    def sent(self, entry: Entry, number: int = 1) -> str:
        task_id = self.task_id(entry, number)
        if number > 1:
            self.ledger.attempts.plan([(task_id, entry.id, number, 0)])
        self.ledger.attempts.mark([task_id], "sent")
        return task_id

    def begun(self, task_id: str, *executions: str) -> None:
        for name in executions:
            self.ledger.events.add_starts([Start(task_id, name, None, 0, "w", "box", 1, False)])

    def judged(self, entry: Entry, kind: VerdictStatus, number: int = 1) -> None:
        verdict = Verdict(verdict=kind, entry=entry.id, attempt=number, sentence="So.")
        self.ledger.verdicts.record([(verdict, None)])

    def cost(self) -> float:
        return Costs(self.ledger, self.manifest).total()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), [ENTRY, OTHER, NONE])
    info = replace(INFO, is_private=True)
    with Ledger.create(tmp_path / "run.sqlite", info) as ledger:
        yield Book(ledger, manifest)


def test_what_was_never_sent_costs_nothing(book: Book) -> None:
    """Planned or withheld, whatever its estimate is."""
    book.ledger.attempts.mark([book.task_id(ENTRY)], "withheld")
    book.judged(ENTRY, "skipped")
    assert book.cost() == 0


def test_a_receipt_counts_by_what_it_tells_or_by_the_estimate(book: Book) -> None:
    """Failed or not; and an entry without either counts nothing."""
    told = receipt({"cost": 0.125}, state="failed")
    book.ledger.events.add_receipts([(book.sent(ENTRY), "x1", told)])
    book.ledger.events.add_receipts([(book.sent(OTHER), "x2", receipt(entry=OTHER))])
    book.ledger.events.add_receipts([(book.sent(NONE), "x3", receipt(entry=NONE))])
    assert book.cost() == 0.125 + 0.25
    assert Costs(book.ledger, book.manifest).of("nobody's") is None


def test_whether_a_cost_was_reported_is_told(book: Book) -> None:
    """By one receipt of them all."""
    book.ledger.events.add_receipts([(book.sent(OTHER), "x2", receipt(entry=OTHER))])
    costs = Costs(book.ledger, book.manifest)
    assert (costs.reported, costs.total(), costs.reported) == (False, 0.25, False)
    book.ledger.events.add_receipts([(book.sent(ENTRY), "x1", receipt({"cost": 0.125}))])
    book.ledger.events.add_receipts([(book.sent(NONE), "x3", receipt(entry=NONE))])
    costs.total()
    assert costs.reported is True


def test_an_entry_that_the_manifest_has_no_longer_counts_what_is_reported(
    book: Book, tmp_path: Path
) -> None:
    """Nobody knows its estimate."""
    less = write_manifest(tmp_path / "less.jsonl", Header(), [OTHER])
    book.begun(book.sent(ENTRY), "x1")
    assert Costs(book.ledger, less).total() == 0


def test_every_execution_and_every_attempt_counts(book: Book) -> None:
    """Two receipts of one attempt, one start that nobody has told of, and the attempt after it."""
    task_id = book.sent(ENTRY)
    book.begun(task_id, "x1", "x2", "x3")
    told = [(task_id, "x1", receipt({"cost": 0.1})), (task_id, "x2", receipt({"cost": 0.2}))]
    book.ledger.events.add_receipts(told)
    assert book.cost() == pytest.approx(0.1 + 0.2 + 0.5)
    again = book.sent(ENTRY, 2)
    book.ledger.events.add_receipts([(again, "x4", receipt({"cost": 2}, attempt=2))])
    assert book.cost() == pytest.approx(0.1 + 0.2 + 0.5 + 2)


def test_a_try_counts_by_what_it_has_reported(book: Book) -> None:
    """A job that asks to be run again has paid in each try, and the last receipt has its own alone.

    Of a try that has reported nothing the estimate counts, as of every other execution.
    """
    task_id = book.sent(ENTRY)
    book.begun(task_id, "x1", "x2", "x3", "x4")
    tries = [("x1", 0.1), ("x2", None), ("x3", 0.0)]
    ends = [HandedOn(task_id, name, "retry", None, None, cost) for name, cost in tries]
    book.ledger.events.add_handed_on(ends)
    assert book.ledger.events.handed_on(task_id) == ends
    assert Costs(book.ledger, book.manifest).of(task_id) == Decimal("1.1")  # x2 and x4 say nothing
    book.ledger.events.add_receipts([(task_id, "x4", receipt({"cost": 0.2}))])
    assert Costs(book.ledger, book.manifest).of(task_id) == Decimal("0.8")
    book.judged(ENTRY, "forged")
    assert book.cost() == 4 * 0.5


def test_a_try_whose_start_is_not_known_counts(book: Book) -> None:
    """It has reported a cost, and the job has no other record."""
    task_id = book.sent(ENTRY)
    book.ledger.events.add_handed_on([HandedOn(task_id, "x1", "retry", None, None, 0.1)])
    costs = Costs(book.ledger, book.manifest)
    assert (costs.total(), costs.reported) == (0.1, True)


def test_one_execution_counts_once_however_often_it_is_told_of(book: Book) -> None:
    """By the stream, twice, and by the result store, which does not name the execution."""
    task_id = book.sent(ENTRY)
    book.begun(task_id, "x1")
    book.ledger.events.add_receipts([(task_id, None, receipt({"cost": 0.1}))])
    assert book.cost() == 0.1
    book.ledger.events.add_receipts([(task_id, "x1", receipt({"cost": 0.2}))] * 2)
    assert book.cost() == 0.2


def test_a_lie_tells_no_cost(book: Book) -> None:
    """A receipt that is not believed, or of another attempt: the job may have run all the same."""
    task_id = book.sent(ENTRY)
    book.ledger.events.add_receipts([(task_id, "x1", receipt({"cost": 1000}, attempt=7))])
    assert book.cost() == 0.5
    book.ledger.events.add_receipts([(task_id, "x3", receipt({"cost": 0.125}))])
    assert book.cost() == 0.125
    book.ledger.events.add_receipts([(book.sent(ENTRY, 2), "x4", receipt({"cost": 0}, attempt=2))])
    other = book.sent(OTHER)
    book.ledger.events.add_receipts([(other, "x2", receipt({"cost": 1000}, entry=OTHER))])
    book.judged(OTHER, "forged")
    assert book.cost() == 0.125 + 0.25


@pytest.mark.parametrize(
    ("kind", "cost"),
    [("crashed", 0.5), ("timed_out", 0.5), ("unknown", 0.5), ("lost", 0.0), ("revoked", 0.0)],
)
def test_what_may_have_run_counts_by_its_estimate(
    book: Book, kind: VerdictStatus, cost: float
) -> None:
    """Without a receipt it is the verdict that tells."""
    book.sent(ENTRY)
    book.judged(ENTRY, kind)
    assert book.cost() == cost
    assert Costs(book.ledger, book.manifest).of(book.task_id(ENTRY)) == Decimal(str(cost))


@pytest.mark.parametrize(
    ("state", "kind"),
    [("withheld", None), ("withdrawn", None), ("sent", "skipped"), ("sent", "unknown_task")],
)
def test_what_reached_no_worker_costs_nothing(
    book: Book, state: SendState, kind: VerdictStatus | None
) -> None:
    """By what became of its message, or by the verdict."""
    book.ledger.attempts.mark([book.sent(ENTRY)], state)
    if kind is not None:
        book.judged(ENTRY, kind)
    cost = Costs(book.ledger, book.manifest).of(book.task_id(ENTRY))
    assert isinstance(cost, Decimal)
    assert cost == 0


def test_a_start_of_another_job_shows_that_starts_are_told_of(tmp_path: Path) -> None:
    """Of workers that the run has not started itself."""
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), [ENTRY, OTHER, NONE])
    with Ledger.create(tmp_path / "run.sqlite", replace(INFO, is_private=False)) as ledger:
        book = Book(ledger, manifest)
        book.sent(ENTRY)
        book.judged(ENTRY, "lost")
        assert book.cost() == 0.5
        book.begun(book.sent(NONE), "x1")
        assert book.cost() == 0


def test_what_a_result_store_says_had_not_begun_costs_nothing_where_starts_are_told(
    book: Book,
) -> None:
    """Elsewhere it may have run before."""
    told = receipt(state="expired", source="backend")
    book.ledger.events.add_receipts([(book.sent(ENTRY), None, told)])
    assert book.cost() == 0
    book.ledger.info.set_meta(STOCK_WORKERS, "w")
    assert book.cost() == 0.5


def test_who_says_nothing_of_beginnings_may_have_run_what_is_lost(book: Book) -> None:
    """Of workers without our instrumentation nobody knows."""
    book.sent(ENTRY)
    book.judged(ENTRY, "lost")
    assert book.cost() == 0
    book.ledger.info.set_meta(STOCK_WORKERS, "w")
    assert book.cost() == 0.5


def test_a_job_that_was_refused_costs_nothing_unless_it_had_begun(book: Book) -> None:
    """The word of a revocation is no word of an end."""
    task_id = book.sent(ENTRY)
    book.ledger.events.add_receipts([(task_id, None, receipt(state="revoked"))])
    assert book.cost() == 0
    book.begun(task_id, "x1")
    assert book.cost() == 0.5
    ended = receipt(state="revoked", runtime=3.0, pid=7, entry=OTHER)  # no store told of its start
    book.ledger.events.add_receipts([(book.sent(OTHER), None, ended)])
    assert book.cost() == 0.5 + 0.25


def test_a_notice_of_a_revocation_tells_no_cost(book: Book) -> None:
    """Whoever was told of it says so, whatever became of the job."""
    book.ledger.events.add_receipts(
        [(book.sent(ENTRY), None, receipt(state="revoked", source="backend"))]
    )
    book.judged(ENTRY, "revoked")
    assert book.cost() == 0
    book.ledger.info.set_meta(STOCK_WORKERS, "w")
    assert book.cost() == 0.5


@pytest.mark.parametrize(
    ("kind", "told", "cost"),
    [
        ("passed", receipt({"cost": 0.125}), 0.125),
        ("failed", receipt(state="failed"), 0.5),
        ("expired", receipt(state="expired"), 0),
        ("expired", receipt(state="expired", source="backend"), 0.5),
        ("crashed", None, 0.5),
        ("revoked", None, 0),
        ("withdrawn", None, 0),
        ("skipped", None, 0),
        ("unknown_task", None, 0),
    ],
)
def test_a_verdict_alone_tells_a_cost(
    book: Book, kind: VerdictStatus, told: Receipt | None, cost: float
) -> None:
    """With its receipt, where there is one."""
    verdict = Verdict(verdict=kind, entry=ENTRY.id, sentence="So.")
    found = cost_of_verdict(EntryVerdict(1, verdict, told), book.manifest)
    assert found == Decimal(str(cost))


def test_attempts_are_left_out_of_the_sum_one_by_one(book: Book) -> None:
    """Those after them count."""
    first, second = book.sent(ENTRY), book.sent(OTHER)
    found = dict(Costs(book.ledger, book.manifest).by_attempt({first}))
    assert first not in found
    assert found[second] == Decimal("0.25")


def test_a_run_made_by_hand_has_a_cost_too(book: Book) -> None:
    """For tests of verifiers: by what was settled, without a ledger."""

    def settled(entry: Entry, kind: VerdictStatus, receipt: Receipt | None) -> EntryVerdict:
        return EntryVerdict(1, Verdict(verdict=kind, entry=entry.id, sentence="So."), receipt)

    run = ManifestRun(
        book.manifest,
        [
            settled(ENTRY, "passed", receipt({"cost": 0.125})),
            settled(OTHER, "crashed", None),
            settled(NONE, "skipped", None),
        ],
        None,
        owned=True,
    )
    assert run.cost() == 0.125 + 0.25
    assert (run.run, run.budget) == ("", None)
