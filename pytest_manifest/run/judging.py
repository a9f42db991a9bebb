"""Judge entries by the facts that a ledger has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.facts import started_of
from pytest_manifest.ledger.jobs import BATCH, LoadedAttempt
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.run.signatures import SignaturesByRun
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.facts import Ended, FactSource, Job, Stored
from pytest_manifest.schema.receipts import Reuse
from pytest_manifest.schema.run_facts import (
    JobFact,
    JobFacts,
    RunFact,
    RunFacts,
    SetBack,
    StoreFact,
)
from pytest_manifest.verdict.belief import (
    Identity,
    complete_receipt,
    counted_ends,
    excuses,
    traces_of,
)
from pytest_manifest.verdict.judge import Attempt, Judgement, Rules, judge, judge_descendant
from pytest_manifest.verdict.problems import Left
from pytest_manifest.verdict.reasons import verdict_of
from pytest_manifest.verdict.tree import Descendant, Tree


class Judged(NamedTuple):
    """An entry, its attempts with their facts, and what the judge says of them."""

    entry: Entry
    attempts: Sequence[LoadedAttempt]
    judgement: Judgement


class Judging:
    """Judge entries of one ledger, by the facts of its runs as of when they are first asked for.

    ``by_present_keys``: whether an end is believed is checked by the keys that the ledger has now,
    as where these are others than when it was reported. ``also``: facts of each run that are in no
    ledger.
    """

    def __init__(
        self, ledger: Ledger, *, by_present_keys: bool = False, also: Sequence[RunFact] = ()
    ) -> None:
        self._also = tuple(also)
        self._jobs = ledger.jobs
        self._own = ledger.info.read().run
        self._merged = frozenset(ledger.info.merged())
        self._runs: dict[str, RunFacts] = {}
        signatures = SignaturesByRun(ledger) if by_present_keys else None
        self._signatures = signatures if signatures is not None and signatures.all else None

    def of(self, entry: Entry, rules: Rules | None = None) -> Judged:
        return self.judge(entry, self._jobs.of_entry(entry.id), rules)

    def each(self, entries: Iterable[Entry]) -> Iterator[Judged]:
        """Judge these entries in their order; memory stays flat."""
        left = iter(entries)
        while some := list(islice(left, BATCH)):
            loaded = self._jobs.of_entries([entry.id for entry in some])
            for entry in some:
                yield self.judge(entry, loaded[entry.id])

    def judge(
        self,
        entry: Entry,
        loaded: Sequence[LoadedAttempt],
        rules: Rules | None = None,
        *,
        tree: Tree | None = None,
    ) -> Judged:
        """Judge an entry by its attempts, by the facts of the run that has sent or reused them.

        ``tree``: of the last attempt, where that is known already.
        """
        run = self.run_facts(self._run_of(loaded[-1].own.job) if loaded else self._own)
        attempts = [self._attempt(entry, one) for one in loaded]
        if tree is not None and attempts:
            tree.announce(attempts[-1].own.facts)
            attempts[-1] = Attempt(attempts[-1].own, tree if tree else None)
        return Judged(entry, loaded, judge(entry, attempts, run, rules))

    def descendant(self, entry: Entry, root: Job, facts: JobFacts) -> Descendant:
        """Judge a task that an attempt of this entry, the ``root``, has started."""
        run = self.run_facts(self._run_of(root))
        return judge_descendant(entry, root, self._believed(facts), run)

    def as_of(self, judged: Judged, seq: int) -> Judged:
        """Judge it by what was known up to a number of the ledger's order."""
        loaded = [
            LoadedAttempt(
                one.own.until(seq),
                [each.until(seq) for each in one.descendants if each.job.seq <= seq],
            )
            for one in judged.attempts
            if one.own.job.seq <= seq
        ]
        if not loaded:
            return judged
        run, then = self._run_of(loaded[-1].own.job), copy(self)
        then._runs = {run: self.run_facts(run).until(seq)}
        return then.judge(judged.entry, loaded)

    def excuses(self, entry: str, task_id: str) -> Sequence[StoreFact | SetBack]:
        """Return what its run knew of store and clock that excuses the reports of an attempt.

        Of an attempt that another run reuses it is among the job's own facts.
        """
        for one in self._jobs.of_entries([entry], trees=False)[entry]:
            job, run = one.own.job, self.run_facts(self._run_of(one.own.job))
            if job.task_id == task_id and job.reused is None and run.has_doubts:
                return excuses(one.own, Identity(job.run, entry, job.number, task_id), run)
        return ()

    def run_facts(self, run: str) -> RunFacts:
        if run not in self._runs:
            found = self._jobs.run_facts(run)
            self._runs[run] = replace(found, facts=(*found.facts, *self._also))
        return self._runs[run]

    def _run_of(self, job: Job) -> str:
        run = job.run if job.reused is None else job.reused.by
        return run if run in self._merged else self._own

    def _attempt(self, entry: Entry, one: LoadedAttempt) -> Attempt:
        own = self._believed(one.own)
        tree = Tree(own.job.task_id)
        tree.announce(own.facts)
        for facts in one.descendants:
            tree.add(self.descendant(entry, own.job, facts))
        return Attempt(own, tree if tree else None)

    def _believed(self, job: JobFacts) -> JobFacts:
        """Return a job's facts with its ends believed by the present keys, where these count."""
        if self._signatures is None or not job.each(Ended):
            return job
        signatures = self._signatures.of(job.job.run)
        checked = (
            replace(one, fault="" if signatures is None else signatures.fault_of(one.receipt))
            if isinstance(one, Ended)
            else one
            for one in job.facts
        )
        return replace(job, facts=tuple(checked))


