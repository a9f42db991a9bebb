"""The verdict on an attempt by all that was said of it: where receipts, starts and entry meet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from loguru import logger

from pytest_manifest.ledger import BAD_ROW_ERRORS, STORE_EMPTIED, Ledger, Start, TaskRuns, damaged
from pytest_manifest.run.code import CodeHistory, code_key
from pytest_manifest.run.own_limits import OwnLimits
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.receipts import complete_receipt
from pytest_manifest.run.weighing import (
    ReportedEnd,
    contradiction_with_starts,
    decisive_end,
    disagreement,
    missing_fields,
    without_unproven_claims,
)
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.verdict import contradiction, judge

REVOKED_TASKS: Final = "taken_back"
"""The ledger's key for what the run has revoked of that which expects it: task ids, JSON."""
CLASHING_STARTS: Final = "clashing_starts"
"""The ledger's key for attempts of which two records of one start differ: task ids, JSON."""
REVOKED_BY_RUN: Final = "the run itself took it back"


class EvidenceEvaluator:
    """Weighs for one run. ``is_whole`` says whether the store has kept all that it was given."""

    def __init__(self, run: str, ledger: Ledger) -> None:
        self._ledger = ledger
        merged = ledger.merged()
        self._origins = TaskRuns(run, merged)
        self._codes = {one: CodeHistory(ledger, code_key(one)) for one in merged}
        self._codes[run] = CodeHistory(ledger)
        self._with_own_limit = OwnLimits.read(ledger)
        self._sets: dict[str, frozenset[str]] = {}  # of the ledger, which this run alone writes
        self.is_whole: Callable[[], bool] = lambda: True

    def evaluate(
        self,
        entry: Entry,
        task_id: str,
        number: int,
        said: Sequence[ReportedEnd],
        starts: Sequence[Start],
        sent_at: datetime | None,
        *,
        exact_message: bool = True,
    ) -> tuple[Verdict, Receipt | None]:
        """The verdict on the ``number``-th sending of ``entry``, and the receipt that counts.

        ``which``: whether the receipts must be of the very message that was sent at ``sent_at``.
        """
        execution, receipt = decisive_end(said)
        receipt = without_unproven_claims(execution, receipt, starts)
        lie = self._find_contradiction(
            entry,
            task_id,
            number,
            (execution, receipt),
            said,
            starts,
            sent_at if exact_message else None,
        )
        if lie:
            logger.bind(entry=entry.id).info("a receipt is not to be believed: {}", lie)
            verdict = judge(entry, None, attempt=number, problem="forged", note=lie)
            return verdict, receipt if receipt.entry == entry.id else None
        whole = complete_receipt(receipt, starts)
        if self._is_revoked_by_run(entry, whole, task_id):
            return judge(entry, None, attempt=number, problem="revoked", note=REVOKED_BY_RUN), whole
        code = self._codes[self._origins.run_of(task_id)].digest(
            entry.task, sent_at or whole.sent_at
        )
        left_out = missing_fields(entry, receipt, sent=sent_at is not None, code=code)
        held = self._with_own_limit(entry)
        return judge(held, whole, attempt=number, code=code, missing=left_out), whole

    def is_of(self, receipt: Receipt, entry: str, task_id: str, number: int) -> bool:
        """Whether it says that it is of this sending, whatever else it says."""
        ours = self._origins.run_of(task_id), entry, number, task_id
        return (receipt.run, receipt.entry, receipt.attempt, receipt.task_id) == ours

    def _find_contradiction(
        self,
        entry: Entry,
        task_id: str,
        number: int,
        chosen: ReportedEnd,
        said: Sequence[ReportedEnd],
        starts: Sequence[Start],
        sent_at: datetime | None,
    ) -> str:
        lie = contradiction(
            entry,
            chosen[1],
            run=self._origins.run_of(task_id),
            task_id=task_id,
            attempt=number,
            sent_at=sent_at,
        )
        lie = lie or disagreement(said)
        if (
            not lie
            and (lie := contradiction_with_starts(said, starts))
            and not self._has_all_starts()
        ):
            lie = ""
        if not lie and len(starts) and task_id in self._task_ids(CLASHING_STARTS):
            lie = "two records of the start of one of its executions differ"
        return lie

    def _has_all_starts(self) -> bool:
        """Else an end that is true may have lost its start with a store that was emptied."""
        return self._ledger.get_meta(STORE_EMPTIED) is None and self.is_whole()

    def check_repeated_start(self, start: Start) -> None:
        """A start of an attempt that has one already; of the same execution it must be the same."""
        for known in self._ledger.starts(start.task_id):
            if known.execution == start.execution and _start_identity(known) != _start_identity(
                start
            ):
                self._add_task_ids(CLASHING_STARTS, [start.task_id])

    def mark_revoked(self, jobs: Iterable[PendingAttempt]) -> None:
        """The run revokes these itself, so that is not what any of them was expected to meet.

        Kept in the ledger, where whoever judges the run again finds it.
        """
        self._add_task_ids(
            REVOKED_TASKS, (job.task_id for job in jobs if job.entry.expect.state == "revoked")
        )

    def _is_revoked_by_run(self, entry: Entry, receipt: Receipt, task_id: str) -> bool:
        revoked = receipt.state == entry.expect.state == "revoked"
        return revoked and task_id in self._task_ids(REVOKED_TASKS)

    def _task_ids(self, key: str) -> frozenset[str]:
        if key not in self._sets:
            try:
                self._sets[key] = frozenset(json.loads(self._ledger.get_meta(key) or "[]"))
            except BAD_ROW_ERRORS as error:
                raise damaged(self._ledger.path, error) from error
        return self._sets[key]

    def _add_task_ids(self, key: str, task_ids: Iterable[str]) -> None:
        known = self._task_ids(key)
        all_of_them = known.union(task_ids)
        if len(all_of_them) > len(known):
            self._ledger.set_meta(key, json.dumps(sorted(all_of_them)))
            self._sets[key] = all_of_them


def _start_identity(start: Start) -> tuple[object, ...]:
    return start.started_at, start.retries, start.worker, start.host, start.pid
