"""Export receipts and the tasks that jobs started, and judge an exported file again.

A receipts file has a line for each descendant of the attempts that have the verdicts, after those
of the entries: what started it, how the run judged it, and its receipt. So an audit of the file
alone judges trees as the run did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Final

from pydantic_core import from_json

from pytest_manifest.broker.attempt import is_of_attempt, task_id_for
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Descendant, Ledger, ReusedFrom, RunInfo, utc_now
from pytest_manifest.ledger.facts import end_of
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.ledger.run_info import REUSED_RUNS
from pytest_manifest.ledger.transfers import ImportedEntry
from pytest_manifest.manifest import Manifest
from pytest_manifest.manifest.receipts import Exported, ReceiptIndex, descendant_line, receipt_line
from pytest_manifest.run.casebook import require_signatures
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.facts import (
    Job,
    Nowhere,
    Reused,
    Sending,
    SendResult,
    Spawn,
)
from pytest_manifest.schema.receipts import ExportedDescendant, Judged, Reuse
from pytest_manifest.schema.run_facts import JobFact, JobFacts, RunFacts, TaskFact
from pytest_manifest.schema.statuses import FIXED, OF_ITS_PROCESS
from pytest_manifest.schema.wire import parse_moment
from pytest_manifest.verdict import problems, reasons
from pytest_manifest.verdict import tree as of_tree
from pytest_manifest.verdict.judge import Attempt, Judgement, judge, judge_descendant
from pytest_manifest.verdict.judging import receipt_that_counts, signatures_of

_FORMAT = "judged "
"""Changes with what a file holds beside the verdicts that it is of."""


def exported_lines(ledger: Ledger) -> Iterator[bytes]:
    """Yield the lines of a run's receipts file: of entries, then of their descendants."""
    return chain(_receipt_lines(ledger), _descendant_lines(ledger))


def exported_version(ledger: Ledger) -> str:
    """Return a text that changes whenever a verdict, also on a descendant, does."""
    return f"{_FORMAT}{ledger.queries.verdicts_version()}{ledger.trees.version()}"


def _receipt_lines(ledger: Ledger) -> Iterator[bytes]:
    limits, runs = OwnLimits(ledger), ledger.info.task_runs()
    sha256 = ledger.info.read().sha256
    manifest = kept_manifest(ledger.path, sha256)
    for text, said in ledger.queries.raw_receipts():
        receipt, verdict = from_json(text), from_json(said)
        name, task = str(verdict["entry"]), str(receipt["task"])
        if receipt.get("replaced") and manifest is not None and name in manifest:
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
        yield receipt_line(text, judged if own is None else {**judged, "limit": own})


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


