"""Export receipts and the tasks that jobs started, and judge an exported file again.

A receipts file has a line for each descendant of the attempts that have the verdicts, after those
of the entries: what started it, how the run judged it, and its receipt. So an audit of the file
alone judges trees as the run did.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple

from pydantic_core import from_json

from pytest_manifest.broker.attempt import is_of_attempt, task_id_for
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Descendant, Ledger, RunInfo, utc_now
from pytest_manifest.ledger.attempts import Planned
from pytest_manifest.ledger.facts import end_of
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.rows import SendState, note_of
from pytest_manifest.ledger.rows import text as as_text
from pytest_manifest.ledger.run_info import REUSED_RUNS
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest import Manifest
from pytest_manifest.manifest.receipts import Exported, ReceiptIndex, descendant_line
from pytest_manifest.manifest.writer import dump_fields
from pytest_manifest.run.casebook import require_signatures
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.fact_log import OwnLimits
from pytest_manifest.schema import Entry, Receipt, Verdict, facts
from pytest_manifest.schema.receipts import ExportedDescendant, Judged
from pytest_manifest.schema.run_facts import JobFact, JobFacts, RunFacts, TaskFact
from pytest_manifest.schema.statuses import FIXED, OF_ITS_PROCESS
from pytest_manifest.schema.wire import parse_moment
from pytest_manifest.verdict import problems, reasons
from pytest_manifest.verdict import tree as of_tree
from pytest_manifest.verdict.judge import Attempt, judge, judge_descendant
from pytest_manifest.verdict.judging import receipt_that_counts, signatures_of


def exported_lines(ledger: Ledger) -> Iterator[bytes]:
    """Yield the lines of a run's receipts file: of entries, then of their descendants."""
    return chain(_receipt_lines(ledger), _descendant_lines(ledger))


def _receipt_lines(ledger: Ledger) -> Iterator[bytes]:
    limits, runs = OwnLimits(ledger), ledger.info.task_runs()
    sha256 = ledger.info.read().sha256
    kept = cache(partial(kept_manifest, ledger.path, sha256))  # hardly ever asked for
    for text, said in ledger.queries.raw_receipts():
        receipt, verdict = from_json(text), from_json(said)
        name, task = str(verdict["entry"]), str(receipt["task"])
        if receipt.get("replaced") and (manifest := kept()) is not None and name in manifest:
            task = manifest[name].task  # the limit is of the task that was sent
        by = receipt.get("reused")
        run = by["run"] if by else runs.run_of(str(receipt["task_id"]))
        since = by["at"] if by else receipt.get("sent_at")
        judged = {"verdict": verdict["verdict"]}
        if verdict["verdict"] != "passed":
            names = ("sentence", "reason", "mismatches")
            judged |= {name: verdict[name] for name in names if verdict.get(name)}
            judged["manifest"] = sha256
        own = limits.seconds(task, run, None if since is None else parse_moment(since))
        receipt["judged"] = judged if own is None else {**judged, "limit": own}
        yield dump_fields(Receipt, receipt)


def _descendant_lines(ledger: Ledger) -> Iterator[bytes]:
    if not ledger.descendants.any():
        return
    runs = ledger.info.task_runs()
    for one in ledger.trees.judged():
        receipt = None
        if one.receipt is not None:
            if one.status == "passed" and one.receipts == 1 and one.starts <= 1:
                receipt = one.receipt  # nothing else is known of it
            else:
                counted = receipt_that_counts(ledger, one.task_id)
                receipt = None if counted is None else counted.model_dump_json()
        yield descendant_line(
            {
                "run": runs.run_of(one.root),
                "entry": one.entry,
                "attempt": one.attempt,
                "root": one.root,
                "parent": one.parent,
                "task_id": one.task_id,
                "task": one.task,
                "how": one.how,
                "spawned_at": one.spawned_at,
            },
            one.verdict,
            receipt,
        )


# A receipts file has neither starts nor searches, so that no end is contradicted by these, and what
# is not in it is nowhere.
_TASK, _JOB, _SENT, _ENDED, _NOWHERE = range(5)
"""The order of the facts."""


class _Passage(NamedTuple):
    """An entry's one attempt, its verdict, and the receipt that the file has of it.

    ``origin``: of an attempt that the run has reused; ``is_by_it``: whether the receipt counts.
    """

    row: Planned
    verdict: Verdict
    received: Receipt | None = None
    origin: facts.Reused | None = None
    is_by_it: bool = False


