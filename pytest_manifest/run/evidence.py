"""Weigh the evidence of one attempt: the starts, and every end that was reported of it.

The first end that arrives is not the true one for having been first. An instrumented worker reports
the start of whatever it reports the end of; so each end is checked against the starts, and the ends
of one execution against one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias

from loguru import logger

from pytest_manifest.ledger import (
    CLASHING_STARTS,
    REVOKED_TASKS,
    Ledger,
    ReusedFrom,
    Start,
    TaskRuns,
    given_again,
)
from pytest_manifest.redaction import redacted
from pytest_manifest.run.clock import ClockWatch
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.signatures import SignaturesByRun, trusted_ends
from pytest_manifest.run.task_metadata import CodeHistory, OwnLimits
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.receipts import Reuse
from pytest_manifest.schema.statuses import OF_ITS_PROCESS, WITHOUT_START
from pytest_manifest.schema.stream_records import FILLABLE
from pytest_manifest.text import short
from pytest_manifest.verdict import contradiction, evaluate, is_revocation_notice, problems
from pytest_manifest.verdict.evidence import missing_fields
from pytest_manifest.verdict.messages import Reused
from pytest_manifest.verdict.reasons import Problem, reason_of, verdict_of

ReportedEnd: TypeAlias = tuple[str | None, Receipt]
"""An end and its execution; None where that is not reported: not by way of a stream."""


def decisive_end(reported: Sequence[ReportedEnd]) -> ReportedEnd:
    """Return the end that counts: of the last execution that has one, by its own process.

    The main process reports a child that it has ended, or found dead: it does not know what that
    had done before. The stock result counts where no worker reports anything.
    """
    if len(reported) == 1:
        return reported[0]
    last: dict[str | None, ReportedEnd] = {}
    for execution, receipt in reported:
        before = last.get(execution)
        if before is None or _rank(receipt) > _rank(before[1]):
            last[execution] = execution, receipt
    ends = list(last.values())
    ours = [end for end in ends if end[1].source == "worker"]
    return (ours or ends)[-1]


def _rank(receipt: Receipt) -> tuple[bool, bool, bool]:
    return receipt.source == "worker", not is_revocation_notice(receipt), _is_from_child(receipt)


def _is_from_child(receipt: Receipt) -> bool:
    return receipt.state in OF_ITS_PROCESS or receipt.cpu is not None


def disagreement(reported: Sequence[ReportedEnd], *, by_failure: bool = False) -> Problem | None:
    """Return which two ends of one execution cannot both be true, None where there are none.

    Two failures can: Celery tells a second one where it cannot send what is to follow the first.
    Not so where the entry passes ``by_failure``: which of them was its job's is not known.
    """
    if len(reported) == 1:
        return None
    own: dict[str, Receipt] = {}
    for execution, receipt in reported:
        if execution is None or not _is_from_child(receipt):
            continue
        other = own.setdefault(execution, receipt)
        failed = other.state == receipt.state == "failed" and not by_failure
        if failed and _subject(other) == _subject(receipt):
            continue
        if _essence(other) != _essence(receipt):
            return problems.EndsDiffer(one=_in_short(other), other=_in_short(receipt))
    return None


def _essence(receipt: Receipt) -> tuple[object, ...]:
    error = receipt.error
    described = None if error is None else (error.type, error.message)
    result = receipt.result_sha256 or repr(receipt.result)
    return receipt.state, described, result, *_subject(receipt)


def _subject(receipt: Receipt) -> tuple[object, ...]:
    return receipt.task, receipt.args_sha256


def _in_short(receipt: Receipt) -> str:
    if receipt.state == "succeeded":
        return f"'succeeded' with {short(redacted(receipt.result))}"  # before it is cut
    error = f" with {short(receipt.error.type)}" if receipt.error is not None else ""
    return f"{receipt.state!r}{error}"


def contradiction_with_starts(
    reported: Sequence[ReportedEnd], starts: Sequence[Start]
) -> Problem | None:
    """Return an end that the starts contradict, None where there is none."""
    for execution, receipt in reported:
        if execution is None:
            continue
        started = any(start.execution == execution for start in starts)
        if not started and receipt.state in OF_ITS_PROCESS:
            return problems.EndWithoutStart()
        if started and receipt.state in WITHOUT_START:
            return problems.EndAfterStart(state=receipt.state)
    return None


def without_unproven_claims(
    execution: str | None, receipt: Receipt, starts: Sequence[Start]
) -> Receipt:
    """Strike the claims that switch checks off from a receipt, where no start proves them.

    Other arguments are allowed to a retry, and another task to a job that was handed on. In a store
    without a stream, which has no starts, the tries that the receipt lists must do.
    """
    if not (receipt.retries or receipt.replaced) or receipt.source != "worker":
        return receipt
    own = [start for start in starts if start.execution == execution] or starts
    if starts:
        retried = any(start.retries == receipt.retries for start in own)
        replaced = len(starts) > 1 or any(start.hop for start in own)
    else:
        retried, replaced = bool(receipt.retried), True
    struck: dict[str, object] = {}
    if receipt.retries and not retried:
        struck["retries"] = 0
    if receipt.replaced and not replaced:
        struck["replaced"] = False
    return receipt.model_copy(update=struck) if struck else receipt


def complete_receipt(receipt: Receipt, starts: Sequence[Start]) -> Receipt:
    """Add what the start records know: the executions, and what a killed process could not report.

    Executions are counted per turn: neither Celery's own retry of a task, nor another task that a
    task handed its job on to, is a second execution. ``starts`` are of the receipt's attempt,
    oldest first.
    """
    if not starts:
        return receipt
    last = starts[-1]
    started_at = receipt.started_at or last.started_at
    wait = receipt.wait
    if wait is None and started_at is not None and receipt.sent_at is not None:
        wait = max(0.0, (started_at - receipt.sent_at).total_seconds())
    more = {
        "executions": _executions(starts),
        "redelivered": receipt.redelivered or any(start.redelivered for start in starts),
        "started_at": started_at,
        "wait": wait,
        "worker": receipt.worker or last.worker,
        "host": receipt.host or last.host,
        "pid": receipt.pid or last.pid,
    }
    changed: dict[str, object] = {
        name: value for name, value in more.items() if getattr(receipt, name) != value
    }
    if changed and (signature := receipt.signature) is not None:
        filled = [name for name in changed if name in FILLABLE and name not in signature.filled]
        if filled:
            own = {"filled": [*signature.filled, *filled]}
            changed["signature"] = signature.model_copy(update=own)
    return receipt.model_copy(update=changed) if changed else receipt


def _executions(starts: Sequence[Start]) -> int:
    if len(starts) == 1:
        return 1
    return max(Counter(map(turn_of, starts)).values())


def turn_of(start: Start) -> tuple[int, int]:
    """Return the turn of a job: how often it had been handed on, and retried since."""
    return start.hop, start.retries


@dataclass(frozen=True, slots=True)
class SentJob:
    """An attempt as it was sent, by the run ``run``.

    ``codes_of``: the run whose record has the code that it is held against; ``code_at``: as it was
    then, None: when the attempt was sent.
    """

    entry: Entry
    task_id: str
    number: int
    run: str
    codes_of: str
    sent_at: datetime | None
    code_at: datetime | None = None


def as_reused(
    verdict: Verdict, receipt: Receipt | None, entry: str, number: int, origin: ReusedFrom
) -> tuple[Verdict, Receipt | None]:
    """Return verdict and receipt of an earlier run's job as those of the entry that reuses it."""
    other = "" if origin.entry == entry else origin.entry
    reason = Reused(run=origin.run, entry=other, why=reason_of(verdict))
    if receipt is not None:
        mark = Reuse(run=origin.by, entry=entry, at=origin.at)
        receipt = receipt.model_copy(update={"reused": mark})
    return verdict_of(entry, number, verdict.verdict, reason, verdict.mismatches), receipt


