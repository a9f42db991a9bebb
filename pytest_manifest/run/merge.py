"""Check which ledgers may be merged, and describe the run that comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from pytest_manifest.broker.attempt import new_run_id, task_id_for
from pytest_manifest.errors import LedgerError
from pytest_manifest.files import copy_privately, private_folder
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger, RunInfo, RunSegment
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.merge import merge_files
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, RunStatus, columns_of
from pytest_manifest.ledger.run_info import UNITED_KEYS
from pytest_manifest.manifest import Shard, manifest_digest, read_manifest
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
            metadata = _metadata(info, sources)
            paths = [source.path for source in sources]
            merge_files(target, paths, metadata, _merged_segments(sources))
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
        return _read(path)
    except BAD_ROW_ERRORS as error:
        raise LedgerError(
            f"{path}: what it says of its run cannot be read ({error}); it is damaged, so leave it "
            "out, and run its shard again"
        ) from error


def _read(path: Path) -> MergeInput:
    with Ledger.open(path) as ledger:
        ledger.check_types()
        info, metadata = ledger.info.read(), ledger.info.all_meta()
        entries = ledger.attempts.count_entries()
        float(metadata.get(BUDGET) or 0)  # before anything is made
        final = sum(n for kind, n in ledger.verdicts.counts().items() if kind not in OPEN)
        return MergeInput(
            path=path,
            info=info,
            status=ledger.info.status,
            shard=ledger.info.shard(),
            texts={key: ledger.info.texts(key) for key in UNITED_KEYS},
            metadata=metadata,
            entries=entries,
            open=entries - final,
            segments=_segments(ledger, info),
        )


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
    first = infos[0]
    return RunInfo(
        run=new_run_id(),
        manifest=first.manifest,
        sha256=first.sha256,
        workflow=first.workflow,
        mode=first.mode,
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
