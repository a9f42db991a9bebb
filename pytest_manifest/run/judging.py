"""Judge entries by the facts that a ledger has of them, or that memory has of a job's usual way.

And by the keys that a run trusts: its ledger keeps them, so that whoever judges it again does so by
the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from loguru import logger

from pytest_manifest.broker.attempt import Attempt as Sent
from pytest_manifest.errors import LedgerError, ManifestToolError, SigningError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger, key_of, utc_now
from pytest_manifest.ledger.facts import started_of
from pytest_manifest.ledger.jobs import BATCH, LoadedAttempt
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.log import log_failure
from pytest_manifest.redaction import redact
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
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
from pytest_manifest.schema.statuses import GIVEN_UP
from pytest_manifest.signing import SIGNING_KEY_VARIABLE, read_verifier
from pytest_manifest.text import listed
from pytest_manifest.verdict.belief import (
    Identity,
    complete_receipt,
    counted_ends,
    excuses,
    traces_of,
)
from pytest_manifest.verdict.judge import Attempt, Judgement, Rules, judge, judge_descendant
from pytest_manifest.verdict.problems import Left, NotJudged
from pytest_manifest.verdict.reasons import Finding, verdict_of
from pytest_manifest.verdict.signatures import ReportSignatures
from pytest_manifest.verdict.tree import Descendant, Tree


def signing_refusals(signers: Mapping[str, str | None], pem: str | None) -> list[str]:
    """Refuse to send to workers whose receipts would not count.

    ``signers``: by worker, the id of the key that it signs with, None where it signs nothing.
    """
    if not pem:
        return []
    trusted = read_verifier(pem, RECEIPT_KEYS).key_ids
    silent = sorted(name for name, key in signers.items() if key is None)
    others = sorted(name for name, key in signers.items() if key and key not in trusted)
    refused = []
    if silent:
        refused.append(
            f"signed receipts are required, and {listed(silent, SHOWN)} sign nothing: start your "
            f"workers with -I pytest_manifest.worker and with {SIGNING_KEY_VARIABLE}, the file of "
            "their private key; a stock worker cannot sign."
        )
    if others:
        refused.append(
            f"signed receipts are required, and {listed(others, SHOWN)} sign with a key that is "
            "not among those that are trusted: add its .pub file to --manifest-receipt-key, or "
            "give your workers the right key."
        )
    return refused


SHOWN: Final = 3
"""Workers that a message names."""


def require_signatures(ledger: Ledger, pem: str | None) -> bool:
    """Have receipts count only where one of these keys, or of those before, has signed them.

    None: as before. Returns whether the keys are others than before. Raises SigningError for "",
    none anew, where there are none before.
    """
    if pem is None:
        return False
    names = [RECEIPT_KEYS, *(key_of(RECEIPT_KEYS, run) for run in ledger.info.merged())]
    before = {name: ledger.info.get_meta(name) for name in names}
    keys = {name: merged_keys([known, pem]) for name, known in before.items()}
    if not keys[RECEIPT_KEYS]:
        raise SigningError(
            "signed receipts are required, and this run has no keys to check them by; "
            "name them by --manifest-receipt-key=FILE, the .pub file of the workers' key"
        )
    for name, trusted in keys.items():
        ledger.info.set_meta(name, trusted)
    return keys != before


def merged_keys(several: Sequence[str | None]) -> str:
    """Return the keys of several texts, each once."""
    text = "".join(one for one in several if one)
    return read_verifier(text, RECEIPT_KEYS).pem() if text else ""


def merged_signatures(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return what the ledger of a merged run has of signatures, of the ledgers that it is made of.

    Each run's attempts are judged by its own keys. Raises LedgerError where some of these need them
    and others do not: a run has one rule for all.
    """
    keys = [one.get(RECEIPT_KEYS) for one in metadata]
    if any(keys) and not all(keys):
        raise LedgerError(
            "some of these runs take signed receipts alone and others do not, so what the merged "
            "one takes would hold for neither; judge them on their own"
        )
    return {RECEIPT_KEYS: merged_keys(keys)} if all(keys) and keys else {}


def signatures_of(ledger: Ledger, run: str | None = None) -> ReportSignatures | None:
    """Return what checks the reports of this run; None where they need no signature.

    ``run``: one of those that it was merged of; without, all of their keys count.
    """
    info = ledger.info
    pem = info.get_meta(RECEIPT_KEYS) if run is None else info.of_run(RECEIPT_KEYS, run)
    return ReportSignatures(read_verifier(pem, RECEIPT_KEYS)) if pem else None


