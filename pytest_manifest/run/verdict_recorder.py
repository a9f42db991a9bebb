"""Turn what is received into verdicts: commit the facts with what follows, then report that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.errors import ManifestError, StackError
from pytest_manifest.ledger.jobs import BATCH
from pytest_manifest.results.records import ReceiptBatch
from pytest_manifest.run import casebook
from pytest_manifest.run.connections import Part, WorkerDeaths
from pytest_manifest.run.fact_log import stamp, withheld
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.run.schedule import Skipped
from pytest_manifest.run.search import JobSearch
from pytest_manifest.run.trees import Trees
from pytest_manifest.schema import Entry, Verdict, VerdictStatus, facts
from pytest_manifest.verdict.judge import Judgement
from pytest_manifest.verdict.judging import Judged, recorded
from pytest_manifest.verdict.problems import ExpectationUnread
from pytest_manifest.verdict.problems import RunOver as RunOverReason
from pytest_manifest.verdict.reasons import verdict_of

REMIND_PERIOD = 10.0
"""Seconds from one repeated revocation to the next: shorter than brokers take to requeue what a
dead worker had."""


@dataclass(eq=False)
class VerdictRecorder(Part):
    """Record the verdicts of one run, and what follows from each."""

    _search: JobSearch | None

    def __post_init__(self) -> None:
        super().__post_init__()
        context, search = self._context, self._search
        self._manifest = context.manifest
        self._facts.watch = context.pending.forget_facts
        self._clock = context.clock
        self._cases = casebook.Casebook(context.ledger, has_stream=context.collector.reports_starts)
        self.unconfirmed = casebook.UnconfirmedEnds(context.pending, search, self._facts)
        self.deaths = WorkerDeaths(context)
        self._intake = casebook.Intake(context, self._cases, self.deaths, search)
        self.trees = Trees(
            *(context.ledger, self._manifest, self._cases, self._facts, context.pending),
            context.meet,
        )
        self.resend: Callable[[Attempt], bool] = lambda _attempt: False
        """Publishes the very message of an attempt again, where that is of use."""
        self.corrections: list[casebook.Correction] = []
        self._to_repeat = context.to_repeat
        self._to_revoke: dict[str, facts.RecallReason] = {}
        self._dropped: dict[str, facts.RecallReason] = {}
        self.told_before: dict[str, VerdictStatus] = {}
        """The verdicts, by entry, that were reported before an operator decided otherwise."""
        self._remind_at = 0.0

    def _record(self, judged: Callable[[], Iterable[casebook.Evaluated]]) -> None:
        """Commit the facts that were added, and all that judging by them writes and gives, at once;
        then report the verdicts."""
        with self._ledger.transaction():
            self._facts.write()
            evaluated = list(judged())
            self._facts.write()  # what was added while judging comes before the verdicts
            self._ledger.verdicts.record(evaluated)
        for verdict, _ in evaluated if self.told_before else ():
            before = self.told_before.pop(verdict.entry, None)
            if before is not None and before != verdict.verdict:
                self.corrections.append(casebook.Correction(before, verdict))
        self._signals.repeats = len(self.told_before)
        self._report([verdict for verdict, _ in evaluated])

    def poll_once(self) -> None:
        """Record everything that is there now, and wait for nothing."""
        self.read_all(self._pending.by_task_id)

    def read_all(self, awaited: Mapping[str, PendingAttempt]) -> None:
        """Record all that was reported. Raises StackError where there may be more than was read."""
        batch = self._collector.poll_all(awaited)
        self.record_batch(batch)
        if batch.cut is not None:
            raise batch.cut

    def record_batch(self, batch: ReceiptBatch) -> None:
        """Commit a batch of reports and the verdicts that follow at once; then report these."""
        self._context.receivers.note(batch.receiver_failures)
        for task_id, unreadable in self._collector.flaws.results.items():
            self._facts.unreadable(task_id, unreadable)
        confirmed = self.unconfirmed.confirmed(batch.finals, batch.starts)
        finals = self._intake.without_earlier(confirmed)
        told = batch.descendants or batch.closed or batch.starts or batch.handed_on
        if not (told or finals or batch.unsigned):
            if (
                batch.moved and batch.position is not None
            ):  # so that --manifest-resume does not read it again
                self._ledger.info.set_meta("stream_position", batch.position)
            self._facts.write()
            return
        self._clock.look()
        now = time.monotonic()
        if self._search is not None:
            self._search.reset_quiet(now)

        def judged() -> Iterable[casebook.Evaluated]:
            self._intake.note_unsigned(batch.unsigned, now)
            self.trees.add(batch.descendants)
            touched = self._intake.add(batch.starts, batch.handed_on, finals, now)
            self.trees.announce(batch.announced)
            self.trees.close(batch.closed)
            self.trees.mark_unsent(batch.unsent)
            self.trees.mark_elsewhere(batch.elsewhere)
            self._facts.write()
            if batch.position is not None:
                self._ledger.info.set_meta("stream_position", batch.position)
            return [*self._settle(touched), *self._conclude_trees()]

        self._record(judged)
        if not self._ledger.commits_deferred:
            self._collector.trim()
        self._revoke_quarantined()

    # Verdicts

    def record_judged(self, task_ids: Iterable[str]) -> None:
        """Judge these by the facts that were added, and record what follows.

        Also for attempts whose last descendant has ended by it.
        """
        self._record(lambda: [*self._settle(task_ids), *self._conclude_trees()])
        self._revoke_quarantined()

    def record_unsent(self, unsent: Sequence[Skipped], status: VerdictStatus) -> None:
        """Record the verdicts of what will never be sent: refused, or overdue within an outage."""
        if not unsent:
            return
        entries = [one.attempt.entry for one in unsent]
        for one in unsent:
            task_id, limit = one.attempt.task_id, one.attempt.entry.deadline
            if status == "timed_out" and limit is not None:
                over = facts.TimeOver(**stamp(task_id), of="deadline", limit=limit)
                self._facts.add(one.attempt.entry.id, over)
            if self._schedule.budget is not None:
                self._schedule.budget.cancel(task_id)

        def judged() -> Iterator[casebook.Evaluated]:
            for one in self._cases.judging.each(entries):
                yield recorded(one)
                yield from self._finish(one.entry.id, one.judgement.status)

        self._record(judged)
        self._revoke_quarantined()

    def record_blocked(self, skipped: Sequence[Skipped]) -> None:
        if skipped:
            self._record(lambda: self._blocked(skipped))

    def record_complete_trees(self) -> None:
        """Record the verdicts of attempts whose descendants had all ended before this pass."""
        self._record(self._conclude_trees)

    def record_rest(self, status: VerdictStatus, why: RunOverReason) -> None:
        """Record a verdict of every entry that has none, as its run is over."""

        def judged() -> Iterator[casebook.Evaluated]:
            self.trees.judge(i for i, job in self._pending.by_task_id.items() if job.child)
            yield from self._remaining(status, why)
            self._pending.clear()

        self._record(judged)

    def _remaining(self, status: VerdictStatus, why: RunOverReason) -> Iterator[casebook.Evaluated]:
        rows = self._ledger.attempts.all(undecided=True)
        while some := list(islice(rows, BATCH)):
            awaited: list[Entry] = []
            owners = self._ledger.facts.owners([row.entry for row in some])
            for row in some:
                settled = self._ledger.verdicts.of_entry(row.entry)
                if settled is not None and settled.verdict.verdict == "unknown":
                    continue  # with its reason
                try:
                    if row.entry not in self._manifest:
                        continue
                    entry = self._manifest[row.entry]
                except ManifestError as error:  # it is known what to say, whatever it expects
                    known = why.having(unsent=True) if row.state == "planned" else why
                    unread = ExpectationUnread(why=known, error=str(error))
                    yield verdict_of(row.entry, row.attempt, status, unread), None
                    continue
                if row.state != "planned" or row.attempt > 1 or row.entry in owners:
                    awaited.append(entry)
                    continue
                attempt = Attempt(self._context.run, entry, row.attempt, row.task_id)
                yield casebook.verdict_on(attempt, self._cases.by_memory(attempt))
            yield from map(recorded, self._cases.judging.each(awaited))

    def _settle(self, task_ids: Iterable[str]) -> list[casebook.Evaluated]:
        """Judge these anew, in flight or not; return the verdicts of entries that follow."""
        own: list[PendingAttempt] = []
        others: list[str] = []
        for task_id in dict.fromkeys(task_ids):  # of two copies of a message each may say something
            job = self._pending.by_task_id.get(task_id)
            if job is not None and job.child is None:
                own.append(job)
            else:
                others.append(task_id)
        evaluated: list[casebook.Evaluated] = []
        deadly, late = self.trees.judge(others) if self._cases.has_trees else ([], set[str]())
        for task_id in deadly:
            self._poison(task_id)
        for job, found in self._cases.judge(own):
            evaluated += self._conclude(job, found)
        late.update(task_id for task_id in others if not self._pending.awaits(task_id))
        return evaluated + self._judge_late(late)

    def _conclude(self, job: PendingAttempt, found: Judgement) -> list[casebook.Evaluated]:
        """Return what follows from a judgement of an attempt: the entry's verdict, another attempt,
        or nothing yet.

        Nothing follows before its job has ended, and all that this has started.
        """
        if found.own.status == "pending" or not self._is_news(job, found):
            job.facts = None  # there may be more of it than memory has
            return []
        self._pending.complete(job.task_id)
        is_message = job.facts is None and found.again == "message"
        if is_message and self.resend(job.attempt):
            return []
        if self.trees.holds(job):
            return []
        return self._conclude_whole(job, found)

    def _is_news(self, job: PendingAttempt, found: Judgement) -> bool:
        """Return whether something is found that the entry's verdict did not go by, if it has one.

        An earlier stretch of the run may have given up what is awaited again.
        """
        settled = None if job.facts is not None else self._ledger.verdicts.of_entry(job.entry.id)
        if settled is None or settled.verdict.verdict == "pending":
            return True
        return found.end is None or found.end > settled.seq

    def _conclude_trees(self) -> list[casebook.Evaluated]:
        """Return what follows for the attempts whose last descendant has ended."""
        completed = self.trees.completed()
        if self.trees.wants_search and self._search is not None:
            self.trees.wants_search = False
            self._search.schedule(time.monotonic())
        held = [one for one in completed if not isinstance(one, str)]
        evaluated: list[casebook.Evaluated] = []
        for job, found in self._cases.judge(held):
            evaluated += self._conclude_whole(job, found)
        return evaluated + self._judge_late(one for one in completed if isinstance(one, str))

    def _conclude_whole(self, job: PendingAttempt, found: Judgement) -> list[casebook.Evaluated]:
        """Return what follows from the end of an attempt and of all its descendants."""
        self._cases.forget(job.task_id)
        self._charge(found)
        if not self._signals.stop.is_set() and self._schedule.closed is None:
            another = self._next_attempt(job, found)
            if another is not None:
                self._schedule.add(another)
                return []
        if found.status == "quarantined":
            self._poison(job.task_id)
        return [self._verdict_on(job, found), *self._finish(job.entry.id, found.status)]

    def _verdict_on(self, job: PendingAttempt, found: Judgement) -> casebook.Evaluated:
        """Return an entry's verdict; what is as it was before says what it said then."""
        is_as_before = job.facts is None and found.is_as_before
        row = self._ledger.attempts.get(job.task_id) if is_as_before else None
        if row is None or row.verdict is None or row.verdict.verdict != found.status:
            return casebook.verdict_on(job, found)
        return row.verdict, found.receipt

    def _next_attempt(self, job: PendingAttempt, found: Judgement) -> Attempt | None:
        """Plan another attempt, where the entry allows one, and close the last in the ledger."""
        entry = job.entry
        was_asked_for = entry.id in self._to_repeat
        self._to_repeat.discard(entry.id)
        if found.status == "passed" or (found.goes_on if was_asked_for else not found.may_repeat):
            return None
        if entry.id in self._schedule.cancelled:
            return None
        ordinal = self._ledger.attempts.of_entry(entry.id)[-1].position
        attempt = attempt_of(self._context.run, entry, job.number + 1, ordinal)
        self._ledger.verdicts.end_attempt(job.task_id, *casebook.verdict_on(job, found))
        row = (attempt.task_id, entry.id, attempt.number, ordinal, found.status)
        self._ledger.attempts.plan([row], why="resume" if was_asked_for else "retry")
        if was_asked_for:
            self._ledger.info.add_sent_on_request([attempt.task_id])
        self._log.bind(entry=entry.id).info(
            "attempt {} of {!r} was {}; it is sent again", job.number, entry.id, found.status
        )
        return attempt

    def _finish(self, entry: str, status: VerdictStatus) -> list[casebook.Evaluated]:
        """Give the schedule a final verdict; return the verdicts of what it blocks."""
        was_open = self._schedule.closed is None
        skipped = self._schedule.finished(entry, status)
        closes = was_open and self._schedule.closed is not None
        if closes and self._context.settings.revoke_on_max_failed:
            self._to_revoke |= dict.fromkeys(self._pending.unstarted(), "max_failed")
        return self._blocked(skipped)

    def _blocked(self, skipped: Sequence[Skipped]) -> list[casebook.Evaluated]:
        """Return the verdicts of what will not be sent; call it within a transaction."""
        evaluated: list[casebook.Evaluated] = []
        for one in skipped:
            fact = withheld(one.attempt.task_id, one.why)
            if fact is not None:
                self._facts.add(one.attempt.entry.id, fact)
                judgement = self._cases.by_memory(one.attempt, [fact])
                evaluated.append(casebook.verdict_on(one.attempt, judgement))
        if skipped:  # hardly ever: this is asked after each verdict
            self._facts.write()
            self._ledger.attempts.mark((one.attempt.task_id for one in skipped), "withheld")
        return evaluated

    def _charge(self, found: Judgement) -> None:
        """Charge the budget with what the attempts of an entry have cost."""
        budget = self._schedule.budget
        if budget is not None:
            for task_id, cost in found.costs.items():
                budget.charge(task_id, cost)

    # What comes after the verdict

    def _judge_late(self, task_ids: Iterable[str]) -> list[casebook.Evaluated]:
        """Judge again entries of which more is known after their verdict, by attempts of theirs.

        What is reported later may know better, or belie what was reported first.
        """
        entries: dict[str, Entry] = {}
        for task_id in task_ids:
            row = self._ledger.attempts.get(task_id)
            if row is not None and row.entry in self._manifest:
                entries[row.entry] = self._manifest[row.entry]
        corrected: list[casebook.Evaluated] = []
        for entry in entries.values():
            try:
                judged = self._cases.judging.of(entry)
                self._charge(judged.judgement)
                for task_id in judged.judgement.deadly:  # no other job would get a turn
                    self._poison(task_id)
                if (evaluated := self._correct(judged)) is not None:
                    corrected.append(evaluated)
            except Exception as error:  # the verdict that stands is as true as it was
                casebook.not_judged(entry, error)
        return corrected

    def _correct(self, judged: Judged) -> casebook.Evaluated | None:
        """Return the verdict that takes the place of an entry's; None where that stands.

        It stands where nothing final is known, and where nobody has reported an end.
        """
        settled = self._ledger.verdicts.of_entry(judged.entry.id)
        found = judged.judgement
        if settled is None or not found.is_final or found.receipt is None:
            return None
        verdict, receipt = recorded(judged)
        before = settled.verdict
        if before.attempt != verdict.attempt or (before, settled.receipt) == (verdict, receipt):
            return None
        if verdict.verdict != before.verdict:
            self._ledger.verdicts.note_correction(verdict.entry)
            self.corrections.append(casebook.Correction(before.verdict, verdict))
            self._log.bind(entry=verdict.entry).info(
                "{!r} was {} and is {} now", verdict.entry, before.verdict, verdict.verdict
            )
        return verdict, receipt

    # What kills its workers

    def _poison(self, task_id: str) -> None:
        """Have a job revoked as it kills its workers, which the next transaction records.

        It is that of its verdict: no later report changes that. An audit revokes nothing.
        """
        if self._context.publisher is None:
            return
        self._to_revoke[task_id] = "poison"
        self._facts.recalled(task_id, "poison", "asked")

    def keep_revoked(self, task_ids: Iterable[str]) -> None:
        """Have these revoked again and again, as an operator has cancelled them."""
        self._dropped |= dict.fromkeys(task_ids, "operator")

    def remind_workers(self, now: float) -> None:
        """Repeat the revocation of quarantined and cancelled jobs.

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

    def revoke(self, reasons: Mapping[str, facts.RecallReason], *, terminate: bool = False) -> bool:
        """Have the workers drop what is sent and not finished, by task id; return whether they hear
        of that: not while the broker is away.

        ``terminate``: and end the processes that run it.
        """
        if self._context.publisher is None or not reasons:
            return not reasons
        for task_id, why in reasons.items():
            job = self._pending.by_task_id.get(task_id)
            self._facts.recalled(task_id, why, "asked", job.entry.id if job is not None else "")
        if "operator" in reasons.values():  # whose revocation it was is known after a kill, too
            with self._ledger.transaction():
                self._facts.write()
        try:
            self._context.publisher.revoke(list(reasons), terminate=terminate)
        except StackError as error:
            self._log.warning("what is queued could not be revoked: {}", error)
            return False
        return True

    def _report(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        others = [verdict for verdict in verdicts if verdict.verdict != "passed"]
        for verdict in others:
            self._log.bind(entry=verdict.entry).debug("{}: {}", verdict.verdict, verdict.sentence)
        if len(others) < len(verdicts):  # the ledger has each, and a line for each would cost more
            self._log.debug("{} passed", len(verdicts) - len(others))
        self._signals.on_verdicts([verdict.entry for verdict in verdicts])
