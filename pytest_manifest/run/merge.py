"""Merge ledgers: check which may be, describe the run that comes of it, copy their rows."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from pytest_manifest.broker.attempt import new_run_id, task_id_for
from pytest_manifest.errors import LedgerError
from pytest_manifest.files import copy_privately, private_folder
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger, RunInfo, RunSegment
from pytest_manifest.ledger.database import LAST_SEQ
from pytest_manifest.ledger.files import RunFiles, refuse_network, sqlite_uri
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, RunStatus, columns_of, text
from pytest_manifest.ledger.run_info import UNITED_KEYS, setting
from pytest_manifest.ledger.tables import LEDGER_VERSION, TABLES, VIEWS
from pytest_manifest.manifest import Shard, manifest_digest, read_manifest
from pytest_manifest.manifest.writer import sync
from pytest_manifest.run.casebook import merged_signatures
from pytest_manifest.run.locks import RunLock
from pytest_manifest.schema.statuses import OPEN
from pytest_manifest.text import listed

UNSENT = "unsent"
"""The merged ledger's key for the number of entries that no run has sent."""
IDS_AT_ONCE = 500
"""Entries of one SQL statement."""


@dataclass(frozen=True)
class MergeInput:
    """Hold a ledger that is to be merged.

    ``shard``: None for the whole manifest; ``segments``: when it was worked on; ``texts``: those
    under ``UNITED_KEYS``; ``metadata``: its table ``run``; ``entries``: their number, ``open``: the
    number of them without a final verdict.
    """

    path: Path
    info: RunInfo
    status: RunStatus
    shard: Shard | None
    texts: Mapping[str, frozenset[str]]
    metadata: dict[str, str]
    entries: int
    open: int
    segments: Sequence[RunSegment]

    @property
    def label(self) -> str:
        """Return a label like ``shard 2 of 8 (run ...)``."""
        run = f"run {self.info.run}"
        return run if self.shard is None else f"{self.shard.words} ({run})"


@dataclass(frozen=True)
class MergedRun:
    """Hold the ledger that was made.

    ``warnings``: what is not whole about it; ``manifest``: the file that the runs were made of, or
    the copy that is kept, None where neither is there.
    """

    ledger: Path
    info: RunInfo
    runs: int
    open: int
    warnings: Sequence[str]
    manifest: Path | None


def merge(ledgers: Sequence[Path], into: Path | None = None) -> MergedRun:
    """Make one ledger of several, in the folder ``into``, else in that of the first.

    Raises LedgerError where they cannot be merged, DispatchError where one of them is being
    written; then nothing was made.
    """
    _refuse_twice(ledgers)
    with ExitStack() as locks:
        for path in ledgers:
            locks.enter_context(_locked(path))
        shards, contained = _without_merged(ledgers)
        sources = [_source(path) for path in shards]
        _refuse_mixture(sources)
        folder = ledgers[0].parent if into is None else into
        info = _info(sources)
        target = RunFiles.of(folder, info.run).ledger
        with _new_files(target, sources) as copy:
            paths, segments = [source.path for source in sources], _merged_segments(sources)
            merge_files(target, paths, _metadata(info, sources), segments)
            manifests = [path for path in (info.manifest, copy) if path is not None]
            unsent = _plan_missing(target, info, manifests)
            info = replace(info, entries=info.entries + unsent)
    original = next((p.info.manifest for p in sources if p.info.manifest.is_file()), copy)
    return MergedRun(
        ledger=target,
        info=info,
        runs=len(sources),
        open=sum(source.open for source in sources) + unsent,
        warnings=[*contained, *_warnings(sources, copy, unsent)],
        manifest=original,
    )


# What is refused