class _Import:
    """Judge the entries of a manifest by the receipts of a file, into a ledger that is made of it.

    ``name``: of the file. The ledger has the keys that are trusted.
    """

    def __init__(self, manifest: Manifest, index: ReceiptIndex, name: str, ledger: Ledger) -> None:
        info = ledger.info.read()
        self._run, self._at = info.run, info.created_at
        self._manifest = manifest
        self._index = index
        self._name = name
        self._ledger = ledger
        self._signatures = signatures_of(ledger)
        self._entry: Entry | None = None
        self.strange = 0
        """How many descendants are of no attempt of the run, and left out."""

    # Descendants

    def add_descendants(self) -> None:
        """Record all of them, with their receipts and verdicts, in batches."""
        lines = self._index.descendants()
        while some := list(islice(lines, BATCH)):
            known = ((self._entry_of(one), one) for one in some)
            ours = [(entry, one) for entry, one in known if entry is not None]
            self.strange += len(some) - len(ours)
            with self._ledger.transaction():
                self._add(ours)

    def _entry_of(self, one: ExportedDescendant) -> str | None:
        """Return the entry whose tree it is of; None where that is none of the run's.

        Of a job that was reused that is the entry which reuses it.
        """
        if not is_of_attempt(one.root, one.run, one.entry, one.attempt):
            return None
        entry = one.entry if one.run == self._run else self._index.reusing_entry(one.root)
        return entry if entry is not None and entry in self._manifest else None

    def _add(self, some: list[tuple[str, ExportedDescendant]]) -> None:
        self._ledger.descendants.add(
            Descendant(
                *(one.task_id, one.root, one.parent, one.task, one.how), spawned_at=one.spawned_at
            )
            for _, one in some
        )
        self._ledger.events.add(
            end_of(0, utc_now(), one.task_id, one.receipt)
            for _, one in some
            if one.receipt is not None
        )
        verdicts = {one.task_id: self._verdict(entry, one) for entry, one in some}
        self._ledger.descendants.end({i: one for i, one in verdicts.items() if one is not None})

    def _verdict(self, name: str, one: ExportedDescendant) -> Verdict | None:
        """Judge a descendant by its receipt; that it has not passed is believed without one."""
        if one.verdict is None or one.verdict.verdict != "passed":
            return one.verdict
        if one.receipt is None:
            reason = problems.NoReceipt()
            return reasons.verdict_of(one.entry, one.attempt, "unknown", reason)
        if self._entry is None or self._entry.id != name:
            self._entry = self._manifest[name]
        entry, origin = self._entry, None
        if one.run != self._run:
            at, by = self._at, self._run
            origin = facts.Reused(run=one.run, entry=one.entry, attempt=one.attempt, by=by, at=at)
        root = self._job(entry.id, one.root, one.attempt, origin)
        spawn = _spawn_of(one)
        job = self._job(entry.id, one.task_id, one.attempt, spawn=spawn)
        known = JobFacts(job, self._facts(job, None, one.receipt))
        found = judge_descendant(entry, root, known, self._run_facts(one.task, None)).finding
        return reasons.verdict_by(one.entry, one.attempt, found)

    # Facts

    def _job(
        self,
        entry: str,
        task_id: str,
        number: int,
        reused: facts.Reused | None = None,
        spawn: facts.Spawn | None = None,
    ) -> facts.Job:
        return facts.Job(
            task_id=task_id,
            entry=entry,
            number=number,
            run=self._run,
            seq=_JOB,
            at=self._at,
            why="first" if reused is None else "reuse",
            reused=reused,
            spawn=spawn,
        )

    def _run_facts(self, task: str, limit: float | None) -> RunFacts:
        known = TaskFact(seq=_TASK, at=self._at, task=task, limit=limit)
        return RunFacts(
            run=self._run,
            created_at=self._at,
            is_private=False,
            signed_only=self._signatures is not None,
            has_stream=False,
            facts=() if limit is None else (known,),
        )

    def _facts(
        self, job: facts.Job, sent_at: datetime | None, receipt: Receipt
    ) -> tuple[JobFact, ...]:
        """Return that a job was sent, that it ended so, and that nothing else is known of it."""
        task_id, at = job.task_id, self._at
        fault = "" if self._signatures is None else self._signatures.fault_of(receipt)
        end = end_of(_ENDED, at, task_id, receipt, fault=fault)
        nowhere = facts.Nowhere(seq=_NOWHERE, at=at, job=task_id, as_of=_ENDED)
        if job.spawn is not None:
            return end, nowhere
        sending = facts.Sending(seq=_SENT, at=at, job=task_id, number=1, sent_at=sent_at)
        result = facts.SendResult(seq=_SENT, at=at, job=task_id, number=1, outcome="published")
        return sending, result, end, nowhere

    # Entries

    def add_entries(self) -> None:
        """Record the outcome of all entries in batches, in the manifest's order."""
        entries = enumerate(self._manifest)
        while some := list(islice(entries, BATCH)):
            received = self._index.take([entry.id for _, entry in some])
            passages = [
                self._passage(place, entry, exported)
                for (place, entry), exported in zip(some, received, strict=True)
            ]
            origins = {one.origin.run for one in passages if one.origin is not None}
            with self._ledger.transaction():
                self._ledger.attempts.plan(one.row for one in passages)
                self._ledger.events.add(
                    end_of(0, self._at, one.row.task_id, one.received)
                    for one in passages
                    if one.received is not None
                )
                self._ledger.verdicts.record(
                    (one.verdict, one.received if one.is_by_it else None) for one in passages
                )
                self._ledger.info.add_texts(REUSED_RUNS, origins)

    def _passage(self, place: int, entry: Entry, exported: Exported | None) -> _Passage:
        if exported is None:
            why = problems.NotExported(file=self._name)
            verdict = reasons.verdict_without_receipt(entry, None, "unknown", why)
            row = Planned(task_id_for(self._run, entry.id, 1, place), entry.id, 1, place)
            return _Passage(row, verdict)
        receipt, by = exported.receipt, exported.receipt.reused
        origin, number = None, max(receipt.attempt, 1)
        sent_as = self._run, entry.id, number
        if by is not None:
            sent_as = receipt.run, receipt.entry, receipt.attempt
            (run, name, was), number = sent_as, 0
            origin = facts.Reused(run=run, entry=name, attempt=was, by=by.run, at=by.at)
        task_id = receipt.task_id  # with the place that the entry had when it was sent
        if not is_of_attempt(task_id, *sent_as):
            task_id = task_id_for(*sent_as, place)
        verdict, counted = self._judge(entry, self._job(entry.id, task_id, number, origin), receipt)
        # That it has reused it pytest says, and signs not: whoever edits the file can say so.
        if by is not None and verdict.verdict == "passed" and self._signatures is not None:
            reused = problems.ReuseNotSigned(run=receipt.run, by=by.run)
            verdict, counted = reasons.verdict_without_receipt(entry, 0, "unknown", reused), None
        sent_at, note = as_text(receipt.sent_at), None if origin is None else note_of(origin)
        state: SendState = "sent" if origin is None else "reused"
        row = Planned(task_id, entry.id, number, place, None, state, sent_at, note)
        return _Passage(row, verdict, receipt, origin, is_by_it=counted is not None)

    def _judge(
        self, entry: Entry, job: facts.Job, receipt: Receipt
    ) -> tuple[Verdict, Receipt | None]:
        """Judge a job by its receipt and its tree, and by what its run has said of it.

        That it did not pass is believed; that it did is held against the receipt, and against the
        time limit that its task had.
        """
        judged = receipt.judged
        if judged is not None and self._stands(judged, receipt):
            verdict = Verdict(
                verdict=judged.verdict,
                entry=entry.id,
                attempt=job.number,
                sentence=judged.sentence or "",
                reason=judged.reason,
                mismatches=judged.mismatches,
            )
            return verdict, receipt
        known = JobFacts(job, self._facts(job, receipt.sent_at, receipt))
        attempt = Attempt(known, self._tree(entry, job) or None)
        limit = None if judged is None else judged.limit
        found = judge(entry, [attempt], self._run_facts(entry.task, limit))
        if found.status == "passed" and judged is None and _may_have_outrun(entry, receipt):
            why = problems.LimitNotExported(file=self._name)
            return reasons.verdict_without_receipt(entry, job.number, "unknown", why), None
        return reasons.verdict_by(entry.id, job.number, found.finding), found.receipt

    def _tree(self, entry: Entry, job: facts.Job) -> of_tree.Tree:
        """Return what became of the tasks that a job has started."""
        tree = of_tree.Tree(job.task_id)
        for one in self._ledger.descendants.of_root(job.task_id):
            ends = [end for _, end in self._ledger.events.receipts(one.task_id)]
            counts = [end.children for end in ends if end.children is not None]
            found = reasons.Finding("pending", reasons.UNEXPLAINED)
            if (said := one.verdict) is not None:
                found = reasons.Finding(said.verdict, reasons.reason_of(said), said.mismatches)
            tree.add(
                of_tree.Descendant(
                    self._job(entry.id, one.task_id, job.number, spawn=_spawn_of(one)),
                    found,
                    has_end=bool(ends),
                    children=max(counts, default=0),
                    is_silent=not counts and any(end.state in OF_ITS_PROCESS for end in ends),
                )
            )
        return tree

    def _stands(self, judged: Judged, receipt: Receipt) -> bool:
        """Return whether what the run has said of a job holds, whatever its receipt says."""
        if judged.verdict == "passed":
            return False
        if judged.verdict in FIXED or judged.manifest == self._manifest.sha256:
            return True
        if any(one.path == "code" for one in judged.mismatches):
            return True
        # By whom it was revoked the receipt does not say.
        return judged.verdict == receipt.state == "revoked"


