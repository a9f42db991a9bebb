"""Judge entries by the facts that a ledger has of them, and by the keys that its run trusts."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from pytest_manifest.ledger import RECEIPT_KEYS, EntryVerdict, Ledger, utc_now
from pytest_manifest.ledger.facts import end_of
from pytest_manifest.ledger.jobs import BATCH, LoadedAttempt
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.documents import agree
from pytest_manifest.schema import Entry, Receipt, Verdict, exact
from pytest_manifest.schema.facts import Ended, Job, JobFact
from pytest_manifest.schema.receipts import Reuse, actual_cost
from pytest_manifest.schema.run_facts import JobFacts, RunFact, RunFacts, SetBack, StoreFact
from pytest_manifest.schema.statuses import TAKEN_BACK, UNSENT
from pytest_manifest.signing import read_verifier
from pytest_manifest.verdict import belief
from pytest_manifest.verdict.belief import Identity, counted_ends, traces_of
from pytest_manifest.verdict.case import complete_receipt, denies
from pytest_manifest.verdict.judge import Attempt, Judgement, Rules, judge, judge_descendant
from pytest_manifest.verdict.problems import Left
from pytest_manifest.verdict.reasons import verdict_by
from pytest_manifest.verdict.signatures import ReportSignatures
from pytest_manifest.verdict.tree import Descendant, Tree


def signatures_of(ledger: Ledger, run: str | None = None) -> ReportSignatures | None:
    """Return what checks the reports of this run; None where they need no signature.

    ``run``: one of those that it was merged of; without, all of their keys count.
    """
    info = ledger.info
    pem = info.get_meta(RECEIPT_KEYS) if run is None else info.of_run(RECEIPT_KEYS, run)
    return ReportSignatures(read_verifier(pem, RECEIPT_KEYS)) if pem else None


class Judged(NamedTuple):
    """An entry, its attempts with their facts, and what the judge says of them."""

    entry: Entry
    attempts: Sequence[LoadedAttempt]
    judgement: Judgement


@dataclass(eq=False)
class Judging:
    """Judge entries of one ledger, by the facts of its runs as of when they are first asked for.

    ``by_present_keys``: whether an end is believed is checked by the keys that the ledger has now,
    as where these are others than when it was reported. ``also``: facts of each run that are in no
    ledger; ``has_stream``: whether workers can report starts to the runs' store.
    """

    ledger: Ledger
    _: KW_ONLY
    by_present_keys: bool = False
    also: Sequence[RunFact] = ()
    has_stream: bool = True

    def __post_init__(self) -> None:
        ledger = self.ledger
        self._jobs = ledger.jobs
        self._own = ledger.info.read().run
        self._merged = frozenset(ledger.info.merged())
        self._runs: dict[str, RunFacts] = {}
        of_all = signatures_of(ledger) if self.by_present_keys else None
        self._signatures = of_all
        """Those of all runs; None where none of them needs a signature."""
        self._signatures_of: dict[str, ReportSignatures] = {}
        if of_all is not None:
            found = {one: signatures_of(ledger, one) or of_all for one in self._merged}
            self._signatures_of = found

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
            attempts[-1] = Attempt(attempts[-1].own, tree)
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

    def excuses(self, own: JobFacts) -> Sequence[StoreFact | SetBack]:
        """Return what its run knew of store and clock that excuses the reports of an attempt.

        Of an attempt that another run reuses it is among the job's own facts.
        """
        job, run = own.job, self.run_facts(self._run_of(own.job))
        if job.reused is not None or not run.has_doubts:
            return ()
        return belief.excuses(own, Identity(job.run, job.entry, job.number, job.task_id), run)

    def run_facts(self, run: str) -> RunFacts:
        if run not in self._runs:
            found = self._jobs.run_facts(run)
            all_facts = (*found.facts, *self.also)
            self._runs[run] = replace(found, facts=all_facts, has_stream=self.has_stream)
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
        return Attempt(own, tree)

    def _believed(self, job: JobFacts) -> JobFacts:
        """Return a job's facts with its ends believed by the present keys, where these count."""
        if self._signatures is None or not job.each(Ended):
            return job
        signatures = self._signatures_of.get(job.job.run, self._signatures)
        checked = (
            replace(one, fault=signatures.fault_of(one.receipt)) if isinstance(one, Ended) else one
            for one in job.facts
        )
        return replace(job, facts=tuple(checked))