@dataclass
class TreeImport:
    """Record the descendants of a receipts file in a ledger that is made of it."""

    manifest: Manifest
    ledger: Ledger
    facts: ExportedFacts
    strange: int = 0
    """How many are of no attempt of the run, and left out."""
    _entry: Entry | None = field(default=None, init=False)

    def add_all(self, index: ReceiptIndex) -> None:
        """Record all of them, with their receipts and verdicts, in batches."""
        lines = index.descendants()
        while some := list(islice(lines, BATCH)):
            known = ((self._entry_of(one, index), one) for one in some)
            ours = [(entry, one) for entry, one in known if entry is not None]
            self.strange += len(some) - len(ours)
            with self.ledger.transaction():
                self._add(ours)

    def _entry_of(self, one: ExportedDescendant, index: ReceiptIndex) -> str | None:
        """Return the entry whose tree it is of; None where that is none of the run's.

        Of a job that was reused that is the entry which reuses it.
        """
        if not is_of_attempt(one.root, one.run, one.entry, one.attempt):
            return None
        entry = one.entry if one.run == self.facts.run else index.reusing_entry(one.root)
        return entry if entry is not None and entry in self.manifest else None

    def _add(self, some: list[tuple[str, ExportedDescendant]]) -> None:
        self.ledger.descendants.add(
            Descendant(
                *(one.task_id, one.root, one.parent, one.task, one.how), spawned_at=one.spawned_at
            )
            for _, one in some
        )
        self.ledger.events.add(
            end_of(0, utc_now(), one.task_id, one.receipt)
            for _, one in some
            if one.receipt is not None
        )
        verdicts = ((one.task_id, self._verdict(entry, one)) for entry, one in some)
        self.ledger.descendants.end(
            {task_id: verdict for task_id, verdict in verdicts if verdict is not None}
        )

    def _verdict(self, name: str, one: ExportedDescendant) -> Verdict | None:
        """Judge a descendant by its receipt; that it has not passed is believed without one."""
        if one.verdict is None or one.verdict.verdict != "passed":
            return one.verdict
        if self._entry is None or self._entry.id != name:
            self._entry = self.manifest[name]
        entry, origin = self._entry, None
        if one.receipt is None:
            reason = problems.NoReceipt()
            return reasons.verdict_of(one.entry, one.attempt, "unknown", reason)
        if one.run != self.facts.run:
            at, by = self.facts.at, self.facts.run
            origin = Reused(run=one.run, entry=one.entry, attempt=one.attempt, by=by, at=at)
        root = self.facts.attempt(entry, one.root, one.attempt, origin)
        found = self.facts.judge_descendant(entry, root, one)
        return reasons.verdict_of(
            one.entry, one.attempt, found.status, found.reason, found.mismatches
        )


# A receipts file has neither starts nor searches, so that no end is contradicted by these, and what
# is not in it is nowhere.
_TASK, _JOB, _SENT, _ENDED, _NOWHERE = range(5)
"""The order of the facts."""


class ExportedFacts:
    """Judge the jobs of one receipts file, whose ``ledger`` has the trees and the trusted keys."""

    def __init__(self, ledger: Ledger) -> None:
        info = ledger.info.read()
        self.run: Final = info.run
        self.at: Final = info.created_at
        self._ledger = ledger
        self.signatures: Final = signatures_of(ledger)

    def attempt(self, entry: Entry, task_id: str, number: int, reused: Reused | None = None) -> Job:
        """Return the job of an entry's attempt; ``reused``: of one that an earlier run has sent."""
        return Job(
            task_id=task_id,
            entry=entry.id,
            number=number,
            run=self.run,
            seq=_JOB,
            at=self.at,
            why="first" if reused is None else "reuse",
            reused=reused,
        )

    def judge(self, entry: Entry, job: Job, receipt: Receipt, limit: float | None) -> Judgement:
        """Judge an attempt by its receipt and by its tree; ``limit``: of its task itself (s)."""
        tree = of_tree.Tree(job.task_id)
        for one in self._ledger.descendants.of_root(job.task_id):
            spawn = Spawn(root=one.root, parent=one.parent, task=one.task, how=one.how)
            ends = [end for _, end in self._ledger.events.receipts(one.task_id)]
            found = reasons.Finding("pending", reasons.UNEXPLAINED)
            if one.verdict is not None:
                said = one.verdict
                found = reasons.Finding(said.verdict, reasons.reason_of(said), said.mismatches)
            tree.add(_descendant(self._child(job, one.task_id, spawn), found, ends))
        own = JobFacts(job, self._facts(job, receipt.sent_at, receipt))
        attempt = Attempt(own, tree if tree else None)
        return judge(entry, [attempt], self._run_facts(entry.task, limit))

    def judge_descendant(self, entry: Entry, root: Job, one: ExportedDescendant) -> reasons.Finding:
        """Judge a descendant by the receipt that the file has of it."""
        spawn = Spawn(
            root=one.root,
            parent=one.parent,
            task=one.task,
            how=one.how,
            spawned_at=one.spawned_at,
        )
        job = self._child(root, one.task_id, spawn)
        facts = JobFacts(job, self._facts(job, None, one.receipt))
        return judge_descendant(entry, root, facts, self._run_facts(one.task, None)).finding

    def _run_facts(self, task: str, limit: float | None) -> RunFacts:
        known = TaskFact(seq=_TASK, at=self.at, task=task, limit=limit)
        return RunFacts(
            run=self.run,
            created_at=self.at,
            is_private=False,
            signed_only=self.signatures is not None,
            has_stream=False,
            facts=() if limit is None else (known,),
        )

    def _child(self, root: Job, task_id: str, spawn: Spawn) -> Job:
        return Job(
            task_id=task_id,
            entry=root.entry,
            number=root.number,
            run=root.run,
            seq=_JOB,
            at=self.at,
            spawn=spawn,
        )

    def _facts(
        self, job: Job, sent_at: datetime | None, receipt: Receipt | None
    ) -> tuple[JobFact, ...]:
        """Return that a job was sent, that it ended so, and that nothing else is known of it."""
        task_id, at = job.task_id, self.at
        nowhere = Nowhere(seq=_NOWHERE, at=at, job=task_id, as_of=_ENDED)
        facts: list[JobFact] = [nowhere]
        if receipt is not None:
            fault = "" if self.signatures is None else self.signatures.fault_of(receipt)
            end = end_of(_ENDED, at, task_id, receipt, fault=fault)
            facts = [end, nowhere]
        if job.spawn is None:
            sending = Sending(seq=_SENT, at=at, job=task_id, number=1, sent_at=sent_at)
            result = SendResult(seq=_SENT, at=at, job=task_id, number=1, outcome="published")
            facts = [sending, result, *facts]
        return tuple(facts)