class SignaturesByRun:
    """Check the reports of each run whose attempts a ledger has by the keys of that run."""

    def __init__(self, ledger: Ledger) -> None:
        self.all = signatures_of(ledger)
        """Those of all runs; None where none of them needs a signature."""
        merged = ledger.info.merged() if self.all is not None else ()
        self._by_run = {run: signatures_of(ledger, run) for run in merged}

    def of(self, run: str) -> ReportSignatures | None:
        """Return what checks the reports of a run's attempts."""
        return self._by_run.get(run, self.all)


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


Sendable: TypeAlias = Sent | PendingAttempt
Evaluated: TypeAlias = tuple[Verdict, Receipt | None]
"""A verdict on an entry, and the receipt that counts."""


class _RunJudging(Judging):
    """Judge jobs of a run of which it is known whether workers can report starts to its store."""

    def __init__(self, ledger: Ledger, *, has_stream: bool) -> None:
        super().__init__(ledger)
        self._has_stream = has_stream

    def run_facts(self, run: str) -> RunFacts:
        return replace(super().run_facts(run), has_stream=self._has_stream)


class Casebook:
    """See the module. Use it from the run's thread, after the facts of a moment were written."""

    def __init__(self, ledger: Ledger, *, has_stream: bool = True) -> None:
        self.ledger = ledger
        self._run = ledger.info.read().run
        self._run_of = ledger.info.task_runs().run_of
        self._has_stream = has_stream
        self._added = -1
        self._judging: Judging | None = None
        self._facts: RunFacts | None = None
        self._trees: dict[str, Tree] = {}
        """Of attempts in flight what became of their descendants, by task id."""
        self.has_trees = ledger.descendants.any()
        """Whether some job has started a task: a look into the ledger for each would be felt."""

    # The run

    @property
    def judging(self) -> Judging:
        """Return what judges by the facts that the run has at this moment."""
        added = self.ledger.facts.of_run_added
        if self._judging is None or added != self._added:
            self._added, self._facts = added, None
            self._judging = _RunJudging(self.ledger, has_stream=self._has_stream)
        return self._judging

    @property
    def _run_facts(self) -> RunFacts:
        judging = self.judging
        if self._facts is None:
            self._facts = judging.run_facts(self._run)
        return self._facts

    def note_starts(self) -> None:
        """Note that starts were recorded: the first one of all is a fact of the run."""
        if self._facts is not None and self._facts.first_start is None:
            self._judging = None

    # Attempts

    def judge(self, jobs: Iterable[PendingAttempt]) -> Iterator[tuple[PendingAttempt, Judgement]]:
        """Judge attempts that are in flight, or that await their descendants."""
        others: list[PendingAttempt] = []
        for job in jobs:
            if job.facts is None:
                others.append(job)
                continue
            try:
                found = self._by_memory(job, job.facts)
            except Exception as error:  # one unforeseen receipt must not end the run for all
                found = self._unforeseen(job, error)
            yield job, found
        left = iter(others)
        while some := list(islice(left, BATCH)):
            names = [job.entry.id for job in some]
            loaded = self.ledger.jobs.of_entries(names, trees=False)
            for job in some:
                try:
                    tree = self.tree(job) if self.has_trees else None
                    found = self.judging.judge(job.entry, loaded[job.entry.id], tree=tree).judgement
                except Exception as error:  # as above
                    found = self._unforeseen(job, error)
                yield job, found

    def _unforeseen(self, job: PendingAttempt, error: Exception) -> Judgement:
        """Return what is said of a job that could not be judged: it goes on without a receipt."""
        why = not_judged(job.entry, error)
        receipts = self.ledger.events.receipts(job.task_id)
        if not receipts:
            return Judgement(Finding("pending", why), job.number)
        return Judgement(
            Finding("unknown", why), job.number, is_final=True, receipt=receipts[-1][1]
        )

    def judge_unsent(self, attempt: Sendable, facts: Sequence[JobFact] = ()) -> Judgement:
        """Judge an attempt that no broker has, by all facts that matter then."""
        return self._by_memory(attempt, facts)

    def judge_entries(self, entries: Iterable[Entry]) -> Iterator[Judged]:
        """Judge entries by all that the ledger has of them."""
        return self.judging.each(entries)

    def _by_memory(self, attempt: Sendable, facts: Sequence[JobFact]) -> Judgement:
        entry = attempt.entry
        job = _job(attempt, attempt.run)
        return judge(entry, [Attempt(JobFacts(job, tuple(facts)))], self._run_facts)

    # Trees

    def tree(self, attempt: PendingAttempt) -> Tree:
        """Return what became of an attempt's descendants, as far as they have ended."""
        root = attempt.task_id
        tree = self._trees.get(root)
        if tree is not None:
            return tree
        tree = self._trees[root] = Tree(root)
        part = self.ledger.descendants
        if root in part.roots([root]) or next(part.announced(root), None) is not None:
            loaded = self.ledger.jobs.of_entry(attempt.entry.id)
            own = next(one for one in loaded if one.own.job.task_id == root)
            for facts in own.descendants:
                found = self.judging.descendant(attempt.entry, own.own.job, facts)
                if not found.is_open:
                    tree.add(found)
        return tree

    def descendants(self, attempt: PendingAttempt, task_ids: Sequence[str]) -> list[Descendant]:
        """Judge tasks of an attempt's tree: those of these ids that are known."""
        entry, job = attempt.entry, _job(attempt, self._run_of(attempt.task_id))
        found: list[Descendant] = []
        for facts in self.ledger.jobs.of_tree(job, task_ids):
            try:
                found.append(self.judging.descendant(entry, job, facts))
            except Exception as error:  # as above
                status: VerdictStatus = "unknown" if facts.each(Ended) else "pending"
                found.append(Descendant(facts.job, Finding(status, not_judged(entry, error))))
        return found

    def forget(self, root: str) -> None:
        """Forget the tree of an attempt that has ended."""
        self._trees.pop(root, None)