def recorded(judged: Judged) -> tuple[Verdict, Receipt | None]:
    """Return a judgement as a ledger keeps it, with the receipt that counts."""
    entry, attempts, judgement = judged
    receipt = judgement.receipt
    verdict = verdict_by(entry.id, judgement.attempt, judgement.finding)
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
    facts: list[JobFact] = [*ledger.events.starts(task_id)]
    facts += [
        end_of(number, at, task_id, receipt, execution)
        for number, (execution, receipt) in enumerate(receipts, 1)
    ]
    job = JobFacts(Job(task_id=task_id, entry="", number=0, run="", seq=0, at=at), tuple(facts))
    traces = traces_of(job, of)
    ends = counted_ends(job, traces, 0)
    return complete_receipt(ends[-1].receipt if ends else receipts[-1][1], traces)


def is_same(judged: Judged, stored: StoredReason) -> bool:
    """Return whether a judgement is as stored; of what goes on its status is enough.

    What a resume has left is recorded as unknown, as long as nothing final is known of it.
    """
    judgement, reason = judged.judgement, stored.reason
    found, is_left = judgement.finding, reason.get("code") == Left.code
    status = found.status if judgement.is_final or not is_left else "unknown"
    if status != stored.status:
        return False
    if status == "pending" or not reason:
        return True
    return agree(reason.get("why") if is_left else reason, found.reason.document())


class Costs:
    """The costs of a run's attempts, in the entries' unit. Use it in the ledger's thread.

    What was reused has cost nothing: another run has paid for it. So has, as far as is known, what
    is not in the manifest.
    """

    def __init__(self, ledger: Ledger, manifest: Manifest) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._judging = Judging(ledger)
        self.reported = False
        """Whether a report of the attempts read so far has a cost."""

    def by_attempt(self, without: Container[str] = ()) -> Iterator[tuple[str, Decimal]]:
        """Yield ``(task id, cost)`` of all attempts but these."""
        names = (row.entry for row in self._ledger.attempts.newest())
        known = (name for name in names if name in self._manifest)
        while some := list(islice(known, BATCH)):
            loaded = self._ledger.jobs.of_entries(some, trees=False)
            for entry in map(self._manifest.__getitem__, some):
                judgement = self._judging.judge(entry, loaded[entry.id]).judgement
                self.reported = self.reported or judgement.reports_cost
                for task_id, cost in judgement.costs.items():
                    if task_id not in without:
                        yield task_id, cost

    def total(self) -> float:
        """Return the cost of the whole run."""
        return float(sum(cost for _, cost in self.by_attempt()))

    def of(self, task_id: str) -> Decimal | None:
        """Return an attempt's cost; None where the run has no such attempt."""
        row = self._ledger.attempts.get(task_id)
        if row is None or row.entry not in self._manifest:
            return None
        loaded = self._ledger.jobs.of_entries([row.entry], trees=False)[row.entry]
        judgement = self._judging.judge(self._manifest[row.entry], loaded).judgement
        self.reported = self.reported or judgement.reports_cost
        return judgement.costs.get(task_id)


def cost_of_verdict(settled: EntryVerdict, manifest: Manifest) -> Decimal:
    """Return an entry's cost as far as its verdict and receipt alone can tell."""
    verdict, receipt = settled.verdict, settled.receipt
    if receipt is not None and receipt.reused is not None:
        return exact(None)
    reported = None if receipt is None else actual_cost(receipt)
    if reported is not None:
        return exact(reported)
    if receipt is None:  # revoked by the run: the job reached no worker
        never_run = verdict.verdict in UNSENT | TAKEN_BACK
    else:
        never_run = denies(receipt, witnessed=False)
    return exact(None if never_run else manifest[verdict.entry].cost)
