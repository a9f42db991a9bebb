"""Compare one batch with the database: its rows, their history, and what was paid for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from tasks.filling.answers import problems_of
from tasks.filling.report import NANO
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.records import ScannedPassage, StoredAnnotation, Writing
from workflows.gap_fill.accounts import Account, EarlierRow, RowAccount, order_of

PROVENANCE = (
    "prompt_digest",
    "text_digest",
    "provider",
    "model",
    "answered_by",
    "service_tier",
    "run",
    "entry",
    "attempt",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "cost_nanos",
)


def faults_of_batch(account: Account, bible: MovieBible) -> list[str]:
    """Check that a batch's rows exist, are valid, as reported, and written by this very job.

    Returns one sentence for each fault.
    """
    report = account.report
    stored = bible.scan_ids(account.ids, report.prompt)
    history = bible.writings(account.ids, report.prompt)
    faults: list[str] = []
    for passage_id in account.ids:
        passage = stored.get(passage_id)
        if passage is None:
            faults.append(f"{passage_id}: the passage is not in the database")
        elif passage_id in report.rows:
            told = report.rows[passage_id]
            faults += _faults_of_row(account, passage, told, history.get(passage_id, []))
        elif passage_id not in report.already:
            faults.append(f"{passage_id}: the batch neither wrote its row nor found it complete")
        else:
            earlier = report.already[passage_id]
            faults += _faults_of_earlier(account, passage, earlier, history.get(passage_id, []))
    return faults + _sums_that_do_not_add_up(account, history)


def _faults_of_earlier(
    account: Account,
    passage: ScannedPassage,
    told: EarlierRow | None,
    writings: Sequence[Writing],
) -> list[str]:
    """Check a row that the batch found complete, written by an earlier attempt or another job."""
    row = passage.current
    if told is None:  # people have written all of it
        return _gap_of(account, passage)
    if row is None:
        return [f"{passage.id}: its row is gone"]
    faults: list[str] = []
    later = [one for one in writings if one.revision > told.revision]
    if values_digest(row.values) != told.digest and not later:
        faults.append(f"{passage.id}: its row was changed since the batch found it complete")
    invalid = problems_of(row.values)
    if invalid:
        faults.append(f"{passage.id}: {invalid}")
    if writings:
        faults += _unlike_history(row, writings[-1])
    return faults or _gap_of(account, passage)


def own_writing(account: Account, told: RowAccount, writings: Sequence[Writing]) -> Writing | None:
    """Return the last writing of a row that this batch did in the attempt told of, or None."""
    receipt = account.receipt
    whose = (receipt.run, receipt.entry, told.attempt or receipt.attempt)
    own = [one for one in writings if (one.run, one.entry, one.attempt) == whose]
    return own[-1] if own else None


def _faults_of_row(
    account: Account, passage: ScannedPassage, told: RowAccount, writings: Sequence[Writing]
) -> list[str]:
    row, own = passage.current, own_writing(account, told, writings)
    if row is None:
        return [f"{passage.id}: its row is gone"]
    if own is None:
        return [f"{passage.id}: its history knows of no writing by this batch"]
    later = [
        one for one in writings[writings.index(own) + 1 :] if set(one.fields) & set(own.fields)
    ]
    faults: list[str] = []
    values: dict[str, JsonValue] = {name: row.values[name] for name in told.fields}
    if values_digest(values) != told.digest and not later:
        faults.append(f"{passage.id}: its row was changed behind the batch's back")
    invalid = problems_of(row.values)
    if invalid:
        faults.append(f"{passage.id}: {invalid}")
    faults += _strange_provenance(account, passage, told, own)
    faults += _unlike_history(row, writings[-1])
    return faults or _gap_of(account, passage)


def _strange_provenance(
    account: Account, passage: ScannedPassage, told: RowAccount, own: Writing
) -> list[str]:
    expected = {
        "provider": account.report.provider,
        "model": account.report.model,
        "answered_by": told.answered_by,
        "service_tier": told.service_tier,
        "prompt_digest": account.report.prompt_digest,
    }
    return [
        f"{passage.id}: {name} is {getattr(own, name)!r}, and {value!r} was expected"
        for name, value in expected.items()
        if getattr(own, name) != value
    ]


def _unlike_history(row: StoredAnnotation, last: Writing) -> list[str]:
    """Check that a row and the last writing of its history name the same provenance."""
    return [
        f"{row.passage_id}: its row says {name} {getattr(row, name)!r}, and its history "
        f"{getattr(last, name)!r}"
        for name in PROVENANCE
        if getattr(row, name) != getattr(last, name)
    ]


def _gap_of(account: Account, passage: ScannedPassage) -> list[str]:
    gap = order_of(account.entry).gap_of(passage)
    return [] if gap is None else [f"{passage.id}: {', '.join(gap.fields)} not filled ({gap.kind})"]


def _sums_that_do_not_add_up(
    account: Account, history: Mapping[str, Sequence[Writing]]
) -> list[str]:
    """Check that the price of rows and of waste adds up to all that was paid."""
    report = account.report
    found = [own_writing(account, row, history.get(one, [])) for one, row in report.rows.items()]
    rows = [one for one in found if one is not None]
    if len(rows) < len(report.rows):
        return []  # reported already
    wasted, paid = report.wasted, report.tokens
    sums = {
        "tokens in": (sum(r.tokens_in for r in rows), wasted.tokens_in, paid.tokens_in),
        "tokens out": (sum(r.tokens_out for r in rows), wasted.tokens_out, paid.tokens_out),
    }
    cached = sum(row.tokens_cached or 0 for row in rows)
    sums["cached tokens in"] = cached, wasted.cached, paid.cached
    if report.cost is not None:
        in_rows = sum(row.cost_nanos for row in rows)
        sums["cost in nano dollars"] = in_rows, _nanos(wasted.cost or 0.0), _nanos(report.cost)
    return [
        f"{name} do not add up: {in_rows} in the rows and {wasted} wasted are not the {paid} paid"
        for name, (in_rows, wasted, paid) in sums.items()
        if in_rows + wasted != paid
    ]


def _nanos(dollars: float) -> int:
    return round(dollars * NANO)
