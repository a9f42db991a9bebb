"""Accounts: what batches say they did, held against the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from pytest_manifest.schema import Entry, Receipt
from tasks.filling.answers import problems_of
from tasks.filling.gaps import find_gap
from tasks.filling.report import NANO
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.records import ScannedPassage, StoredAnnotation

SHOWN: Final = 5
"""Faults that a failure names; the others are counted."""


class RowAccount(BaseModel):
    """A row that a batch has written."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    action: str
    revision: int
    digest: str
    fields: list[str]


class EarlierRow(BaseModel):
    """A row that a batch found complete."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str | None = None
    entry: str | None = None
    attempt: int | None = None
    revision: int


class Tokens(BaseModel):
    """Tokens, and for what was wasted their cost in US dollars too."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore", frozen=True)

    tokens_in: int = Field(alias="in")
    tokens_out: int = Field(alias="out")
    cost: float | None = None


class BatchReport(BaseModel):
    """The parts of a batch's result that are held against the database."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: str
    model: str
    prompt: str
    prompt_digest: str
    database: str
    cost: float | None
    rows: dict[str, RowAccount]
    already: dict[str, EarlierRow | None]
    tokens: Tokens
    wasted: Tokens


@dataclass(frozen=True, slots=True)
class Account:
    """A batch: its entry, its receipt, and what it reports."""

    entry: Entry
    receipt: Receipt
    report: BatchReport

    @property
    def ids(self) -> list[str]:
        return ids_of(self.entry)


def account_of(entry: Entry, receipt: Receipt | None) -> Account | None:
    """The account of a batch that has one: also of one that ended too early and says so."""
    if receipt is None:
        return None
    document = receipt.result if receipt.result is not None else receipt.evidence.get("gap_fill")
    if not isinstance(document, dict) or "rows" not in document:
        return None
    return Account(entry, receipt, BatchReport.model_validate(document))


def accounts_of(entries: Iterable[Entry], receipts: Mapping[str, Receipt]) -> Iterator[Account]:
    """The accounts of those entries that have one."""
    for entry in entries:
        account = account_of(entry, receipts.get(entry.id))
        if account is not None:
            yield account


def ids_of(entry: Entry) -> list[str]:
    """The passages that an entry is about."""
    ids = entry.kwargs.get("ids")
    return [str(one) for one in ids] if isinstance(ids, list) else []


def wanted_fields(entry: Entry) -> list[str]:
    """The fields that an entry is to fill."""
    data = entry.kwargs.get("data")
    fields = data.get("fields") if isinstance(data, dict) else None
    return [str(one) for one in fields] if isinstance(fields, list) else []


# One batch


def faults_of_batch(account: Account, bible: MovieBible) -> list[str]:
    """What is wrong with the rows of a batch: none missing, valid, as written, by this very job."""
    report = account.report
    stored = bible.scan_ids(account.ids, report.prompt)
    faults: list[str] = []
    for passage_id in account.ids:
        passage = stored.get(passage_id)
        if passage is None:
            faults.append(f"{passage_id}: the passage is not in the database")
        elif passage_id in report.rows:
            faults += _faults_of_row(account, passage, report.rows[passage_id])
        elif passage_id not in report.already:
            faults.append(f"{passage_id}: the batch neither wrote its row nor found it complete")
        else:
            faults += _gap_of(account, passage)
    faults += _tokens_that_do_not_add_up(account, stored)
    return faults


def _faults_of_row(account: Account, passage: ScannedPassage, told: RowAccount) -> list[str]:
    row = passage.current
    if row is None:
        return [f"{passage.id}: its row is gone"]
    faults: list[str] = []
    if values_digest(row.values) != told.digest:
        faults.append(
            f"{passage.id}: its row is not what the batch has written{_since(account, row)}"
        )
    invalid = problems_of(row.values)
    if invalid:
        faults.append(f"{passage.id}: {invalid}")
    report, receipt = account.report, account.receipt
    expected = {
        "provider": report.provider,
        "model": report.model,
        "prompt_digest": report.prompt_digest,
        "text_digest": passage.text_digest,
        "run": receipt.run,
        "entry": receipt.entry,
        "attempt": receipt.attempt,
    }
    for name, value in expected.items():
        actual = getattr(row, name)
        if actual != value:
            faults.append(f"{passage.id}: {name} is {actual!r}, and {value!r} was expected")
    return faults or _gap_of(account, passage)


def _since(account: Account, row: StoredAnnotation) -> str:
    if (row.run, row.entry) == (account.receipt.run, account.receipt.entry):
        return ": it was changed behind its back"
    return f": run {row.run!r}, entry {row.entry!r} has written it since"


def _gap_of(account: Account, passage: ScannedPassage) -> list[str]:
    gap = find_gap(passage, wanted_fields(account.entry), account.report.prompt_digest)
    return [] if gap is None else [f"{passage.id}: {', '.join(gap.fields)} not filled"]


def _tokens_that_do_not_add_up(account: Account, stored: Mapping[str, ScannedPassage]) -> list[str]:
    """Rows and waste must be all that was paid for; of rows that are gone others tell."""
    report = account.report
    rows = [p.current for i, p in stored.items() if i in report.rows and p.current is not None]
    if len(rows) < len(report.rows):
        return []
    sums = {
        "tokens in": (
            sum(r.tokens_in for r in rows),
            report.wasted.tokens_in,
            report.tokens.tokens_in,
        ),
        "tokens out": (
            sum(r.tokens_out for r in rows),
            report.wasted.tokens_out,
            report.tokens.tokens_out,
        ),
    }
    if report.cost is not None:
        sums["cost in nano dollars"] = (
            sum(r.cost_nanos for r in rows),
            _nanos(report.wasted.cost or 0.0),
            _nanos(report.cost),
        )
    return [
        f"{name} do not add up: {in_rows} in the rows and {wasted} wasted are not the {paid} paid"
        for name, (in_rows, wasted, paid) in sums.items()
        if in_rows + wasted != paid
    ]


def _nanos(dollars: float) -> int:
    return round(dollars * NANO)


# A whole run


@dataclass(frozen=True, slots=True)
class RowCounts:
    """``before``: when it was planned; ``inserted``: by the run's batches; ``after``: now."""

    before: int
    inserted: int
    after: int


