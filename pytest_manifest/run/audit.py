"""Judge an earlier run again: from its ledger and what arrived since, or from exported receipts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from loguru import logger

from pytest_manifest.broker.attempt import is_of_attempt, task_id_for
from pytest_manifest.broker.locating import JobLocations
from pytest_manifest.errors import LedgerError, StackError
from pytest_manifest.ledger import Ledger, RunInfo, utc_now
from pytest_manifest.ledger.queries import BATCH, ImportedEntry
from pytest_manifest.manifest import Manifest
from pytest_manifest.manifest.receipt_index import Exported, ReceiptIndex
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.earlier import (
    EarlierRun,
    evaluate_kept_receipts,
    track_inferred,
    track_unsettled,
)
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.evaluation import AttemptEvaluator, Evaluated
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.recovery import JobSearch
from pytest_manifest.run.reevaluation import manifest_lines, reevaluate
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.verdict import evaluate


class AuditRun(EarlierRun):
    """Judge an earlier run from its ledger and from what arrived since; send nothing.

    Without a broker in its address the stack is not queried. Where the manifest differs from the
    run's own, all verdicts go into ``scratch``, a copy of the ledger.
    """

    sends = False

    def __init__(
        self,
        manifest: Manifest,
        ledger_path: Path,
        info: RunInfo,
        address: StackAddress,
        settings: RunSettings,
        *,
        wait: bool = False,
        before: Manifest | None = None,
    ) -> None:
        super().__init__(manifest, ledger_path, info, address, settings)
        self._wait = wait
        self._before = before
        self._already_evaluated = False

    @classmethod
    def attach(
        cls,
        manifest: Manifest,
        ledger_path: Path,
        address: StackAddress,
        settings: RunSettings,
        *,
        wait: bool,
        scratch: Path | None = None,
        already_evaluated: bool = False,
    ) -> AuditRun:
        """Return the run with this ledger, judged by this manifest unless it was
        ``already_evaluated``."""
        with Ledger.open(ledger_path) as ledger:
            info = ledger.info()
            same = info.sha256 == manifest.sha256
            before = manifest if same else kept_manifest(ledger_path, info.sha256)
            if scratch is not None:
                target = scratch / ledger_path.name
                ledger.copy_to(target)
        path = ledger_path if scratch is None else target
        run = cls(manifest, path, info, address, settings, wait=wait, before=before)
        run._keeps_stream, run._already_evaluated = scratch is not None, already_evaluated
        return run

    @property
    def queries_stack(self) -> bool:
        """Return whether broker and workers are queried."""
        return bool(self.address.broker_url)

    def _prepare(self, expected_workers: int | None) -> None:  # noqa: ARG002 - the base class's
        ledger = self._take_up()
        if self.queries_stack:
            ledger.reopen()
        evaluator = self._make_evaluator(ledger)
        if not self._already_evaluated:
            with ledger.transaction():
                _record_verdicts(ledger, reevaluate(ledger, self.manifest, self._before, evaluator))
        track_unsettled(self._pending, ledger, self.manifest, self.info)
        for job in list(self._pending.by_task_id.values()):
            settled = ledger.entry_verdict(job.entry.id)
            if settled is not None and settled.verdict.verdict != "pending":
                self._pending.complete(job.task_id)  # it is other work now, or unknown
        evaluate_kept_receipts(ledger, self._pending, evaluator)
        if not self.queries_stack:
            self._pending.clear()
        else:
            track_inferred(self._pending, ledger, self.manifest, self.info)
            self._open_locator(self._open_publisher(), self._pending.entries())
            self._poll_first(ledger)

    def _poll_first(self, ledger: Ledger) -> None:
        """Read what arrived since, so that no test sees a verdict that this replaces."""
        position = ledger.get_meta("stream_position") or "0"
        with contextlib.closing(self._open_collector(position)) as collector:
            engine = self._make_engine(ledger, collector)
            engine.send_nothing()
            engine.poll_once()
        self._keep_inferred_verdicts(ledger)
        waited_for = [job.entry.id for job in self._pending.by_task_id.values()]
        with ledger.transaction():
            ledger.reopen(waited_for)

    def finish_offline(self) -> None:
        """Judge what is there without a stack; instead of :meth:`start`."""
        with Ledger.open(self.ledger_path, write=True) as ledger:
            self._close(ledger, {})
        self.all_sent.set()
        self.ended.set()
        self._lock.release()

    def _work(self, engine: Engine, ledger: Ledger) -> None:
        engine.send_nothing()
        if self._wait:
            engine.work()
            found: dict[str, str] = {}
        else:
            found = self._locate(engine)
        self._close(ledger, found)

    def _keep_inferred_verdicts(self, ledger: Ledger) -> None:
        """Keep the verdicts that were inferred for want of a receipt, where there is still none.

        Only jobs that were given up as overdue may still be waited for.
        """
        for job in list(self._pending.by_task_id.values()):
            settled = ledger.entry_verdict(job.entry.id)
            overdue = settled is not None and settled.verdict.verdict == "timed_out"
            if settled is not None and not (overdue and self._wait):
                self._pending.complete(job.task_id)

    def _locate(self, engine: Engine) -> dict[str, str]:
        """Locate the jobs without a verdict: task id -> a phrase; judge missing ones lost."""
        if self._locator is None or not engine.pending:
            return {}
        try:
            located = JobSearch(self._locator, engine.pending).search_now()
            engine.act_on(located)
        except StackError as error:
            logger.warning("the jobs could not be looked for: {}", error)
            return {}
        return location_phrases(located)

    def _close(self, ledger: Ledger, found: dict[str, str]) -> None:
        """Record what is unfinished as pending, expired or never sent: nothing final."""
        age = (utc_now() - self.info.created_at).total_seconds()
        if not ledger.all_final():
            with ledger.transaction():
                _record_verdicts(
                    ledger, self._unfinished(ledger, found, expired=age > self.info.stream_ttl)
                )
        self._signals.on_verdicts([])
        if ledger.status in ("running", "detached") and not ledger.has_open():
            ledger.set_status("finished")

    def _unfinished(
        self, ledger: Ledger, found: Mapping[str, str], *, expired: bool
    ) -> Iterator[Evaluated]:
        with contextlib.closing(manifest_lines(ledger, self.manifest, self.manifest)) as lines:
            while some := {line.entry: line for line in islice(lines, BATCH)}:
                for name in list(ledger.ids_of_not_final(some)):
                    rows = ledger.attempts_of(name)
                    if not rows or _is_unknown(ledger, name):
                        continue
                    status, note = _unfinished(rows[-1].state, expired=expired)
                    if not note:
                        otherwise = "" if self.queries_stack else "the stack was not asked"
                        note = found.get(rows[-1].task_id, otherwise)
                    entry = self.manifest.parse(some[name].raw, some[name].number)
                    number = rows[-1].attempt
                    yield evaluate(entry, None, attempt=number, problem=status, note=note), None


def _record_verdicts(ledger: Ledger, already_evaluated: Iterator[Evaluated]) -> None:
    """Record verdicts in batches, so that memory stays flat; call within a transaction."""
    while some := list(islice(already_evaluated, BATCH)):
        ledger.record_verdicts(some)


def location_phrases(located: JobLocations) -> dict[str, str]:
    """Say in words where two snapshots located jobs, by task id."""
    found = dict.fromkeys(located.queued, "it waits in its queue")
    found.update(dict.fromkeys(located.with_worker, "a worker has it"))
    found.update(dict.fromkeys(located.unacked_by_dead, "a worker that is gone had taken it"))
    return found


def _is_unknown(ledger: Ledger, entry: str) -> bool:
    """Return whether the entry was judged unknown, with a reason that only a new search could
    change."""
    settled = ledger.entry_verdict(entry)
    return settled is not None and settled.verdict.verdict == "unknown"


def _unfinished(state: str, *, expired: bool) -> tuple[VerdictStatus, str]:
    if state == "planned":
        return "unknown", "it was never sent: the run ended before its turn came"
    if expired:
        return "unknown", "a receipt may have been, and be past its lifetime in the result store"
    return "pending", ""


NO_RUN = "no-receipts"
"""The run id of a file without receipts."""


def ledger_of_receipts(manifest: Manifest, file: Path, scratch: Path) -> tuple[Path, list[str]]:
    """Make a ledger of exported receipts alone; return it and notes about oddities in them.

    Raises LedgerError where the file holds receipts of several runs, ManifestError where it cannot
    be read.
    """
    with ReceiptIndex(file) as index:
        run = min(index.runs, default=NO_RUN)
        path = scratch / f"{run}.sqlite"
        with Ledger.create(path, _info(manifest, run)) as ledger:
            ledger.disable_journal()
            judging = _ReceiptsEvaluation(run, manifest, index, file.name, ledger)
            several = len(index.runs) > 1
            for passages in () if several else judging.passages():
                with ledger.transaction():
                    ledger.import_entries(passages)
            strange, doubled = index.finish()
            if several:
                runs = ", ".join(sorted(index.runs)[:3])
                raise LedgerError(
                    f"{file}: holds receipts of several runs ({runs}); give the receipts of one"
                )
            ledger.set_status("finished")
    notes = []
    if strange:
        notes.append(f"{file.name}: {strange} receipts are of entries that are not in the manifest")
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


@dataclass
class _ReceiptsEvaluation:
    """Judge each entry of a manifest by its receipt in the file ``name``."""

    run: str
    manifest: Manifest
    index: ReceiptIndex
    name: str
    ledger: Ledger

    def passages(self) -> Iterator[list[ImportedEntry]]:
        """Yield the outcome of the entries in batches, in the manifest's order."""
        evaluator = AttemptEvaluator(self.run, self.manifest, self.ledger, kills=1, lifetime=0)
        number = 0
        entries = iter(self.manifest)
        while some := list(islice(entries, BATCH)):
            received = self.index.take([entry.id for entry in some])
            yield [
                self._passage(evaluator, number + place, entry, exported)
                for place, (entry, exported) in enumerate(zip(some, received, strict=True))
            ]
            number += len(some)

    def _passage(
        self, evaluator: AttemptEvaluator, ordinal: int, entry: Entry, exported: Exported | None
    ) -> ImportedEntry:
        if exported is None:
            note = f"{self.name} has no receipt of it"
            verdict = evaluate(entry, None, attempt=None, problem="unknown", note=note)
            task_id = task_id_for(self.run, entry.id, 1, ordinal)
            return ImportedEntry(task_id, 1, ordinal, None, verdict, None, None)
        receipt = exported.receipt
        attempt = max(receipt.attempt, 1)
        task_id = receipt.task_id  # with the place that the entry had when it was sent
        if not is_of_attempt(task_id, self.run, entry.id, attempt):
            task_id = task_id_for(self.run, entry.id, attempt, ordinal)
        job = PendingAttempt(self.run, entry, attempt, task_id, 0.0, receipt.sent_at)
        verdict, counted = evaluator.evaluate(job, receipt, ())
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
