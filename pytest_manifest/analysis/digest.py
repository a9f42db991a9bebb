"""Make the digest of a run in one pass over its records, write it beside the ledger, and read many.

What a digest shows is hidden as in every report: the records are.
"""

from __future__ import annotations

import base64
import gc
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pytest_manifest.analysis.causes import CauseNumbers, Causes
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.statistics import quantile, statistics
from pytest_manifest.errors import LedgerError, ManifestError
from pytest_manifest.files import write_whole
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles, digests_in, find_runs
from pytest_manifest.manifest import Manifest, manifest_digest, read_manifest
from pytest_manifest.processes import is_held
from pytest_manifest.schema import run_digest as schema
from pytest_manifest.schema.run_digest import RunDigest, work_of
from pytest_manifest.schema.statuses import BAD, Outcome
from pytest_manifest.schema.summary import SummaryCause, SummaryStatistics
from pytest_manifest.text import middle

_CAUSES: Final = 20
_MESSAGE: Final = 200
"""Characters of a cause's message."""
_KEPT: Final = 2_000
"""Entries that did not pass, and of which at most so many can be listed."""
_PROCESSES: Final = 20
_ENOUGH_JOBS: Final = 20
"""Jobs of a worker process below which nothing can be said of its memory."""
_CODE: Final = 20
"""Characters of a code's digest: 13 of them of its hash, after Python's version."""
_UNSENT: Final = 0.1


