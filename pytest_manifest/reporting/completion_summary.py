"""Write ``summary.json`` entry by entry, so that memory stays flat whatever the run's size."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Final, Literal, Self, get_args

from pydantic_core import to_json

from pytest_manifest.analysis.comparison import Comparison, comparison_document
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.statistics import Distribution, Statistics
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.schema.summary import (
    FileKind,
    Summary,
    SummaryCause,
    SummaryCost,
    SummaryEntry,
    SummaryFile,
    SummaryRun,
    SummarySpread,
    SummaryStatistics,
    SummaryTask,
    SummaryWorker,
)
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.run import Run

Group = Literal["failed", "unfinished", "succeeded"]
GROUPS: Final[Sequence[Group]] = get_args(Group)
_GROUP_OF: Final[dict[str, Group]] = {
    "passed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "skipped": "unfinished",
    "pending": "unfinished",
}
SPOOL: Final = 1 << 20
"""Bytes of one group of entries that are kept in memory, the rest in a temporary file."""


class SummaryWriter:
    """Take a run's records, then its statistics, and write the document to one or more files."""

    def __init__(self, run: Run, root: Path) -> None:
        self._run = run
        self._root = root
        self._spools: dict[Group, IO[bytes]] = {}
        self._begun: set[Group] = set()  # asking a spool for its position would flush it each time
        self._open = contextlib.ExitStack()
        self._head = b""

    def __enter__(self) -> Self:
        for group in GROUPS:
            spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)
            self._spools[group] = self._open.enter_context(spool)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, record: EntryRecord) -> None:
        """Take the next entry, in the manifest's order."""
        group = _GROUP_OF[record.outcome]
        comma = b",\n  " if group in self._begun else b"\n  "
        self._begun.add(group)
        self._spools[group].write(comma + to_json(_entry_fields(record)))

    def finish(self, statistics: Statistics, comparison: Comparison | None) -> None:
        """Take the statistics and the comparison, which are known after the last entry."""
        run = self._run
        with run.read() as ledger:
            facts, cost = _run(run, ledger, self._root), _cost(ledger, statistics)
        document = Summary(
            run=facts,
            statistics=_statistics(statistics),
            cost=cost,
            comparison=None if comparison is None else comparison_document(comparison),
            files=list(_files(run, self._root)),
            failed=[],
            unfinished=[],
            succeeded=[],
        )
        whole = document.model_dump_json(indent=1, exclude={"failed", "unfinished", "succeeded"})
        self._head = whole.rstrip().removesuffix("}").rstrip().encode()

    def write(self, path: Path, *, private: bool = False) -> None:
        """Write the document, whole or not at all; ``private``: readable by its owner alone.

        Raises ManifestError or OSError if it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            if private:
                Path(str(file.name)).chmod(0o600)
            file.write(self._head)
            for group in GROUPS:
                file.write(f',\n "{group}": ['.encode())
                spool = self._spools[group]
                spool.seek(0)
                shutil.copyfileobj(spool, file)
                file.write(b"\n ]" if group in self._begun else b"]")
            file.write(b"\n}\n")


def _run(run: Run, ledger: Ledger, root: Path) -> SummaryRun:
    info, shard = run.info, ledger.info.shard()
    return SummaryRun(
        run=info.run,
        manifest=short_path(run.manifest.path, root),
        manifest_sha256=info.sha256,
        workflow=info.workflow,
        mode=info.mode,
        shard=None if shard is None else str(shard),
        merged=list(ledger.info.merged()),
        created_at=info.created_at,
        status=ledger.info.status,
        error=None if run.error is None else str(run.error),
        findings=list(run.warnings),
        broker=info.broker,
        backend=info.backend,
        owned=info.is_private,
        version=version("pytest-celery-manifest"),
    )


def _cost(ledger: Ledger, statistics: Statistics) -> SummaryCost:
    budget = ledger.info.get_meta(BUDGET)
    return SummaryCost(
        total=statistics.cost,
        budget=float(budget) if budget else None,
        over_budget=bool(ledger.info.get_meta(OVER_BUDGET)),
    )


def _entry_fields(record: EntryRecord) -> dict[str, object]:
    """Return the fields of a ``SummaryEntry`` as a plain dict.

    Making a model of each of a million entries would take longer than all else about them.
    """
    last = record.last
    return {
        "id": record.id,
        "task": record.task,
        "line": record.line,
        "verdict": record.kind,
        "sentence": record.sentence,
        "task_id": None if last is None else last.task_id,
        "attempts": len(record.attempts),
        "wait": None if last is None else last.wait,
        "runtime": None if last is None else last.runtime,
    }


def _spread(spread: Distribution | None) -> SummarySpread | None:
    if spread is None:
        return None
    return SummarySpread(
        count=spread.count, p50=spread.p50, p95=spread.p95, max=spread.max, total=spread.total
    )


def _statistics(found: Statistics) -> SummaryStatistics:
    return SummaryStatistics(
        entries=found.entries,
        verdicts={str(kind): count for kind, count in found.verdicts.items()},
        outcomes={str(kind): count for kind, count in found.outcomes.items()},
        began=found.began,
        ended=found.ended,
        duration=found.duration,
        parts=found.parts,
        pauses=found.pauses,
        throughput=found.throughput,
        wait=_spread(found.wait),
        runtime=_spread(found.runtime),
        retries=found.retries,
        redeliveries=found.redeliveries,
        further_sendings=found.attempts,
        tasks=list(_tasks(found)),
        workers=list(_workers(found)),
        causes=list(_causes(found)),
        slowest=[SummaryEntry.model_validate(_entry_fields(one)) for one in found.slowest],
        advice=list(found.advice),
    )


def _tasks(found: Statistics) -> Iterator[SummaryTask]:
    for row in found.tasks:
        yield SummaryTask(
            task=row.task,
            count=row.count,
            passed=row.passed,
            failed=row.failed,
            errors=row.errors,
            skipped=row.skipped,
            pending=row.pending,
            wait=_spread(row.wait),
            runtime=_spread(row.runtime),
            throughput=row.throughput,
        )


def _workers(found: Statistics) -> Iterator[SummaryWorker]:
    for row in found.workers:
        yield SummaryWorker(
            worker=row.worker,
            host=row.host,
            pid=row.pid,
            jobs=row.jobs,
            busy=row.busy,
            share=row.share,
        )


def _causes(found: Statistics) -> Iterator[SummaryCause]:
    for cause in found.causes:
        yield SummaryCause(
            title=cause.title,
            kind=cause.kind,
            error=cause.error,
            place=cause.place,
            path=cause.path,
            expected=cause.expected,
            actual=cause.actual,
            count=cause.count,
            examples=list(cause.examples),
            message=cause.message,
        )


def run_files(run: Run) -> Iterator[tuple[FileKind, Path]]:
    """Yield kind and path of the files that a run has left, if they exist."""
    found: list[tuple[FileKind, Path]] = [
        ("manifest", run.manifest.path),
        ("ledger", run.ledger_path),
        ("receipts", run.files.receipts),
        ("log", run.files.log),
    ]
    found += [("worker-log", path) for path in run.files.worker_logs()]
    return ((kind, path) for kind, path in found if path.is_file())


def _files(run: Run, root: Path) -> Iterator[SummaryFile]:
    for kind, path in run_files(run):
        with path.open("rb") as file:
            # Ledger and log are written to until the session ends, and by later audits.
            living = kind in ("ledger", "log")
            digest = None if living else hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        yield SummaryFile(kind=kind, path=short_path(path, root), bytes=size, sha256=digest)
