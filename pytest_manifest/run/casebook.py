"""Take in what is reported of a run's jobs, each as a fact, once; and judge them as it goes on.

By memory where a job goes its usual way, else by its ledger; what is not signed is refused where a
run trusts its workers' keys alone.

Every final receipt passes here on its way to the ledger. Ends that the result store alone reports,
or has in a form that cannot be read here, are held back: Celery 5.7 has every worker that hears of
a revocation store it, also for a job that waits in a queue, or that another worker runs. And a task
can store an end of its own in the middle of its work (``update_state``); our worker, which reported
the start, would report the real end. So the job is searched for instead: only where it is then
missing has it come to that end.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import Final, TypeAlias

from pytest_manifest.broker.attempt import Attempt as Sent
from pytest_manifest.errors import LedgerError, ManifestToolError, SigningError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger, utc_now
from pytest_manifest.ledger.facts import end_of
from pytest_manifest.ledger.jobs import BATCH
from pytest_manifest.ledger.run_info import key_of
from pytest_manifest.log import log_failure
from pytest_manifest.redaction.texts import redact
from pytest_manifest.run.connections import Part, WorkerDeaths
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.inflight import PendingAttempt, PendingAttempts
from pytest_manifest.run.search import JobSearch
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Announced, Ended, HandedOn, Job, Started
from pytest_manifest.schema.run_facts import JobFact, JobFacts
from pytest_manifest.schema.statuses import BAD, GIVEN_UP, OF_ITS_PROCESS, outcome
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.signing import SIGNING_KEY_VARIABLE, read_verifier
from pytest_manifest.text import listed
from pytest_manifest.verdict.belief import is_revocation_notice, is_stored_at
from pytest_manifest.verdict.judge import Attempt, Judgement, judge
from pytest_manifest.verdict.judging import Judging
from pytest_manifest.verdict.problems import NotJudged
from pytest_manifest.verdict.reasons import Finding, verdict_by
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
            "not among those that are trusted: add its .pub file to that of manifest_receipt_key, "
            "or give your workers the right key."
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
            "name them by manifest_receipt_key, the .pub file of the workers' key"
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


Sendable: TypeAlias = Sent | PendingAttempt
Evaluated: TypeAlias = tuple[Verdict, Receipt | None]
"""A verdict on an entry, and the receipt that counts."""


class Casebook:
    """The casebook of a run; for its thread, after the facts of a moment were written."""

    def __init__(self, ledger: Ledger, *, has_stream: bool = True) -> None:
        self.ledger = ledger
        self._run = ledger.info.read().run
        self._run_of = ledger.info.task_runs().run_of
        self._has_stream = has_stream
        self._added = -1
        self._judging: Judging | None = None
        self._has_starts = False
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
            self._added = added
            self._judging = Judging(self.ledger, has_stream=self._has_stream)
        return self._judging

    def note_starts(self) -> None:
        """Note that starts were recorded: the first one of all is a fact of the run."""
        if not self._has_starts:
            self._has_starts, self._judging = True, None

    # Attempts

    def judge(self, jobs: Iterable[PendingAttempt]) -> Iterator[tuple[PendingAttempt, Judgement]]:
        """Judge attempts that are in flight, or that await their descendants."""
        others: list[PendingAttempt] = []
        for job in jobs:
            if job.facts is None:
                others.append(job)
                continue
            try:
                found = self.by_memory(job, job.facts)
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

    def by_memory(self, attempt: Sendable, facts: Sequence[JobFact] = ()) -> Judgement:
        """Judge an attempt by these facts: all that there are, or all that matter."""
        job = JobFacts(_job(attempt, attempt.run), tuple(facts))
        return judge(attempt.entry, [Attempt(job)], self.judging.run_facts(self._run))

    # Trees

    def tree(self, attempt: PendingAttempt) -> Tree:
        """Return what became of an attempt's descendants, as far as they have ended."""
        root = attempt.task_id
        tree = self._trees.get(root)
        if tree is not None:
            return tree
        tree = self._trees[root] = Tree(root)
        part = self.ledger.descendants
        if root in part.roots([root]) or self.ledger.events.of(Announced, root):
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
    return verdict_by(attempt.entry.id, attempt.number, found.finding), found.receipt


def not_judged(entry: Entry, error: Exception) -> NotJudged:
    """Log that a job could not be judged; return why. Raises ManifestToolError again."""
    if isinstance(error, ManifestToolError):
        raise error
    log_failure(f"{entry.id!r} could not be judged", error, entry=entry.id)
    fault = redact(f"{type(error).__name__}: {error}").encode("utf-8", "replace").decode()
    return NotJudged(error=fault)