class EvidenceEvaluator:
    """Evaluate the evidence of one run; ``is_whole``: whether the store kept all it was given."""

    def __init__(self, run: str, ledger: Ledger, facts: FactLog | None = None) -> None:
        self._ledger = ledger
        self._facts = facts or FactLog(ledger)
        merged = ledger.info.merged()
        self._origins = TaskRuns(run, merged)
        self._codes = {one: CodeHistory(ledger, one) for one in (*merged, run)}
        self._own_limits = OwnLimits(ledger)
        self._signatures = SignaturesByRun(ledger)
        self.signatures = self._signatures.all
        self.clock = ClockWatch(ledger)
        self._sets: dict[str, frozenset[str]] = {}  # of the ledger, which this run alone writes
        self.is_whole: Callable[[], bool] = lambda: True
        self._has_reused = bool(ledger.info.reused_runs())
        self.imported: dict[str, ReusedFrom] = {}
        """Where attempts were reused from that are not in the ledger yet, by task id."""

    def evaluate(
        self,
        entry: Entry,
        task_id: str,
        number: int,
        reported: Sequence[ReportedEnd],
        starts: Sequence[Start],
        sent_at: datetime | None,
        *,
        exact_message: bool = True,
    ) -> tuple[Verdict, Receipt | None]:
        """Return the verdict on the ``number``-th attempt of ``entry``, and the receipt that
        counts.

        ``exact_message``: whether the receipts must be of the very message that was sent at
        ``sent_at``. What was reused is held against the run, the entry and the attempt that it
        was of, and against the code that would have run when it was reused.
        """
        origin = self._origin_of(task_id)
        if origin is None:
            run = self._origins.run_of(task_id)
            job = SentJob(entry, task_id, number, run, run, sent_at)
            return self._evaluate(job, reported, starts, exact_message=exact_message)
        own = entry.model_copy(update={"id": origin.entry})
        job = SentJob(own, task_id, origin.attempt, origin.run, origin.by, sent_at, origin.at)
        verdict, receipt = self._evaluate(job, reported, starts, exact_message=exact_message)
        return as_reused(verdict, receipt, entry.id, number, origin)

    def _origin_of(self, task_id: str) -> ReusedFrom | None:
        if self.imported and (origin := self.imported.get(task_id)) is not None:
            return origin
        return self._ledger.attempts.reused(task_id) if self._has_reused else None

    def _evaluate(
        self,
        job: SentJob,
        reported: Sequence[ReportedEnd],
        starts: Sequence[Start],
        *,
        exact_message: bool,
    ) -> tuple[Verdict, Receipt | None]:
        entry, task_id, number, sent_at = job.entry, job.task_id, job.number, job.sent_at
        trusted, fault = trusted_ends(self._signatures.of(job.codes_of), reported)
        if not trusted:
            receipt = reported[0][1]
            verdict = evaluate(entry, None, attempt=number, problem="forged", why=fault)
            return verdict, receipt if receipt.entry == entry.id else None
        reported = trusted
        execution, receipt = decisive_end(reported)
        receipt = without_unproven_claims(execution, receipt, starts)
        if receipt.reused is not None or receipt.judged is not None:  # which no worker says
            receipt = receipt.model_copy(update={"reused": None, "judged": None})
        if exact_message and receipt.sent_at != sent_at and self._was_published_again(task_id):
            exact_message = False  # which of its messages it is of is unknown
        known_at = sent_at if exact_message else None
        lie = self._find_contradiction(job, (execution, receipt), reported, starts, known_at)
        if lie:
            logger.bind(entry=entry.id).info("a receipt cannot be trusted: {}", lie.phrase())
            verdict = evaluate(entry, None, attempt=number, problem="forged", why=lie)
            return verdict, receipt if receipt.entry == entry.id else None
        whole = complete_receipt(receipt, starts)
        if self._is_revoked_by_run(entry, whole, task_id):
            return evaluate(
                entry, None, attempt=number, problem="revoked", why=problems.RecalledByRun()
            ), whole
        codes = self._codes.get(job.codes_of)
        since = job.code_at or sent_at or whole.sent_at
        code = None if codes is None else codes.at(entry.task, since)
        left_out = missing_fields(entry, receipt, sent=sent_at is not None, code=code)
        limited = self._own_limits.of_run(entry, job.codes_of, since)
        return evaluate(limited, whole, attempt=number, code=code, missing=left_out), whole

    def _was_published_again(self, task_id: str) -> bool:
        """Return whether a message of the attempt may have got lost, and another one was sent."""
        row = self._ledger.attempts.get(task_id)
        return row is not None and row.note is not None

    def _find_contradiction(
        self,
        job: SentJob,
        chosen: ReportedEnd,
        reported: Sequence[ReportedEnd],
        starts: Sequence[Start],
        sent_at: datetime | None,
    ) -> Problem | None:
        entry, task_id = job.entry, job.task_id
        contradicts = partial(
            contradiction,
            *(entry, chosen[1]),
            run=job.run,
            task_id=task_id,
            attempt=job.number,
            sent_at=sent_at,
        )
        lie = contradicts()
        if lie and (back := self._ledger.excuses.set_back(task_id)):
            lie = contradicts(set_back=timedelta(seconds=back))
        lie = lie or disagreement(reported, by_failure=entry.expect.state == "failed")
        if (
            not lie
            and (lie := contradiction_with_starts(reported, starts))
            and self.may_lack_starts(task_id)
        ):
            lie = None
        if not lie and len(starts) and task_id in self._task_ids(CLASHING_STARTS):
            lie = problems.StartsDiffer()
        return lie

    def may_lack_starts(self, task_id: str) -> bool:
        """Return whether starts of an attempt or a descendant may be lost with an emptied store.

        What is found of the store now is of what arrives now, and is kept for a later evaluation.
        """
        if self._ledger.excuses.may_lack_starts(task_id):
            return True
        if self.is_whole():
            return False
        self._ledger.excuses.note_lost_starts_of(task_id)
        return True

    def add_repeated_starts(self, task_id: str, starts: Iterable[Start]) -> None:
        """Record starts of an attempt that may have some already.

        Two records of one start must be the same, and have to be of one worker. From two of its
        processes they are two starts: Celery's pool gives a job to another process when the first
        one has died before its worker has heard that it had begun.
        """
        known = {one.execution: one for one in self._ledger.events.starts(task_id)}
        for start in starts:
            same = known.get(start.execution)
            if same is not None and _is_of_other_process(start, same):
                earlier, same = same, known.get(given_again(start).execution)
                if same is None:
                    renamed = given_again(earlier)
                    self._ledger.events.rename_start(earlier, renamed)
                    known[renamed.execution] = renamed
            if same is None:
                self._ledger.events.add_starts([start])
                known[start.execution] = start
            elif _start_identity(same) != _start_identity(start):
                self._add_task_ids(CLASHING_STARTS, [task_id])
                self._facts.clashing(start)

    def mark_revoked(self, jobs: Iterable[PendingAttempt]) -> None:
        """Record that the run itself revokes these, so that none meets an expectation by it.

        It is kept in the ledger for a later evaluation.
        """
        self._add_task_ids(
            REVOKED_TASKS, (job.task_id for job in jobs if job.entry.expect.state == "revoked")
        )

    def _is_revoked_by_run(self, entry: Entry, receipt: Receipt, task_id: str) -> bool:
        revoked = receipt.state == entry.expect.state == "revoked"
        return revoked and task_id in self._task_ids(REVOKED_TASKS)

    def _task_ids(self, key: str) -> frozenset[str]:
        if key not in self._sets:
            self._sets[key] = self._ledger.info.task_ids(key)
        return self._sets[key]

    def _add_task_ids(self, key: str, task_ids: Iterable[str]) -> None:
        known = self._task_ids(key)
        all_of_them = known.union(task_ids)
        if len(all_of_them) > len(known):
            self._ledger.info.add_task_ids(key, all_of_them)
            self._sets[key] = all_of_them


def _is_of_other_process(start: Start, of: Start) -> bool:
    return start.pid != of.pid and (start.worker, start.host) == (of.worker, of.host)


def _start_identity(start: Start) -> tuple[object, ...]:
    return start.started_at, start.retries, start.worker, start.host, start.pid
