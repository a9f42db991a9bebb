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
from pytest_manifest.ledger import EntryVerdict, Ledger
from pytest_manifest.ledger.jobs import Jobs
from pytest_manifest.ledger.rows import SendState
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.plugin.verdict_reader import ManifestRun
from pytest_manifest.schema import Entry, Header, Receipt, Verdict, VerdictStatus, cost_text, exact
from pytest_manifest.schema.receipts import actual_cost
from pytest_manifest.testing import make_receipt
from pytest_manifest.verdict import judging
from pytest_manifest.verdict.judging import Costs, cost_of_verdict
from tests.reports import add_receipts, add_starts, handed_on, started
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
            add_starts(self.ledger, [started(task_id, name, None, 0, "w", "box", 1, False)])

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


def test_an_entry_that_the_manifest_has_no_longer_counts_what_is_reported(
    book: Book, tmp_path: Path
) -> None:
    """Nobody knows its estimate."""
    less = write_manifest(tmp_path / "less.jsonl", Header(), [OTHER])
    book.begun(book.sent(ENTRY), "x1")
    assert Costs(book.ledger, less).total() == 0


def test_a_try_whose_start_is_not_known_counts(book: Book) -> None:
    """It has reported a cost, and the job has no other record."""
    task_id = book.sent(ENTRY)
    book.ledger.events.add([handed_on(task_id, "x1", "retry", None, None, 0.1)])
    costs = Costs(book.ledger, book.manifest)
    assert (costs.total(), costs.reported) == (0.1, True)


def test_one_execution_counts_once_however_often_it_is_told_of(book: Book) -> None:
    """By the stream, twice, and by the result store, which does not name the execution."""
    task_id = book.sent(ENTRY)
    book.begun(task_id, "x1")
    add_receipts(book.ledger, [(task_id, None, receipt({"cost": 0.1}))])
    assert book.cost() == 0.1
    add_receipts(book.ledger, [(task_id, "x1", receipt({"cost": 0.2}))] * 2)
    assert book.cost() == 0.2


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


def test_a_job_that_was_refused_costs_nothing_unless_it_had_begun(book: Book) -> None:
    """The word of a revocation is no word of an end."""
    task_id = book.sent(ENTRY)
    add_receipts(book.ledger, [(task_id, None, receipt(state="revoked"))])
    assert book.cost() == 0
    book.begun(task_id, "x1")
    assert book.cost() == 0.5
    ended = receipt(state="revoked", runtime=3.0, pid=7, entry=OTHER)  # no store told of its start
    add_receipts(book.ledger, [(book.sent(OTHER), None, ended)])
    assert book.cost() == 0.5 + 0.25


def test_of_one_attempt_it_is_known_whether_a_report_has_its_cost(
    book: Book, tmp_path: Path
) -> None:
    """And of none that the run, or its manifest, has not."""
    costs = Costs(book.ledger, book.manifest)
    assert costs.of("nobody's") is None
    add_receipts(book.ledger, [(book.sent(OTHER), None, receipt(entry=OTHER))])
    add_receipts(book.ledger, [(book.sent(ENTRY), None, receipt({"cost": 0.125}))])
    found = [(costs.of(book.task_id(entry)), costs.reported) for entry in (OTHER, ENTRY, OTHER)]
    assert found == [(exact(0.25), False), (exact(0.125), True), (exact(0.25), True)]
    less = write_manifest(tmp_path / "less.jsonl", Header(), [OTHER])
    assert Costs(book.ledger, less).of(book.task_id(ENTRY)) is None
    assert list(costs.by_attempt(without=[book.task_id(ENTRY)])) == [
        (book.task_id(OTHER), exact(0.25)),
        (book.task_id(NONE), 0),
    ]


def test_costs_are_read_some_entries_at_a_time(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tasks that their jobs started: these cost the entry nothing."""
    read: list[tuple[list[str], bool]] = []
    load = Jobs.of_entries

    def watched(self: Jobs, entries: list[str], *, trees: bool = True) -> object:
        read.append((entries, trees))
        return load(self, entries, trees=trees)

    monkeypatch.setattr(judging, "BATCH", 2)
    monkeypatch.setattr(Jobs, "of_entries", watched)
    costs = Costs(book.ledger, book.manifest)
    assert costs.reported is False
    assert costs.total() == 0
    assert costs.of(book.task_id(NONE)) == 0
    assert read == [(["a", "b"], False), (["c"], False), (["c"], False)]
    assert costs.reported is False


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