def recorded(judged: Judged) -> tuple[Verdict, Receipt | None]:
    """Return a judgement as a ledger keeps it, with the receipt that counts."""
    entry, attempts, judgement = judged
    found, receipt = judgement.finding, judgement.receipt
    reason, mismatches = found.reason, found.mismatches
    verdict = verdict_of(entry.id, judgement.attempt, found.status, reason, mismatches)
    origin = attempts[-1].own.job.reused if attempts else None
    if receipt is not None and origin is not None:
        mark = Reuse(run=origin.by, entry=entry.id, at=origin.at)
        receipt = receipt.model_copy(update={"reused": mark})
    return verdict, receipt


def receipt_that_counts(ledger: Ledger, task_id: str) -> Receipt | None:
    """Return the receipt by which a job has ended, with what its starts know; None: it has none."""
    receipts = ledger.events.receipts(task_id)
    if not receipts:
        return None
    first = receipts[0][1]
    at, of = utc_now(), Identity(first.run, first.entry, first.attempt, task_id)
    starts = ledger.events.starts(task_id)
    facts: list[JobFact] = [started_of(one, 0, at, FactSource.WORKER) for one in starts]
    facts += [
        end_of(number, at, task_id, receipt, execution)
        for number, (execution, receipt) in enumerate(receipts, 1)
    ]
    job = JobFacts(Job(task_id=task_id, entry="", number=0, run="", seq=0, at=at), tuple(facts))
    traces = traces_of(job, of)
    ends = counted_ends(job, traces, 0)
    return complete_receipt(ends[-1].receipt if ends else receipts[-1][1], traces.starts)


def end_of(
    seq: int,
    at: datetime,
    job: str,
    receipt: Receipt,
    execution: str | None = None,
    fault: str = "",
) -> Ended | Stored:
    """Return the fact of a job's end, by who reports it."""
    if receipt.source == "worker":
        return Ended(seq=seq, at=at, job=job, receipt=receipt, execution=execution, fault=fault)
    by = FactSource.STORE
    return Stored(seq=seq, at=at, source=by, job=job, receipt=receipt, fault=fault)


def is_same(judged: Judged, stored: StoredReason) -> bool:
    """Return whether a judgement is as stored; of what goes on its status is enough."""
    found, reason = judged.judgement.finding, stored.reason
    if found.status != stored.status:
        return False
    if found.status == "pending" or not reason:
        return True
    known = reason.get("why") if reason.get("code") == Left.code else reason
    return found.reason.document() == known