@dataclass(frozen=True, slots=True)
class Correction:
    """Hold an entry's verdict that was changed after it had been reported."""

    before: VerdictStatus
    verdict: Verdict

    @property
    def is_worse(self) -> bool:
        """Return whether the entry's test, which has run, should have failed the session."""
        after = self.verdict.verdict
        shown = outcome(after)
        return shown in BAD or after == "withdrawn" or self.before == "passed" != shown


def is_no_news(before: VerdictStatus, after: VerdictStatus) -> bool:
    """Return whether a later verdict says no more than the one before it.

    What was given up at its deadline, or when the run was stopped, is taken back then, and its
    worker says so.
    """
    return after == before or (before in GIVEN_UP and after == "revoked")


# What is reported

FinalReceipt = tuple[str, str | None, Receipt]
"""Task id, execution, receipt."""


@dataclass(eq=False)
class UnconfirmedEnds:
    """Keep ends that only the store reports at the pending attempts. For one thread."""

    _pending: PendingAttempts
    _search: JobSearch | None
    _facts: FactLog
    _confirmed: set[str] = field(default_factory=set)
    _holds_revoked: bool = False

    def hold_revoked(self) -> None:
        """Hold back from here on also what a worker itself says that it revoked before it began it.

        The run takes back what waits, as its time is over: then that is why the job did not run. A
        worker drops a job that it has taken in advance once it could begin it.
        """
        self._holds_revoked = True

    def confirm_missing(self, nowhere: Iterable[str]) -> list[str]:
        """Count what the store reports of these from here on: no worker has them any more.

        Not where the process is gone: it may have died in its work, which the store cannot tell.
        Returns which of them that is.
        """
        found = [task_id for task_id in nowhere if self.is_to_be_confirmed(task_id)]
        self._confirmed.update(found)
        return found

    def is_to_be_confirmed(self, task_id: str) -> bool:
        """Return whether the store has told an end of this one since it was searched for last.

        It was on its way to a worker then, and may have run since. Not where its process is gone.
        """
        job = self._pending.by_task_id.get(task_id)
        if job is None or job.unconfirmed is None or is_revocation_notice(job.unconfirmed):
            return False
        return task_id not in self._confirmed and not self._facts.has_died(job)

    def confirmed(
        self, finals: Iterable[FinalReceipt], starts: Sequence[Started] = ()
    ) -> list[FinalReceipt]:
        """Return the receipts that count; search soon for a job with a new unconfirmed end.

        Such an end is found in the store again at each poll.
        """
        receipts, fresh = [], False
        started = {start.job for start in starts}
        for final in finals:
            job = self._pending.by_task_id.get(final[0])
            if not self._is_doubtful(final, job, started):
                receipts.append(final)
                continue
            self._facts.reported(*final)
            if job is not None and job.unconfirmed is None:
                job.unconfirmed, fresh = final[2], True
        if fresh and self._search is not None:
            self._search.schedule(time.monotonic())
        return receipts

    def _is_doubtful(
        self, final: FinalReceipt, job: PendingAttempt | None, started: Container[str]
    ) -> bool:
        task_id, _, receipt = final
        if is_revocation_notice(receipt):
            return True
        if self._holds_revoked and job is not None and receipt.state == "revoked":
            return not (job.is_running or task_id in started)
        if receipt.source != "backend" or job is None or self._search is None:
            return False
        goes_on = job.started is not None and not job.was_split
        return (goes_on or task_id in started) and task_id not in self._confirmed