def _refuse_twice(ledgers: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in ledgers:
        if path.is_dir():
            raise LedgerError(f"{path}: is a folder; name the ledgers in it, like {path}/*.sqlite")
        if not path.is_file():
            raise LedgerError(f"{path}: there is no such file; name ledgers, RUN.sqlite")
        if path.resolve() in seen:
            raise LedgerError(f"{path}: was named twice; name each ledger once")
        seen.add(path.resolve())


def _without_merged(ledgers: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Drop ledgers that were merged of others which are named, as ``*.sqlite`` names all.

    Raises LedgerError for other merged ones: a merge is of what pytest has written.
    """
    merged: dict[Path, Sequence[str]] = {}
    own: set[str] = set()
    for path in ledgers:
        with Ledger.open(path) as ledger:
            merged[path] = ledger.info.merged()
            own.add(ledger.info.read().run)
    for path, runs in merged.items():
        if not own.issuperset(runs):
            raise LedgerError(
                f"{path}: was merged of {listed(runs, 3)}; name the ledgers of these runs instead"
            )
    warnings = [
        f"{path.name} is left out: it was merged of runs named here"
        for path, runs in merged.items()
        if runs
    ]
    return [path for path, runs in merged.items() if not runs], warnings


def _refuse_mixture(sources: Sequence[MergeInput]) -> None:
    first = sources[0]
    runs: dict[str, Path] = {}
    for source in sources:
        if source.info.sha256 != first.info.sha256:
            raise LedgerError(
                f"{source.path}: is of another manifest ({source.info.manifest.name}, "
                f"{source.info.sha256[:12]}...) than {first.path} ({first.info.manifest.name}, "
                f"{first.info.sha256[:12]}...); merge runs of one manifest"
            )
        run = source.info.run
        if run in runs:
            raise LedgerError(
                f"{source.path}: run {run} is in {runs[run]}, too; name one of these ledgers"
            )
        runs[run] = source.path


@contextmanager
def _locked(ledger: Path) -> Iterator[None]:
    """Lock a ledger. Raises DispatchError where another process writes it."""
    path = RunFiles(ledger).lock
    if not path.is_file():  # it was copied here without its lock, so no process here writes it
        yield
        return
    lock = RunLock(path)
    try:
        lock.acquire(ledger.stem)
    except OSError as error:
        raise LedgerError(
            f"{path}: whether the run is going on is not known ({error}); make a copy of "
            f"{ledger.name} without its lock, and merge that"
        ) from error
    try:
        yield
    finally:
        lock.release()


# What is made


def _source(path: Path) -> MergeInput:
    try:
        with Ledger.open(path) as ledger:
            ledger.check_types()
            info, metadata = ledger.info.read(), ledger.info.all_meta()
            entries = ledger.attempts.count_entries()
            float(metadata.get(BUDGET) or 0)  # before anything is made
            final = sum(n for kind, n in ledger.verdicts.counts().items() if kind not in OPEN)
            return MergeInput(
                *(path, info, ledger.info.status, ledger.info.shard()),
                texts={key: ledger.info.texts(key) for key in UNITED_KEYS},
                metadata=metadata,
                entries=entries,
                open=entries - final,
                segments=_segments(ledger, info),
            )
    except BAD_ROW_ERRORS as error:
        raise LedgerError(
            f"{path}: what it says of its run cannot be read ({error}); it is damaged, so leave it "
            "out, and run its shard again"
        ) from error


def _segments(ledger: Ledger, info: RunInfo) -> list[RunSegment]:
    """Return when the run was worked on; what has no noted end ends with the last receipt."""
    *before, last = ledger.info.segments() or [RunSegment(info.created_at)]
    ended = last.stopped or ledger.events.last_arrival() or last.started
    return [*before, replace(last, stopped=max(ended, last.started))]


def _merged_segments(sources: Sequence[MergeInput]) -> list[RunSegment]:
    """Return when any of the runs was worked on: what overlaps is one segment."""
    segments: list[RunSegment] = []
    for part in sorted(
        (part for source in sources for part in source.segments), key=attrgetter("started")
    ):
        last = segments[-1] if segments else None
        if last is None or last.stopped is None or part.started > last.stopped:
            segments.append(part)
        elif part.stopped is not None:
            segments[-1] = replace(last, stopped=max(last.stopped, part.stopped))
    return segments


def _plan_missing(target: Path, info: RunInfo, manifests: Sequence[Path]) -> int:
    """Plan the manifest's entries that no ledger has, as never sent, so that reports show them.

    Returns their number.
    """
    path = next((p for p in manifests if p.is_file() and manifest_digest(p) == info.sha256), None)
    if path is None:
        return 0
    manifest = read_manifest(path, lean=True)
    count = 0
    with Ledger.open(target, write=True) as ledger, ledger.transaction():
        ordinal = 0
        every = iter(manifest.ids)
        while ids := list(islice(every, IDS_AT_ONCE)):
            known = ledger.attempts.known_entries(ids)
            rows = [
                (task_id_for(info.run, entry, 1, place), entry, 1, place)
                for place, entry in enumerate(ids, ordinal)
                if entry not in known
            ]
            ledger.attempts.plan(rows)
            count += len(rows)
            ordinal += len(ids)
        if count:
            ledger.info.set_meta(UNSENT, str(count))
            ledger.info.set_meta("entries", str(len(manifest)))
            if ledger.info.status == "finished":
                ledger.info.set_status("stopped")
    return count


def _info(sources: Sequence[MergeInput]) -> RunInfo:
    infos = [source.info for source in sources]
    return replace(
        infos[0],
        run=new_run_id(),
        entries=sum(source.entries for source in sources),
        # Its timeline begins where that of the first run does.
        created_at=min(info.created_at for info in infos),
        number=min(info.number for info in infos),
        broker=", ".join(sorted({info.broker for info in infos})),
        backend=", ".join(sorted({info.backend for info in infos})),
        is_private=all(info.is_private for info in infos),
        stream_ttl=max(info.stream_ttl for info in infos),
    )


def _metadata(info: RunInfo, sources: Sequence[MergeInput]) -> dict[str, str | int | None]:
    """Return the columns of the merged ledger's own run, and what differs in those merged."""
    metadata: dict[str, str | int | None] = {**columns_of(info), "status": _status(sources)}
    over_budget = [one for source in sources if (one := source.metadata.get(OVER_BUDGET))]
    metadata |= {OVER_BUDGET: over_budget[0]} if over_budget else {}
    for key in UNITED_KEYS:
        texts = frozenset[str]().union(*(source.texts[key] for source in sources))
        metadata |= {key: json.dumps(sorted(texts))} if texts else {}
    metadata |= merged_signatures([source.metadata for source in sources])
    budgets = [source.metadata.get(BUDGET) for source in sources]
    if all(budgets):
        metadata[BUDGET] = str(sum(float(budget) for budget in budgets if budget))
    return metadata


def _status(sources: Sequence[MergeInput]) -> RunStatus:
    if all(source.status == "finished" for source in sources):
        return "finished"
    may_go_on = any(p.status in ("running", "detached") and not p.info.is_private for p in sources)
    return "detached" if may_go_on else "stopped"


@contextmanager
def _new_files(ledger: Path, sources: Sequence[MergeInput]) -> Iterator[Path | None]:
    """Make the manifest's copy and the lock beside the new ledger; remove them where that fails."""
    target = RunFiles(ledger).manifest(sources[0].info.sha256)
    kept = (RunFiles(source.path).manifest(source.info.sha256) for source in sources)
    source = next((path for path in kept if path.is_file()), None)
    lock = RunLock(RunFiles(ledger).lock)
    try:
        private_folder(ledger.parent)
        lock.acquire(ledger.stem)
        if source is not None:
            copy_privately(source, target)
        yield None if source is None else target
    except OSError as error:
        raise LedgerError(
            f"{ledger.parent}: cannot be written ({error}); name another folder with --into"
        ) from error
    finally:
        lock.release()
        for path in () if ledger.is_file() else (target, RunFiles(ledger).lock):
            if path.exists():
                path.unlink()


def _warnings(sources: Sequence[MergeInput], copy: Path | None, unsent: int) -> Iterator[str]:
    if unsent:
        yield f"{unsent:,} entries of the manifest are in no ledger: they were never sent"
    for source in sources:
        if source.status != "finished" or source.open:
            yield (
                f"{source.label} is unfinished: {source.open:,} of its {source.entries:,} "
                "entries have no final verdict"
            )
    shards = [source.shard for source in sources]
    totals = {None if shard is None else shard.total for shard in shards}
    if len(totals) == 1 and (total := totals.pop()) is not None:
        given = {shard.number for shard in shards if shard is not None}
        missing = [str(number) for number in range(1, total + 1) if number not in given]
        if missing:
            yield (
                f"of {total} shards, no ledger was given of {', '.join(missing)}; "
                "one without entries has none"
            )
    if copy is None:
        yield "no ledger has a copy of the manifest beside it, so no change of it will be noticed"


# The file: SQLite copies the rows, in constant memory

# The file becomes visible only when complete and synced, so it needs no journal.
_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536")
_SHIFTED: Final[Mapping[str, Mapping[str, str]]] = {
    "run": {"n": "run", "seq": "seq"},
    "segments": {"run": "run", "n": "segments"},
    "jobs": {
        "n": "jobs",
        "entry": "jobs",
        "root": "jobs",
        "run": "run",
        "seq": "seq",
        "sending": "seq",
    },
    "facts": {"seq": "seq", "job": "jobs", "run": "run"},
    "verdicts": {"seq": "seq", "entry": "jobs", "job": "jobs", "corrects": "seq", "end": "seq"},
}
"""Columns with numbers of a ledger's own, and of what: each ledger's come after those of the
ledgers before it. A 0 is none."""
_HIGHEST: Final = {
    "run": "SELECT max(n) FROM part.run",
    "segments": "SELECT coalesce(max(n), 0) FROM part.segments",
    "jobs": "SELECT coalesce(max(n), 0) FROM part.jobs",
    "seq": LAST_SEQ.format("part"),
}
_SAME_ENTRY: Final = """
    SELECT p.name FROM part.jobs p JOIN main.jobs m ON m.name = p.name ORDER BY p.n LIMIT 1
"""
_SAME_JOB: Final = """
    SELECT m.name, p.name FROM part.jobs p JOIN main.jobs m ON m.id = p.id
    WHERE p.state = 'reused' LIMIT 1
"""


def merge_files(
    target: Path,
    sources: Sequence[Path],
    metadata: Mapping[str, str | int | None],
    segments: Sequence[RunSegment],
) -> None:
    """Create at ``target`` a ledger with all rows of ``sources``, which stay as they are.

    ``metadata``: columns of its own run, or of those merged by the names of ``run_info.key_of``;
    ``segments``: those of its own. All are of the present version. Raises
    LedgerError where an entry is in two of them, or the file cannot be written; then ``target``
    does not exist.
    """
    try:
        private_folder(target.parent)
        refuse_network(target.parent)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            _merge_into(made, sources, metadata, segments)
            sync(made)
            made.chmod(0o600)
            made.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{target}: the merged ledger cannot be written ({error}); name a local folder that is "
            "writable and has free space"
        ) from error


def _merge_into(
    path: Path,
    sources: Sequence[Path],
    metadata: Mapping[str, str | int | None],
    segments: Sequence[RunSegment],
) -> None:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rwc", uri=True)) as db:
        db.isolation_level = None
        for pragma in _SETTINGS:
            db.execute(f"PRAGMA {pragma}")
        for statement in (*TABLES, *VIEWS):
            db.execute(statement)
        before = {"run": 1, "segments": len(segments), "jobs": 0, "seq": 0}
        for source in sources:
            db.execute("ATTACH ? AS part", (sqlite_uri(source, "ro"),))
            db.execute("BEGIN")
            _refuse_duplicates(db, sources)
            for table, shifted in _SHIFTED.items():
                _copy(db, table, {one: before[of] for one, of in shifted.items()})
            for of, query in _HIGHEST.items():
                before[of] += db.execute(query).fetchone()[0]
            db.execute("COMMIT")
            db.execute("DETACH part")
        db.execute("INSERT INTO run (n) VALUES (1)")
        own = {**metadata, "ledger": LEDGER_VERSION, "seq": before["seq"]}
        for key, value in own.items():
            db.execute(*setting(key, value))
        db.executemany(
            "INSERT INTO segments (n, run, started, stopped) VALUES (?, 1, ?, ?)",
            ((n, text(one.started), text(one.stopped)) for n, one in enumerate(segments, 1)),
        )
        db.execute("PRAGMA journal_mode = WAL")


def _copy(db: sqlite3.Connection, table: str, shifts: Mapping[str, int]) -> None:
    """Copy the rows of a table, their own numbers moved."""
    columns = [str(row[1]) for row in db.execute(f"PRAGMA main.table_info({table})")]
    names = ", ".join(f'"{one}"' for one in columns)
    values = ", ".join(
        f'CASE WHEN "{one}" <> 0 THEN "{one}" + {shifts[one]} ELSE "{one}" END'
        if one in shifts
        else f'"{one}"'
        for one in columns
    )
    db.execute(f"INSERT INTO main.{table} ({names}) SELECT {values} FROM part.{table}")  # noqa: S608 - fixed text


def _refuse_duplicates(db: sqlite3.Connection, sources: Sequence[Path]) -> None:
    row = db.execute(_SAME_ENTRY).fetchone()
    if row is not None:
        raise LedgerError(_duplicate_message(str(row[0]), sources))
    row = db.execute(_SAME_JOB).fetchone()
    if row is not None:
        raise LedgerError(
            f"entries {row[0]!r} and {row[1]!r} were both reused from one job of an earlier run, "
            "which can be of one of them alone; run one of their shards again, without "
            "--manifest-reuse, and merge that"
        )


def _duplicate_message(entry: str, sources: Sequence[Path]) -> str:
    """Build the message that names the ledgers with this entry."""
    found: list[str] = []
    for source in sources:
        with closing(sqlite3.connect(sqlite_uri(source, "ro"), uri=True)) as db:
            if db.execute("SELECT 1 FROM jobs WHERE name = ? LIMIT 1", (entry,)).fetchone():
                found.append(str(source))
    return (
        f"entry {entry!r} is in {' and in '.join(found[:2])}: it was sent twice, and which of the "
        "two counts is not known; leave one of these ledgers out"
    )