class DigestMaker:
    """Take the records of a run's entries, in the manifest's order, and make its digest.

    ``entries``: how many there will be.
    """

    def __init__(self, entries: int) -> None:
        self._bits, self._hashes = schema.DigestIds.of_size(entries)
        self._works = Counter[str]() if entries <= schema.MOST_WORKS else None
        self._runtimes: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._codes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._memory: defaultdict[tuple[str, int | None], array[int]] = defaultdict(
            lambda: array("q")
        )
        self._bad: list[tuple[EntryRecord, int]] = []
        self._others: list[EntryRecord] = []
        self._causes = CauseNumbers()
        self._not_passed = 0
        self._known = Causes()
        self._accepted: Counter[str] = Counter()
        """Accepted failures by task: a history has what happened, whoever knows of it."""

    def add(self, record: EntryRecord) -> EntryRecord:
        """Take the next entry, and return it."""
        for place in schema.places(record.id, len(self._bits), self._hashes):
            self._bits[place >> 3] |= 1 << (place & 7)
        if self._works is not None:
            self._works[work_of(record.entry)] += 1
        if record.outcome != "passed":
            self._add_other(record)
        receipt = record.receipt
        if receipt is None or record.reused_from is not None or record.kind == "forged":
            return record
        if receipt.code is not None:
            self._codes[record.task][receipt.code[:_CODE]] += 1
        if record.outcome == "passed" and receipt.runtime is not None:
            self._runtimes[record.task].append(receipt.runtime)
        if receipt.max_rss is not None and receipt.worker is not None:
            self._memory[receipt.worker, receipt.pid].append(receipt.max_rss)
        return record

    def _add_other(self, record: EntryRecord) -> None:
        self._not_passed += 1
        is_accepted = record.outcome == "skipped" and record.accepted is not None
        if is_accepted:
            self._accepted[record.task] += 1
            self._known.add(record.id, record.verdict, record.receipt)
        if record.outcome in BAD or is_accepted:
            number = self._causes.number(record.verdict, record.receipt)
            if len(self._bad) < _KEPT:
                self._bad.append((record, number))
        elif len(self._others) < _KEPT:
            self._others.append(record)

    def digest(
        self,
        ledger: Ledger,
        manifest_entries: int,
        found: SummaryStatistics,
        cost: float | None,
    ) -> RunDigest:
        """Return the digest of the run whose entries were taken, of at most 50 kB.

        ``found`` and ``cost``: its figures, of the same records. Raises LedgerError where the
        ledger cannot be read.
        """
        causes = sorted([*found.causes, *self._known.largest_first()], key=lambda one: -one.count)
        info, shard = ledger.info.read(), ledger.info.shard()
        whole = RunDigest(
            digest=1,
            run=info.run,
            number=info.number,
            manifest=str(info.manifest),
            manifest_sha256=info.sha256,
            workflow=info.workflow,
            mode=info.mode,
            shard=None if shard is None else str(shard),
            merged=list(ledger.info.merged()),
            created_at=info.created_at,
            status=ledger.info.status,
            owned=info.is_private,
            broker=info.broker,
            backend=info.backend,
            version=version("pytest-celery-manifest"),
            celery=ledger.info.get_meta("celery") or None,
            entries=found.entries,
            manifest_entries=max(manifest_entries, found.entries),
            reused=sum(found.reused.values()),
            verdicts=found.verdicts,
            outcomes=self._outcomes(found),
            duration=_rounded(found.duration),
            rate=_rounded(found.throughput),
            cost=cost,
            tasks=list(self._tasks(found)),
            causes=[_short(cause) for cause in causes[:_CAUSES]],
            workers=self._workers(),
            ids=schema.DigestIds(
                hashes=self._hashes, bits=base64.b64encode(self._bits).decode("ascii")
            ),
            works=self._unique_works(),
        )
        whole = whole.model_copy(update={"partial": _partial(whole)})
        return self._with_entries(whole, causes)

    def _unique_works(self) -> schema.DigestIds | None:
        if self._works is None:
            return None
        return schema.DigestIds.of([one for one, count in self._works.items() if count == 1])

    def _outcomes(self, found: SummaryStatistics) -> dict[Outcome, int]:
        counts: Counter[Outcome] = Counter(found.outcomes)
        counts["failed"] += self._accepted.total()
        counts["skipped"] -= self._accepted.total()
        return {name: count for name, count in counts.items() if count}

    def _tasks(self, found: SummaryStatistics) -> Iterator[schema.DigestTask]:
        for one in found.tasks:
            times = sorted(self._runtimes.get(one.task, ()))
            codes = self._codes.get(one.task, Counter())
            yield schema.DigestTask(
                task=one.task,
                count=one.count,
                passed=one.passed,
                bad=one.failed + one.errors + self._accepted[one.task],
                samples=len(times),
                p50=_rounded(quantile(times, 0.5)) if times else None,
                p95=_rounded(quantile(times, 0.95)) if times else None,
                code=sorted(codes, key=lambda code: (-codes[code], code))[:3],
            )

    def _workers(self) -> list[schema.DigestWorker]:
        rows = []
        for (worker, pid), found in self._memory.items():
            if len(found) >= _ENOUGH_JOBS:
                # Each is the most that the process ever had, so by size they are in order.
                marks = sorted(found)
                places = (len(marks) * quarter // 4 for quarter in range(5))
                memory = [max(marks[max(place - 1, 0)], 0) for place in places]
                rows.append(
                    schema.DigestWorker(worker=worker, pid=pid, jobs=len(marks), memory=memory)
                )
        rows.sort(key=lambda row: (row.memory[0] - row.memory[-1], row.worker, row.pid or 0))
        return rows[:_PROCESSES]

    def _with_entries(self, whole: RunDigest, causes: Sequence[SummaryCause]) -> RunDigest:
        """Return the digest with as many entries listed as fit."""
        positions = self._causes.positions(causes)
        left = schema.MOST_BYTES - len(as_json(whole)) - len(',"listed":[],"unlisted":1000000')
        listed: list[schema.DigestEntry] = []
        for record, number in (*self._bad, *((one, -1) for one in self._others)):
            cause = positions[number] if number >= 0 else -1
            entry = schema.DigestEntry(
                id=record.id,
                task=record.task,
                verdict=record.kind,
                work=work_of(record.entry),
                cause=cause if 0 <= cause < _CAUSES else None,
                idempotent=record.entry.idempotent,
            )
            left -= len(entry.model_dump_json(exclude_defaults=True).encode()) + 1
            if left < 0:
                break
            listed.append(entry)
        return whole.model_copy(
            update={"listed": listed, "unlisted": self._not_passed - len(listed)}
        )


def _partial(whole: RunDigest) -> schema.Partial | None:
    if whole.status != "finished":
        return "stopped"
    if whole.shard is not None and not whole.merged:
        return "shard"
    if whole.entries < whole.manifest_entries:
        return "selection"
    left = whole.outcomes.get("skipped", 0) + whole.outcomes.get("pending", 0)
    left -= whole.verdicts.get("cancelled", 0)
    return "unsent" if left > _UNSENT * whole.entries else None


def _short(cause: SummaryCause) -> SummaryCause:
    return cause.model_copy(update={"message": middle(cause.message, _MESSAGE)})


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def as_json(digest: RunDigest) -> bytes:
    """Return the digest's file."""
    return digest.model_dump_json(exclude_defaults=True).encode()


def write_digest(digest: RunDigest, ledger: Path) -> Path:
    """Write the digest beside the run's ledger, and return its file. Raises OSError."""
    path = RunFiles(ledger).digest
    scratch = path.with_name(f"{path.name}.new")
    write_whole(scratch, as_json(digest))
    scratch.replace(path)
    return path


def make_digest(ledger_path: Path) -> RunDigest:
    """Make the digest of a run by its ledger, and the manifest beside it.

    Raises LedgerError or ManifestError where they cannot be read.
    """
    with Ledger.open(ledger_path) as ledger:
        ledger.info.hide_secrets()
        ledger.check_types()
        info, manifest = ledger.info.read(), _manifest_of(ledger)
        maker = DigestMaker(info.entries)
        found = statistics(
            map(maker.add, read_records(ledger, manifest)),
            info,
            ledger.info.segments(),
            ledger.trees.last_end(),
        )
        return maker.digest(ledger, len(manifest), found, found.cost)


def _manifest_of(ledger: Ledger) -> Manifest:
    info = ledger.info.read()
    kept = RunFiles(ledger.path).manifest(info.sha256)
    if kept.is_file():
        return read_manifest(kept, lean=True)
    with suppress(ManifestError):
        if manifest_digest(info.manifest) == info.sha256:
            return read_manifest(info.manifest, lean=True)
    raise LedgerError(
        f"{ledger.path}: the manifest that it was made of is not beside it, and {info.manifest} is "
        f"another version of it, or none; copy {kept.name} from where the run was made"
    )


def digests_of(folder: Path, manifest: Path | None = None) -> list[RunDigest]:
    """Return the digests of a folder's runs, oldest first; of merged runs without their parts.

    ``manifest``: of runs of the file at this path, whatever was in it, and of the same lines
    wherever they were. Digests that cannot be read are left out. Raises LedgerError where the
    folder cannot be.
    """
    is_wanted = _filter(manifest)
    collects = gc.isenabled()
    gc.disable()  # else two thirds of the time go into looking at what stays
    try:
        found = [one for path in digests_in(folder) if (one := read_digest(path)) is not None]
    finally:
        if collects:
            gc.enable()
    return without_parts(filter(is_wanted, found))


def digests_made(
    folder: Path, manifest: Path | None = None, *, anew: bool = False
) -> Iterator[RunDigest]:
    """Yield the digests of runs that are over and have none, made of their ledgers.

    ``anew``: of all that are over. Those whose ledgers or manifests cannot be read are left out.
    """
    for path in find_runs(folder, manifest, _sha256(manifest)):
        files = RunFiles(path)
        if (anew or not files.digest.exists()) and not is_held(files.lock):
            with suppress(LedgerError, ManifestError):
                yield make_digest(path)


def all_digests(
    folder: Path, manifest: Path | None = None, *, rebuild: bool = False
) -> dict[str, RunDigest]:
    """Return the digests of a folder's runs that are over, by run.

    Of a run that has none, as its pytest was killed, it is made; ``rebuild``: of all that have
    their ledgers, and written. Raises LedgerError where the folder cannot be read.
    """
    found = {one.run: one for one in digests_of(folder, manifest)}
    for one in digests_made(folder, manifest, anew=rebuild):
        found[one.run] = one
        if rebuild:
            write_digest(one, RunFiles.of(folder, one.run).ledger)
    return found


def runs_going_on(folder: Path, manifest: Path | None = None) -> list[str]:
    """Return the ids of a folder's runs that a pytest follows, oldest first."""
    some = find_runs(folder, manifest, _sha256(manifest))
    return [path.stem for path in some if is_held(RunFiles(path).lock)]


def _filter(manifest: Path | None) -> Callable[[RunDigest], bool]:
    if manifest is None:
        return lambda _: True
    name, sha256 = str(manifest.resolve()), _sha256(manifest)
    return lambda one: one.manifest == name or one.manifest_sha256 == sha256


def _sha256(manifest: Path | None) -> str | None:
    with suppress(ManifestError):
        return None if manifest is None else manifest_digest(manifest)
    return None


def read_digest(path: Path) -> RunDigest | None:
    """Return the digest in a file; None where it is of another version, damaged or gone."""
    try:
        return RunDigest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def without_parts(digests: Iterable[RunDigest]) -> list[RunDigest]:
    """Return digests, oldest first, each job counted once.

    Parts of a merged run are left out, and of two that share parts the older one. Numbers decide
    between runs of one moment alone: digests may have been gathered from several folders.
    """
    ordered = sorted(digests, key=lambda one: (one.created_at, one.number, bool(one.merged)))
    merged: set[str] = set()
    counted: list[RunDigest] = []
    for one in reversed(ordered):
        if not merged.intersection(one.merged):  # else merged again, as a shard has gone on
            counted.append(one)
            merged.update(one.merged)
    return [one for one in reversed(counted) if one.run not in merged]
