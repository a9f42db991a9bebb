"""Hold each judgement by memory against the same by all that the ledger has (P6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

from pytest_manifest.run.casebook import Casebook
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.verdict.judge import Judgement
from pytest_manifest.verdict.judging import Judging
from pytest_manifest.verdict.problems import AwaitsTree


def judged_twice(
    complain: Callable[[str], object],
    outside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> AbstractContextManager[object]:
    """Have both compared from here on; ``complain`` is called where they differ.

    The ledger is read ``outside`` of what is played. That of an attempt whose descendants have not
    all ended is not compared: memory has those that have.
    """
    judge = Casebook.judge

    def compared(
        book: Casebook, jobs: Iterable[PendingAttempt]
    ) -> Iterator[tuple[PendingAttempt, Judgement]]:
        for job, found in judge(book, jobs):
            with outside():
                anew = Judging(book.ledger).of(job.entry).judgement
            one, other = _essence(found), _essence(anew)
            if one != other and not isinstance(anew.finding.reason, AwaitsTree):
                complain(f"P6 of {job.entry.id}: {one}, by its ledger {other}")
            yield job, found

    return mock.patch.object(Casebook, "judge", compared)


def _essence(found: Judgement) -> tuple[object, ...]:
    return found.finding, found.own, found.attempt, found.is_final, found.receipt, found.end