def _spawn_of(one: ExportedDescendant | Descendant) -> facts.Spawn:
    return facts.Spawn(
        root=one.root, parent=one.parent, task=one.task, how=one.how, spawned_at=one.spawned_at
    )


SHORTEST_LIMIT: Final = 1.0
"""Seconds: a task that ran no longer was within any time limit that it may have had."""
NO_RUN = "no-receipts"
"""The run id of a file without receipts."""


def ledger_of_receipts(
    manifest: Manifest,
    file: Path,
    scratch: Path,
    receipt_keys: str | None = None,
) -> tuple[Path, list[str]]:
    """Make a ledger of exported receipts alone; return it and notes about oddities in them.

    ``receipt_keys``: the public keys, as PEM, by one of which each must be signed; None: by none.
    Raises LedgerError where the file holds receipts of several runs, ManifestError where it cannot
    be read.
    """
    with ReceiptIndex(file) as index:
        run = min(index.runs, default=NO_RUN)
        path = RunFiles.of(scratch, run).ledger
        with Ledger.create(path, _info(manifest, run)) as ledger:
            ledger.disable_journal()
            require_signatures(ledger, receipt_keys)
            made = _Import(manifest, index, file.name, ledger)
            if len(index.runs) <= 1:
                made.add_descendants()
                made.add_entries()
            strange, doubled = index.finish()
            if len(index.runs) > 1:
                runs = ", ".join(sorted(index.runs)[:3])
                raise LedgerError(
                    f"{file}: holds receipts of several runs ({runs}); name the file of one of "
                    "them, RUN.receipts.jsonl, or audit the merged ledger itself (--manifest-run)"
                )
            ledger.info.set_status("finished")
    notes = []
    if strange:
        notes.append(f"{file.name}: {strange} receipts are of entries that are not in the manifest")
    if made.strange:
        notes.append(f"{file.name}: {made.strange} lines of descendants are of no attempt of it")
    if doubled:
        notes.append(f"{file.name}: {doubled} receipts are of an attempt that has another one")
    return path, notes


def _info(manifest: Manifest, run: str) -> RunInfo:
    return RunInfo(
        run=run,
        manifest=manifest.path.resolve(),
        sha256=manifest.sha256,
        workflow=manifest.header.workflow,
        mode=manifest.header.mode,
        entries=len(manifest),
        created_at=utc_now(),
        broker="",
        backend="",
        is_private=False,
        stream_ttl=0,
    )


def _may_have_outrun(entry: Entry, receipt: Receipt) -> bool:
    """Return whether a job may have run longer than a limit of its task that is not known.

    A timeout that the entry has is the limit then, and no limit is below a second.
    """
    if "timeout" in entry.model_fields_set or receipt.source != "worker":
        return False
    return receipt.runtime is not None and receipt.runtime > SHORTEST_LIMIT
