"""Compare a whole run with the database: row counts, rows written twice, orphans, gaps left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_manifest.schema import Entry
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.records import StoredAnnotation, Writing
from workflows.gap_fill.accounts import Account, ids_of, order_of, rows_before
from workflows.gap_fill.batch_checks import own_writing


@dataclass(frozen=True, slots=True)
class RowCounts:
    """``before``: when it was planned; ``inserted``: by the run's batches; ``after``: now."""

    before: int
    inserted: int
    after: int


def rows_after(accounts: Sequence[Account], bible: MovieBible) -> RowCounts:
    """Count the rows of the run's passages and prompt: in the database, and as reported."""
    before = inserted = after = 0
    for account in accounts:
        had = rows_before(account.entry)
        before += len(had)
        inserted += sum(row.action == "inserted" for row in account.report.rows.values())
        # Rows that the batch found complete and that did not exist when the gap was planned.
        found = {one for one, row in account.report.already.items() if row is not None}
        inserted += len(found - had)
        after += bible.count_annotations(account.ids, account.report.prompt)
    return RowCounts(before, inserted, after)


def rows_written_again(accounts: Sequence[Account], bible: MovieBible) -> list[str]:
    """Name the fields that were written again after the batch that reports them."""
    found: list[str] = []
    for account in accounts:
        told = list(account.report.rows)
        rows = bible.annotations(told, account.report.prompt)
        history = bible.writings(told, account.report.prompt)
        for passage, row in rows.items():
            own = own_writing(account, account.report.rows[passage], history.get(passage, []))
            if own is not None:
                found += _again(row, own, history[passage])
    return found


def _again(row: StoredAnnotation, own: Writing, writings: Sequence[Writing]) -> list[str]:
    later = writings[writings.index(own) + 1 :]
    found = [
        f"{row.passage_id}: {', '.join(sorted(twice))} written again by run {one.run!r}, entry "
        f"{one.entry!r}, attempt {one.attempt}"
        for one in later
        if (twice := set(one.fields) & set(own.fields))
    ]
    if row.revision != writings[-1].revision:
        found.append(
            f"{row.passage_id}: written {row.revision} times, and its history knows of "
            f"{writings[-1].revision}"
        )
    return found


def orphans_left(accounts: Sequence[Account], bible: MovieBible) -> list[str]:
    """Name the rows of the run whose passage does not exist."""
    found: list[str] = []
    for account in accounts:
        living = bible.passages(account.ids)
        rows = bible.annotations(account.ids, account.report.prompt)
        found += [f"{one}: its row has no passage" for one in rows if one not in living]
    return found


def of_other_models(accounts: Iterable[Account], bible: MovieBible) -> list[str]:
    """Name the rows that a model has filled which was neither planned nor accepted instead.

    By the history of each row, and by what the receipt tells of it. A row written before answers
    were told is passed over where both say nothing.
    """
    found: list[str] = []
    for account in accounts:
        accepted = order_of(account.entry).model.accepted
        history = bible.writings(list(account.report.rows), account.report.prompt)
        for passage, told in account.report.rows.items():
            own = own_writing(account, told, history.get(passage, []))
            names = {told.answered_by, None if own is None else own.answered_by} - {None}
            found += [
                f"{passage}: {name} has filled it, and {accepted.planned} was planned"
                for name in sorted(name for name in names if name and not accepted.takes(name))
            ]
    return found


def paid_in_rows(accounts: Sequence[Account], bible: MovieBible, run: str) -> int:
    """Sum what the run has paid for rows, by their history, in nano dollars; all attempts."""
    return sum(
        one.cost_nanos
        for account in accounts
        for writings in bible.writings(account.ids, account.report.prompt).values()
        for one in writings
        if one.run == run
    )


def gaps_left(entries: Iterable[Entry], bible: MovieBible) -> list[str]:
    """Name the gaps that were planned and are still there."""
    found: list[str] = []
    for entry in entries:
        order = order_of(entry)
        for passage in bible.scan_ids(ids_of(entry), order.prompt).values():
            gap = order.gap_of(passage)
            if gap is not None:
                found.append(f"{passage.id}: {', '.join(gap.fields)} not filled ({entry.id})")
    return found