def rows_after(accounts: Sequence[Account], bible: MovieBible) -> RowCounts:
    """The rows of the run's passages and prompt, counted in the database and in the books."""
    before = inserted = after = 0
    for account in accounts:
        planned = account.entry.meta.get("rows_before")
        before += planned if isinstance(planned, int) else 0
        inserted += sum(row.action == "inserted" for row in account.report.rows.values())
        # A row of revision 1 that is complete cannot have been there when its gap was planned.
        earlier = [row for row in account.report.already.values() if row is not None]
        inserted += sum(row.revision == 1 for row in earlier)
        after += bible.count_annotations(account.ids, account.report.prompt)
    return RowCounts(before, inserted, after)


def rows_written_again(accounts: Sequence[Account], bible: MovieBible) -> list[str]:
    """Rows that somebody has written once more after the batch that tells of them."""
    found: list[str] = []
    for account in accounts:
        told = {i: row.revision for i, row in account.report.rows.items()}
        told |= {i: row.revision for i, row in account.report.already.items() if row is not None}
        for passage, row in bible.annotations(list(told), account.report.prompt).items():
            if row.revision != told[passage]:
                times = "once" if row.revision == told[passage] + 1 else "several times"
                found.append(
                    f"{passage}: written {times} more than its batch says (revision "
                    f"{row.revision}, told {told[passage]}; last by run {row.run!r}, "
                    f"entry {row.entry!r}, attempt {row.attempt})"
                )
    return found


def orphans_left(accounts: Sequence[Account], bible: MovieBible) -> list[str]:
    """Rows of the run whose passage does not exist."""
    found: list[str] = []
    for account in accounts:
        living = bible.passages(account.ids)
        rows = bible.annotations(account.ids, account.report.prompt)
        found += [f"{one}: its row has no passage" for one in rows if one not in living]
    return found


def gaps_left(entries: Iterable[Entry], bible: MovieBible) -> list[str]:
    """Gaps that were planned and are there still."""
    found: list[str] = []
    for entry in entries:
        version, digest = planned_prompt(entry)
        fields = wanted_fields(entry)
        stored = bible.scan_ids(ids_of(entry), version)
        for passage in stored.values():
            gap = find_gap(passage, fields, digest)
            if gap is not None:
                found.append(f"{passage.id}: {', '.join(gap.fields)} not filled ({entry.id})")
    return found


def planned_prompt(entry: Entry) -> tuple[str, str]:
    """Version and digest of the prompt that an entry was planned with."""
    data = entry.kwargs.get("data")
    known = data if isinstance(data, dict) else {}
    return str(known.get("prompt")), str(known.get("prompt_digest"))


def shown(faults: Sequence[str]) -> str:
    """The first faults, a line each, and how many more there are."""
    lines = list(faults[:SHOWN])
    if len(faults) > SHOWN:
        lines.append(f"... and {len(faults) - SHOWN} more")
    return "\n".join(lines)
