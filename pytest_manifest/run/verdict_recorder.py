"""Turn what is received into verdicts: commit them, then report them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from loguru import logger

from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Start
from pytest_manifest.results.batch import ReceiptBatch
from pytest_manifest.run.context import EngineContext
from pytest_manifest.run.evaluation import Evaluated
from pytest_manifest.run.evidence import ReportedEnd
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.recovery import JobSearch
from pytest_manifest.run.schedule import Skipped
from pytest_manifest.run.signatures import note_unsigned
from pytest_manifest.run.trees import Trees
from pytest_manifest.run.unconfirmed import FinalReceipt, UnconfirmedEnds, UnreadableResults
from pytest_manifest.run.workers import WorkerDeaths
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import RecallReason, TimeOver
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.verdict.reasons import Problem

REMIND_PERIOD = 10.0
"""Seconds from one repeated revocation to the next: shorter than brokers take to requeue what a
dead worker had."""

InferredEnd: TypeAlias = tuple[PendingAttempt, VerdictStatus, Problem]
"""A verdict on an attempt for want of a receipt, and the reason."""


class VerdictRecorder:
    """Record the verdicts of one run, and what follows from each. Use it from one thread."""

    def __init__(self, context: EngineContext, search: JobSearch | None) -> None:
        self._context = context
        self._signals = context.signals
        self._ledger = context.ledger
        self._collector = context.collector
        self._evaluator = context.evaluator
        self._schedule = context.schedule
        self._pending = context.pending
        self._search = search
        self._facts = context.evaluator.facts
        self.unread = UnreadableResults(context.collector)
        self.unconfirmed = UnconfirmedEnds(context.pending, search, self._facts)
        self.deaths = WorkerDeaths(context)
        self.trees = Trees(context.ledger, context.evaluator, context.pending, context.meet)
        self._to_revoke: dict[str, RecallReason] = {}
        self._dropped: dict[str, RecallReason] = {}
        self._remind_at = 0.0
        self._uncharged: list[str] = []
        """Task ids whose cost is not charged to the budget yet."""
        self._log = logger.bind(run=context.run)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Record what is written inside, after the facts that it follows from."""
        with self._ledger.transaction():
            self._facts.write()
            yield

    def poll_once(self) -> None:
        """Record everything that is there now, and wait for nothing."""
        self.record_batch(self._collector.poll_all(self._pending.by_task_id))

    def record_batch(self, batch: ReceiptBatch) -> None:
        """Commit a batch of receipts and the verdicts that follow at once; then report them."""
        self._context.receivers.note(batch.receiver_failures)
        self.unread.note(self._facts)
        finals = self.unconfirmed.confirmed(batch.finals, batch.starts)
        told = batch.descendants or batch.closed or batch.starts or batch.handed_on
        if not (told or finals or batch.unsigned):
            if (
                batch.moved and batch.position is not None
            ):  # so that --manifest-resume does not read it again
                self._ledger.info.set_meta("stream_position", batch.position)
            self._facts.write()
            return
        self._evaluator.evidence.clock.look()
        now = time.monotonic()
        if self._search is not None:
            self._search.reset_quiet(now)
        evaluated: list[Evaluated] = []
        with self._transaction():
            self._note_unsigned(batch.unsigned, now)
            self.trees.add(batch.descendants)
            self._context.departures.hear_starts(batch.starts, now)
            first: list[Start] = []
            repeated: dict[str, list[Start]] = {}
            for start in batch.starts:
                self.deaths.has_started(start.worker)
                job = self._pending.by_task_id.get(start.task_id)
                if job is None or job.started is not None:
                    repeated.setdefault(start.task_id, []).append(start)
                else:
                    first.append(start)
                self._pending.started(start, now)
            self._ledger.events.add_starts(first)
            for task_id, again in repeated.items():
                self._evaluator.evidence.add_repeated_starts(task_id, again)
            self._ledger.events.add_handed_on(batch.handed_on)
            for end in batch.handed_on:
                self._pending.handed_on(end)
                self._context.check_retry(end)
            finals = self._without_earlier(finals)
            self._ledger.events.add_receipts(finals)
            self.trees.announce(batch.announced)
            self.trees.close(batch.closed)
            self.trees.mark_unsent(batch.unsent)
            self.trees.mark_elsewhere(batch.elsewhere)
            self._facts.write()
            known = self._starts_of(finals)
            judged_again: set[str] = set()
            for task_id, reported in _by_attempt(finals).items():
                if self._pending.goes_on(task_id, reported):
                    continue
                job = self._pending.complete(task_id)
                if job is None:
                    judged_again.add(task_id)
                    evaluated += self._handle_late_receipt(task_id)
                elif job.origin is not None:
                    starts = known.get(task_id, ())
                    self.trees.end(job, self.trees.evaluate(job, reported, starts))
                else:
                    starts = known.get(task_id, ())
                    evaluated += self._conclude(
                        job, *self._evaluator.evaluate_evidence(job, reported, starts)
                    )
            for end in batch.handed_on:
                if end.how == HANDED_ON_AFTER_DEATH and end.task_id not in repeated:
                    evaluated += self._handle_repeated_start(end.task_id, again=False)
            for task_id in repeated:  # with a late receipt beside it, it is judged by both already
                evaluated += self._handle_repeated_start(task_id, again=task_id not in judged_again)
            evaluated += self._conclude_trees()
            self._record(evaluated)
            self._charge_budget()
            if batch.position is not None:
                self._ledger.info.set_meta("stream_position", batch.position)
        if not self._ledger.commits_deferred:
            self._collector.trim()
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def _without_earlier(self, finals: Sequence[FinalReceipt]) -> list[FinalReceipt]:
        """Return these without what is stored of an execution after which the job goes on."""
        earlier = [final for final in finals if self._pending.is_earlier(*final)]
        for one in earlier:
            self._facts.reported(*one)
        return [final for final in finals if final not in earlier] if earlier else list(finals)

    def _note_unsigned(self, ends: Iterable[tuple[str, str, Receipt]], now: float) -> None:
        """Keep that ends were reported which no worker has signed, and search for their jobs.

        A job goes on being awaited: its true end may come yet.
        """
        first = False
        for task_id, fault, receipt in ends:
            self._facts.reported(task_id, None, receipt, fault)
            if task_id in self._pending.by_task_id:
                first = note_unsigned(self._ledger, task_id, fault) or first
        if first and self._search is not None:
            self._search.schedule(now)

    def record_inferred(self, ends: Iterable[InferredEnd]) -> None:
        """Record the verdicts of attempts that no receipt will come of; they are not pending any
        more."""
        evaluated: list[Evaluated] = []
        rows = list(ends)
        with self._transaction():
            for job, status, why in rows:
                found = self.unread.adjust(job, status, why)
                verdict, receipt = self._evaluator.infer_or_revoked(job, *found)
                if receipt is not None and job.unconfirmed is not None:  # it counts now
                    self._ledger.events.add_receipts([(job.task_id, None, job.unconfirmed)])
                evaluated += self._conclude(job, verdict, receipt)
            evaluated += self._conclude_trees()
            self._record(evaluated)
            self._charge_budget()
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def record_unsent(self, unsent: Sequence[Skipped], status: VerdictStatus) -> None:
        """Record the verdicts of what will never be sent: refused, or overdue within an outage."""
        if not unsent:
            return
        for one in unsent:
            entry = one.attempt.entry
            if status == "timed_out" and entry.deadline is not None:
                task_id, limit = one.attempt.task_id, entry.deadline
                self._facts.add(entry.id, TimeOver(**stamp(task_id), of="deadline", limit=limit))
        with self._transaction():
            evaluated = self._evaluator.unsent(unsent, status)
            for one in unsent:
                if self._schedule.budget is not None:
                    self._schedule.budget.cancel(one.attempt.task_id)
                evaluated += self._finish(one.attempt.entry.id, status)
            self._record(evaluated)
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def record_blocked(self, skipped: Sequence[Skipped]) -> None:
        if skipped:
            with self._transaction():
                evaluated = self._evaluator.blocked(skipped)
                self._record(evaluated)
            self._report([verdict for verdict, _ in evaluated])

    def commit_inferred(self, ends: Iterable[InferredEnd]) -> None:
        """Record and report verdicts for want of a receipt, of attempts that end with the run.

        An attempt whose descendants have all ended by it gets its verdict, too.
        """
        evaluated: list[Evaluated] = []
        rows = list(ends)
        with self._transaction():
            for job, status, why in rows:
                verdict = self._evaluator.infer(job, *self.unread.adjust(job, status, why))
                if job.origin is not None:
                    self.trees.end(job, verdict)
                elif not self.trees.holds(job, verdict, None):
                    evaluated.append((verdict, None))
            evaluated += self._conclude_trees()
            self._record(evaluated)
        self._report([verdict for verdict, _ in evaluated])

    def commit(self, evaluated: Iterable[Evaluated]) -> None:
        """Record verdicts, then report them."""
        rows = list(evaluated)
        if rows:
            with self._transaction():
                self._record(rows)
            self._report([verdict for verdict, _ in rows])

    def _record(self, evaluated: Sequence[Evaluated]) -> None:
        """Record verdicts after what was added to the facts while judging."""
        self._facts.write()
        self._ledger.verdicts.record(evaluated)

    def _starts_of(self, finals: Iterable[FinalReceipt]) -> Mapping[str, Sequence[Start]]:
        """Return the starts of these attempts; few have more than the one just reported."""
        known: dict[str, Sequence[Start]] = {}
        queried: list[str] = []
        for task_id, _, _ in finals:
            job = self._pending.by_task_id.get(task_id)
            if job is None or job.only_start is None:
                queried.append(task_id)
            else:
                known[task_id] = (job.only_start,)
        return known | self._ledger.events.starts_of(queried)

    def _conclude(
        self, job: PendingAttempt, verdict: Verdict, receipt: Receipt | None
    ) -> list[Evaluated]:
        """Return what follows from a verdict: the entry's verdict, another attempt, or nothing yet.

        Nothing follows from a descendant's, nor from an attempt's before its descendants have
        ended. Call it within a transaction, for what is no longer pending.
        """
        if job.origin is not None:
            self.trees.end(job, verdict)
            return []
        if self.trees.holds(job, verdict, receipt):
            return []
        return self._conclude_whole(job, verdict, receipt)

    def record_complete_trees(self) -> None:
        """Record the verdicts of attempts whose descendants had all ended before this pass."""
        with self._transaction():
            evaluated = self._conclude_trees()
            self._record(evaluated)
        self._report([verdict for verdict, _ in evaluated])

    def _conclude_trees(self) -> list[Evaluated]:
        """Return what follows for the attempts whose last descendant has ended."""
        evaluated: list[Evaluated] = []
        completed = self.trees.completed()
        if self.trees.wants_search and self._search is not None:
            self.trees.wants_search = False
            self._search.schedule(time.monotonic())
        for one in completed:
            if isinstance(one, str):  # it had its verdict before the last of its descendants
                evaluated += self._evaluator.late_receipt(one)
            else:
                evaluated += self._conclude_whole(one.job, one.verdict, one.receipt)
        return evaluated

    def _conclude_whole(
        self, job: PendingAttempt, verdict: Verdict, receipt: Receipt | None
    ) -> list[Evaluated]:
        """Return what follows from the end of an attempt and of all its descendants."""
        verdict = self._evaluator.trees.with_tree(job.entry, job.task_id, verdict, receipt)
        self._uncharged.append(job.task_id)
        if not self._signals.stop.is_set() and self._schedule.closed is None:
            another = self._evaluator.next_attempt(job, verdict, receipt)
            if another is not None:
                self._schedule.add(another)
                return []
        verdict = self._evaluator.final(job, verdict)
        if verdict.verdict == "quarantined":
            self._poison(job.task_id)
        return [(verdict, receipt), *self._finish(job.entry.id, verdict.verdict)]

    def _finish(self, entry: str, status: VerdictStatus) -> list[Evaluated]:
        """Give the schedule a final verdict; return the verdicts of what it blocks."""
        was_open = self._schedule.closed is None
        skipped = self._schedule.finished(entry, status)
        closes = was_open and self._schedule.closed is not None
        if closes and self._context.settings.revoke_on_max_failed:
            self._to_revoke |= dict.fromkeys(self._pending.unstarted(), "max_failed")
        return self._evaluator.blocked(skipped)

    def _charge_budget(self) -> None:
        """Charge the budget with the recorded cost of attempts that have ended."""
        ended, self._uncharged = self._uncharged, []
        budget = self._schedule.budget
        for task_id in ended if budget is not None else ():
            cost = self._evaluator.cost(task_id)
            if budget is not None and cost is not None:
                budget.charge(task_id, cost)

    def _handle_late_receipt(self, task_id: str) -> list[Evaluated]:
        """Judge again what had ended before this receipt came."""
        again = self.trees.corrected([task_id])
        if again:
            return again
        self._uncharged.append(task_id)
        return self._evaluator.late_receipt(task_id)

    def _handle_repeated_start(self, task_id: str, *, again: bool) -> list[Evaluated]:
        """Judge a job that started a second time: as it kills its workers, or after its end.

        What has ended is judged ``again``, or has been already.
        """
        job = self._pending.by_task_id.get(task_id)
        if job is None:
            self._uncharged.append(task_id)
            corrected = self.trees.corrected([task_id]) if again else []
            if corrected:
                return corrected
            if self._evaluator.keeps_crashing(task_id):  # no other job would get a turn
                self._poison(task_id)
            return self._evaluator.started_after_end(task_id) if again else []
        verdict = self._evaluator.quarantine.of_restarted(job)
        if verdict is None:
            return []
        self._pending.complete(task_id)
        self._poison(task_id)
        return self._conclude(job, verdict, None)

    def _poison(self, task_id: str) -> None:
        """Have a job revoked as it kills its workers, which the next transaction records.

        It is that of its verdict: no later report changes that.
        """
        self._to_revoke[task_id] = "poison"
        self._facts.recalled(task_id, "poison", "asked")

    def remind_workers(self, now: float) -> None:
        """Repeat the revocation of quarantined jobs.

        Workers keep revocations in memory: one that started since knows of none, and would run what
        has killed it as soon as the broker hands it out again.
        """
        if self._dropped and now >= self._remind_at:
            self._remind_at = now + REMIND_PERIOD
            self.revoke(self._dropped)

    def _revoke_quarantined(self) -> None:
        if self._to_revoke:
            found, self._to_revoke = self._to_revoke, {}
            self._dropped |= found
            self.revoke(found)

    def revoke(self, reasons: Mapping[str, RecallReason]) -> None:
        """Have the workers drop what is sent and not finished, by task id."""
        if self._context.publisher is None or not reasons:
            return
        task_ids, pending = list(reasons), self._pending.by_task_id
        self._evaluator.evidence.mark_revoked(f for f in map(pending.get, task_ids) if f)
        for task_id, why in reasons.items():
            job = pending.get(task_id)
            self._facts.recalled(task_id, why, "asked", job.entry.id if job is not None else "")
        try:
            self._context.publisher.revoke(task_ids)
        except StackError as error:
            self._log.warning("what is queued could not be revoked: {}", error)

    def _report(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        others = [verdict for verdict in verdicts if verdict.verdict != "passed"]
        for verdict in others:
            self._log.bind(entry=verdict.entry).debug("{}: {}", verdict.verdict, verdict.sentence)
        if len(others) < len(verdicts):  # the ledger has each, and a line for each would cost more
            self._log.debug("{} passed", len(verdicts) - len(others))
        self._signals.on_verdicts([verdict.entry for verdict in verdicts])


def _by_attempt(finals: Iterable[FinalReceipt]) -> Mapping[str, Sequence[ReportedEnd]]:
    """Group the reported ends by attempt, in the order in which they arrived."""
    found: dict[str, list[ReportedEnd]] = {}
    for task_id, execution, receipt in finals:
        found.setdefault(task_id, []).append((execution, receipt))
    return found