_ANY_TIME: Final = datetime.min.replace(tzinfo=timezone.utc)
"""When an attempt was planned, which is of no account."""


def _job(attempt: Sendable, run: str) -> Job:
    name, entry = attempt.task_id, attempt.entry.id
    return Job(task_id=name, entry=entry, number=attempt.number, run=run, seq=0, at=_ANY_TIME)


def verdict_on(attempt: Sendable, found: Judgement) -> Evaluated:
    """Return a judgement as a verdict on the attempt's entry, and the receipt that counts."""
    reason, mismatches = found.finding.reason, found.finding.mismatches
    verdict = verdict_of(attempt.entry.id, attempt.number, found.status, reason, mismatches)
    return verdict, found.receipt


def keep_stored_end(ledger: Ledger, task_id: str, found: Judgement) -> None:
    """Keep an end that the result store alone has among the receipts, as it counts now."""
    end = found.stored_end
    if end is not None and all(end != one for _, one in ledger.events.receipts(task_id)):
        ledger.events.add_receipts([(task_id, None, end)])


def unforeseen_failure(
    entry: Entry, attempt: int, receipt: Receipt, error: Exception
) -> tuple[Verdict, Receipt]:
    """Return the verdict on an attempt whose receipt could not be judged.

    With the receipt: the job ran, so that it is not sent again for it. Raises ManifestToolError
    again, which concerns the whole run: the ledger, say, cannot be read.
    """
    why = not_judged(entry, error)
    verdict = verdict_of(entry.id, attempt, "unknown", why)
    return verdict, receipt


def not_judged(entry: Entry, error: Exception) -> NotJudged:
    """Log that a job could not be judged; return why. Raises ManifestToolError again."""
    if isinstance(error, ManifestToolError):
        raise error
    log_failure(f"{entry.id!r} could not be judged", error, entry=entry.id)
    fault = redact(f"{type(error).__name__}: {error}").encode("utf-8", "replace").decode()
    return NotJudged(error=fault)


@contextmanager
def failure_ignored(what: str) -> Iterator[None]:
    """Let a late receipt that cannot be judged change nothing."""
    try:
        yield
    except ManifestToolError:
        raise  # the ledger's, which are everybody's affair
    except Exception as error:  # the verdict that stands is as true as it was
        log_failure(f"{what} could not be judged", error)


@dataclass(frozen=True, slots=True)
class Correction:
    """Hold an entry's verdict that was changed after it had been reported."""

    before: VerdictStatus
    verdict: Verdict


def is_no_news(before: VerdictStatus, after: VerdictStatus) -> bool:
    """Return whether a later verdict says no more than the one before it.

    What was given up at its deadline, or when the run was stopped, is taken back then, and its
    worker says so.
    """
    return after == before or (before in GIVEN_UP and after == "revoked")


def note_correction(ledger: Ledger, before: VerdictStatus, verdict: Verdict) -> Correction:
    """Write down that an entry's reported verdict becomes this one; return that."""
    ledger.verdicts.note_correction(verdict.entry, verdict.attempt, verdict.verdict)
    logger.bind(entry=verdict.entry).info(
        "{!r} was {} and is {} now", verdict.entry, before, verdict.verdict
    )
    return Correction(before, verdict)