@dataclass(eq=False)
class Intake(Part):
    """Record reports as facts, within the transactions of the run's thread."""

    _cases: Casebook
    _deaths: WorkerDeaths
    _search: JobSearch | None

    def add(
        self,
        starts: Sequence[Started],
        handed_on: Sequence[HandedOn],
        finals: Sequence[FinalReceipt],
        now: float,
    ) -> dict[str, None]:
        """Record what workers report of jobs; return those to be judged by it."""
        touched = self._add_starts(starts, now)
        touched |= self._add_handed_on(handed_on)
        return touched | self._add_ends(finals)

    def _add_starts(self, starts: Sequence[Started], now: float) -> dict[str, None]:
        """Record starts; return the jobs that had started before, or ended."""
        self._context.departures.hear_starts(starts, now)
        first: dict[str, Started] = {}
        repeated: dict[str, list[Started]] = {}
        for start in starts:
            self._deaths.has_started(start.worker)
            name = start.job
            job = self._pending.by_task_id.get(name)
            if job is None or job.started is not None or name in first:
                repeated.setdefault(name, []).append(start)
            else:
                first[name] = start
        seq = self._ledger.events.add(first.values())
        for start in starts:
            is_first = first.get(start.job) is start
            self._pending.started(start, now, seq if is_first else 0)
        for task_id, again in repeated.items():
            add_repeated_starts(self._ledger, self._facts, task_id, again)
        if starts:
            self._cases.note_starts()
        return dict.fromkeys(repeated)

    def _add_handed_on(self, ends: Sequence[HandedOn]) -> dict[str, None]:
        """Record ends of executions whose jobs go on; return those that were deaths."""
        self._ledger.events.add(ends)
        for end in ends:
            self._pending.handed_on(end)
            self._context.meet_next_try(end)
        return dict.fromkeys(end.job for end in ends if end.how == HANDED_ON_AFTER_DEATH)

    def _add_ends(self, finals: Sequence[FinalReceipt]) -> dict[str, None]:
        """Record ends; return their jobs.

        Where the start of one is not known, the store is looked at: has it lost some?
        """
        first, now = self._ledger.facts.last_seq() + 1, utc_now()
        ends = [
            end_of(seq, now, task_id, receipt, execution)
            for seq, (task_id, execution, receipt) in enumerate(finals, first)
        ]
        self._ledger.events.add(ends)
        unknown: dict[str, set[str]] = {}
        for end, (task_id, execution, receipt) in zip(ends, finals, strict=True):
            job = self._pending.by_task_id.get(task_id)
            facts = None if job is None else job.facts
            if facts is not None:
                facts.append(end)
            if execution is None or receipt.state not in OF_ITS_PROCESS:
                continue
            if job is None or job.execution != execution:
                unknown.setdefault(task_id, set()).add(execution)
        if self._lacks_starts(unknown):
            self._context.look_for_losses()
        return dict.fromkeys([task_id for task_id, _, _ in finals])

    def _lacks_starts(self, executions: Mapping[str, Set[str]]) -> bool:
        """Return whether the start of one of these executions of jobs is not known."""
        if not executions:
            return False
        starts = self._ledger.events.each(Started, list(executions))
        return any(
            not some <= {one.execution for one in starts.get(task_id, ())}
            for task_id, some in executions.items()
        )

    def without_earlier(self, finals: Sequence[FinalReceipt]) -> Sequence[FinalReceipt]:
        """Return these without what is stored of an execution after which the job goes on.

        The store has that at each poll: it is no news, after which nothing would be searched for.
        """
        earlier = [final for final in finals if self._is_earlier(*final)]
        for one in earlier:
            self._facts.reported(*one)
        return [final for final in finals if final not in earlier] if earlier else finals

    def _is_earlier(self, task_id: str, execution: str | None, end: Receipt) -> bool:
        """Return whether the store has this of an execution that has sent its job's message again.

        A task may do so and succeed (``retry(throw=False)``), or be killed: the last of its runs
        decides.
        """
        job = self._pending.by_task_id.get(task_id)
        if execution is not None or job is None or job.start is None:
            return False
        handed_on = self._ledger.events.of(HandedOn, task_id)
        again = {one.execution for one in handed_on if one.how != "canvas"}
        ends = (one for name, one in self._ledger.events.receipts(task_id) if name in again)
        return is_stored_at(end, [one.finished_at for one in ends])

    def note_unsigned(self, ends: Iterable[tuple[str, str, Receipt]], now: float) -> None:
        """Keep that ends were reported which no worker has signed, and search for their jobs.

        A job goes on being awaited: its true end may come yet.
        """
        first = False
        for task_id, fault, receipt in ends:
            self._facts.reported(task_id, None, receipt, fault)
            if task_id in self._pending.by_task_id:
                first = self._facts.is_new("unsigned", task_id) or first
        if first and self._search is not None:
            self._search.schedule(now)


def add_repeated_starts(
    ledger: Ledger, facts: FactLog, task_id: str, starts: Iterable[Started]
) -> None:
    """Record starts of a job that may have some already.

    Two records of one start must be the same, and have to be of one worker. From two of its
    processes they are two starts: Celery's pool gives a job to another process when the first one
    has died before its worker has heard that it had begun.
    """
    known = ledger.events.starts(task_id)
    number = Counter(one.execution for one in known)
    identities = {_identity(one) for one in known}
    pids = defaultdict[tuple[object, ...], set[int | None]](set)
    for one in known:
        pids[_place(one)].add(one.pid)
    for start in starts:
        of_place = pids[_place(start)]
        # Those of its execution are all of its worker where there are as many as have a pid there.
        if number[start.execution] == len(of_place) and start.pid not in of_place:
            ledger.events.add([start])
            number[start.execution] += 1
            of_place.add(start.pid)
            identities.add(_identity(start))
        elif _identity(start) not in identities:
            facts.clashing(start)


def _place(start: Started) -> tuple[object, ...]:
    return start.execution, start.worker, start.host


def _identity(start: Started) -> tuple[object, ...]:
    return start.execution, start.started_at, start.retries, start.worker, start.host, start.pid
