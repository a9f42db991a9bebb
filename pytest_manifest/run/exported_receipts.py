"""Judge a manifest by exported receipts alone: make a ledger of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_manifest.broker.attempt import is_of_attempt, task_id_for
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import REUSED_RUNS, Ledger, ReusedFrom, RunInfo, utc_now
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.ledger.transfers import ImportedEntry
from pytest_manifest.manifest import Manifest
from pytest_manifest.manifest.receipts import Exported, ReceiptIndex
from pytest_manifest.run.exported_trees import ExportedFacts, TreeImport
from pytest_manifest.run.signatures import require_signatures
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.facts import Job, Reused
from pytest_manifest.schema.receipts import Judged, Reuse
from pytest_manifest.schema.statuses import FIXED
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import verdict_of, verdict_without_receipt

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
            verdict = verdict_without_receipt(entry, None, "unknown", why)
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
            return verdict_without_receipt(entry, job.number, "unknown", why), None
        what = found.finding
        verdict = verdict_of(entry.id, job.number, what.status, what.reason, what.mismatches)
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
            verdict, counted = verdict_without_receipt(entry, 0, "unknown", why), None
        text = exported.text
        kept = None if counted is None else text
        return ImportedEntry(
            task_id, 0, ordinal, receipt.sent_at, verdict, text, kept, reused_from=origin
        )