def _descendant(job: Job, found: reasons.Finding, ends: Sequence[Receipt]) -> of_tree.Descendant:
    counts = [one.children for one in ends if one.children is not None]
    is_silent = not counts and any(one.state in OF_ITS_PROCESS for one in ends)
    return of_tree.Descendant(
        job, found, has_end=bool(ends), children=max(counts, default=0), is_silent=is_silent
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
            judging = _ReceiptsEvaluation(run, manifest, index, file.name, ledger)
            several = len(index.runs) > 1
            trees = TreeImport(manifest, ledger, judging.facts)
            if not several:
                trees.add_all(index)
            for passages in () if several else judging.passages():
                origins = [one.reused_from for one in passages if one.reused_from is not None]
                with ledger.transaction():
                    ledger.transfers.import_entries(passages)
                    ledger.info.add_task_ids(REUSED_RUNS, {origin.run for origin in origins})
            strange, doubled = index.finish()
            if several:
                runs = ", ".join(sorted(index.runs)[:3])
                raise LedgerError(
                    f"{file}: holds receipts of several runs ({runs}); give the receipts of one"
                )
            ledger.info.set_status("finished")
    notes = []
    if strange:
        notes.append(f"{file.name}: {strange} receipts are of entries that are not in the manifest")
    if trees.strange:
        notes.append(f"{file.name}: {trees.strange} lines of descendants are of no attempt of it")
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


@dataclass
class _ReceiptsEvaluation:
    """Judge each entry of a manifest by its receipt in the file ``name``."""

    run: str
    manifest: Manifest
    index: ReceiptIndex
    name: str
    ledger: Ledger

    def __post_init__(self) -> None:
        self.facts = ExportedFacts(self.ledger)

    def passages(self) -> Iterator[list[ImportedEntry]]:
        """Yield the outcome of the entries in batches, in the manifest's order."""
        number = 0
        entries = iter(self.manifest)
        while some := list(islice(entries, BATCH)):
            received = self.index.take([entry.id for entry in some])
            yield [
                self._passage(number + place, entry, exported)
                for place, (entry, exported) in enumerate(zip(some, received, strict=True))
            ]
            number += len(some)

    def _passage(self, ordinal: int, entry: Entry, exported: Exported | None) -> ImportedEntry:
        if exported is None:
            why = problems.NotExported(file=self.name)
            verdict = reasons.verdict_without_receipt(entry, None, "unknown", why)
            task_id = task_id_for(self.run, entry.id, 1, ordinal)
            return ImportedEntry(task_id, 1, ordinal, None, verdict, None, None)
        receipt = exported.receipt
        if receipt.reused is not None:
            return self._reused(ordinal, entry, exported, receipt.reused)
        attempt = max(receipt.attempt, 1)
        task_id = receipt.task_id  # with the place that the entry had when it was sent
        if not is_of_attempt(task_id, self.run, entry.id, attempt):
            task_id = task_id_for(self.run, entry.id, attempt, ordinal)
        job = self.facts.attempt(entry, task_id, attempt)
        verdict, counted = self._evaluate(entry, job, receipt)
        text = exported.text
        return ImportedEntry(
            task_id,
            attempt,
            ordinal,
            receipt.sent_at,
            verdict,
            text,
            None if counted is None else text,
        )

    def _evaluate(self, entry: Entry, job: Job, receipt: Receipt) -> tuple[Verdict, Receipt | None]:
        """Judge a job by its receipt, and by what its run has said of it.

        That it did not pass is believed; that it did is held against the receipt, and against the
        time limit that its task had.
        """
        judged = receipt.judged
        if judged is not None and self._stands(judged, entry, receipt):
            verdict = Verdict(
                verdict=judged.verdict,
                entry=entry.id,
                attempt=job.number,
                sentence=judged.sentence or "",
                reason=judged.reason,
                mismatches=judged.mismatches,
            )
            return verdict, receipt
        found = self.facts.judge(entry, job, receipt, None if judged is None else judged.limit)
        if found.status == "passed" and judged is None and _may_have_outrun(entry, receipt):
            why = problems.LimitNotExported(file=self.name)
            return reasons.verdict_without_receipt(entry, job.number, "unknown", why), None
        what = found.finding
        verdict = reasons.verdict_of(
            entry.id, job.number, what.status, what.reason, what.mismatches
        )
        return verdict, found.receipt

    def _stands(self, judged: Judged, entry: Entry, receipt: Receipt) -> bool:
        """Return whether what the run has said of a job holds, whatever its receipt says."""
        if judged.verdict == "passed":
            return False
        if judged.verdict in FIXED or judged.manifest == self.manifest.sha256:
            return True
        if any(one.path == "code" for one in judged.mismatches):
            return True
        # By whom it was revoked the receipt does not say.
        return judged.verdict == receipt.state == entry.expect.state == "revoked"

    def _reused(self, ordinal: int, entry: Entry, exported: Exported, by: Reuse) -> ImportedEntry:
        """Judge an entry by the receipt of an earlier run's job, which it has reused.

        That it has is what pytest says, and signs not: whoever edits the file can say it of any.
        """
        receipt = exported.receipt
        origin = ReusedFrom(receipt.run, receipt.entry, receipt.attempt, by.run, by.at)
        task_id = receipt.task_id
        if not is_of_attempt(task_id, origin.run, origin.entry, origin.attempt):
            task_id = task_id_for(origin.run, origin.entry, origin.attempt, ordinal)
        reused = Reused(
            run=origin.run, entry=origin.entry, attempt=origin.attempt, by=origin.by, at=origin.at
        )
        job = self.facts.attempt(entry, task_id, 0, reused)
        verdict, counted = self._evaluate(entry, job, receipt)
        if verdict.verdict == "passed" and self.facts.signatures is not None:
            why = problems.ReuseNotSigned(run=origin.run, by=by.run)
            verdict, counted = reasons.verdict_without_receipt(entry, 0, "unknown", why), None
        text = exported.text
        kept = None if counted is None else text
        return ImportedEntry(
            task_id, 0, ordinal, receipt.sent_at, verdict, text, kept, reused_from=origin
        )
