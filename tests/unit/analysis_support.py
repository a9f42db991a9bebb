"""Records and runs for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pydantic import JsonValue

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.schema import (
    Entry,
    ErrorInfo,
    Header,
    Mismatch,
    Receipt,
    Verdict,
    VerdictStatus,
)
from pytest_manifest.schema.statuses import outcome_of
from tests.reports import add_receipts, run_info

START = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
INFO = run_info(
    "20261124T150000-0123abcd",
    START,
    manifest=Path("/m.jsonl"),
    workflow="demo",
    url="redis://127.0.0.1:1/0",
    is_private=False,
)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def attempt(number: int = 1, **fields: object) -> AttemptRecord:
    """An attempt that waited 0.5 s and ran for 1 s in process 7, but for what is given."""
    made = AttemptRecord(
        number=number,
        task_id=f"t-{number}",
        kind="passed",
        sentence="It passed.",
        reason=None,
        sent_at=START,
        received_at=after(0.4),
        started_at=after(0.5),
        finished_at=after(1.5),
        wait=0.5,
        runtime=1.0,
        worker="w@h",
        host="h",
        pid=7,
        executions=1,
        redelivered=False,
        retries=0,
        cost=None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # fields of AttemptRecord


def record(
    name: str,
    kind: VerdictStatus | None = "passed",
    *attempts: AttemptRecord,
    task: str = "jobs.t",
    error: ErrorInfo | None = None,
    place: str | None = None,
    mismatches: Sequence[Mismatch] = (),
    result: JsonValue = None,
    digest: str | None = None,
    **entry: object,
) -> EntryRecord:
    """An entry with a verdict of this kind; without ``attempts``, one of ``attempt()``."""
    verdict = None
    if kind is not None:
        sentence = f"{name} is {kind}."
        verdict = Verdict(
            verdict=kind, entry=name, attempt=1, sentence=sentence, mismatches=list(mismatches)
        )
    if error is not None and place is not None:
        file, _, frame = place.partition(":")
        line, _, function = (frame or "1 in t").partition(" in ")
        trace = f'Traceback (most recent call last):\n  File "{file}", line {line}, in {function}\n'
        error = error.model_copy(update={"traceback": trace})
    receipt = Receipt(
        run=INFO.run,
        entry=name,
        attempt=1,
        task_id="t-1",
        task=task,
        state="succeeded" if error is None else "failed",
        error=error,
        result=result,
        result_sha256=digest,
    )
    return EntryRecord(
        entry=Entry.model_validate({"id": name, "task": task, **entry}),
        line=1,
        verdict=verdict,
        outcome=outcome_of(kind),
        receipt=receipt,
        attempts=attempts or (attempt(),),
        error_place=place,
    )


def timed(
    name: str, runtime: float, kind: VerdictStatus = "passed", *, task: str = "jobs.t"
) -> EntryRecord:
    """An entry whose job ran so long."""
    return record(name, kind, attempt(runtime=runtime, finished_at=after(0.5 + runtime)), task=task)


def error(kind: str = "ValueError", message: str = "no good") -> ErrorInfo:
    return ErrorInfo(type=kind, message=message)


class MadeRun:
    """A manifest and an empty ledger of a run of it, both on disk."""

    def __init__(self, folder: Path, entries: Iterable[Entry]) -> None:
        path = folder / "m.jsonl"
        write_manifest(path, Header(workflow="demo"), list(entries))
        self.manifest: Manifest = read_manifest(path)
        self.info = replace(INFO, manifest=path, sha256=self.manifest.sha256)
        self.ledger = Ledger.create(folder / f"{INFO.run}.sqlite", self.info)

    def plan(self, *names: str, number: int = 1, reason: str | None = None) -> None:
        """Attempts ``t-NAME-NUMBER``, sent at the start."""
        ids = [f"t-{name}-{number}" for name in names]
        rows = [
            (task_id, name, number, ordinal, reason)
            for ordinal, (task_id, name) in enumerate(zip(ids, names, strict=True))
        ]
        self.ledger.attempts.plan(rows)
        self.ledger.attempts.mark(ids, "sent", sent_at=START)

    def receipt(self, name: str, number: int = 1, **fields: object) -> Receipt:
        """A receipt of such an attempt."""
        made = {
            "run": INFO.run,
            "entry": name,
            "attempt": number,
            "task_id": f"t-{name}-{number}",
            "task": "jobs.t",
            "state": "succeeded",
        }
        return Receipt.model_validate(made | fields)

    def settle(
        self, name: str, kind: VerdictStatus, receipt: Receipt | None, attempt: int | None = 1
    ) -> None:
        if receipt is not None:
            add_receipts(self.ledger, [(receipt.task_id, None, receipt)])
        self.ledger.verdicts.record([(verdict(name, kind, attempt), receipt)])


def verdict(name: str, kind: VerdictStatus, attempt: int | None = 1) -> Verdict:
    return Verdict(verdict=kind, entry=name, attempt=attempt, sentence=f"{name} is {kind}.")
