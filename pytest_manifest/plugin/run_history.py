"""Find the earlier run of a manifest that is audited or resumed, and the data of its stack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import DispatchError, LedgerError
from pytest_manifest.ledger import (
    Ledger,
    find_runs_by_digest,
    find_runs_of_manifest,
    run_number_of_lock,
)
from pytest_manifest.ledger.run_files import RunFiles, ledgers_in, runs_by_copy
from pytest_manifest.plugin.options import Options
from pytest_manifest.text import listed, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest, Shard
    from pytest_manifest.plugin.session_runs import SessionRuns

_SHOWN = 3
STACK_DATA = "stack_data"
"""The ledger's key for the folder with the data of the embedded stack's broker."""


@dataclass(frozen=True)
class AuditSource:
    """A ledger to audit.

    ``is_open``: a stack may know more. ``scratch``: the folder for a copy of the ledger to evaluate
    in, where the run's own verdicts must stay. ``evaluated``: this session has evaluated it by this
    manifest.
    """

    ledger: Path
    is_open: bool
    scratch: Path | None
    evaluated: bool = False


def audit_source(session_runs: SessionRuns, manifest: Manifest) -> AuditSource:
    """Choose the run to audit: the one that was named, or the newest of this manifest.

    Where the manifest was changed since, a copy of the run's ledger is evaluated by the manifest as
    it is now. Raises DispatchError for --manifest-wait on an unfinished merged run.
    """
    options = session_runs.context.options
    path = newest_run(options, manifest)
    with Ledger.open(path) as ledger:
        info, undecided = ledger.info.read(), ledger.attempts.has_undecided()
        merged, incomplete = (
            ledger.info.merged(),
            undecided or ledger.verdicts.any_without_receipt(),
        )
    if merged and undecided and options.wait:
        raise DispatchError(
            f"run {info.run} was merged of others, and waits for nothing; wait for each of these "
            "with --manifest-audit --manifest-wait where it was sent, then merge their ledgers "
            "again"
        )
    changed = info.sha256 != manifest.sha256
    if changed:
        name = short_path(manifest.path, options.root)
        session_runs.notices.append(
            f"{name} is not what run {info.run} was made of: the run is judged by what it says "
            "now, and its own ledger stays as it is"
        )
    scratch = session_runs.scratch_folder() if changed else None
    # A private stack is gone, and a merged run had several.
    is_open = incomplete and not info.is_private and not merged
    return AuditSource(path, is_open=is_open, scratch=scratch)


def ledger_to_resume(options: Options, manifest: Manifest) -> Path:
    """Return the ledger of the run to resume.

    Raises LedgerError where there is no run, or the manifest was changed since it, and
    DispatchError where it is going on in another pytest.
    """
    from pytest_manifest.processes import is_held

    path = _run_to_resume(options, manifest)
    with Ledger.open(path) as ledger:
        info = ledger.info.read()
    if is_held(RunFiles(path).lock):
        raise DispatchError(
            f"run {info.run} is going on in another pytest; wait until that has ended"
        )
    if info.sha256 != manifest.sha256:
        raise LedgerError(
            f"{short_path(manifest.path, options.root)}: was changed since run {info.run}; "
            f"restore it from {RunFiles(path).manifest(info.sha256).name}, beside the ledger, or "
            f"begin a new run with --manifest-reuse={info.run}"
        )
    return path


def _run_to_resume(options: Options, manifest: Manifest) -> Path:
    """Return the ledger that :func:`newest_run` finds; raise DispatchError for a merged one."""
    path = newest_run(options, manifest)
    with Ledger.open(path) as ledger:
        merged = ledger.info.merged()
    if merged:
        raise DispatchError(
            f"run {path.stem} was merged of others ({listed(merged, _SHOWN)}) and cannot be "
            "resumed; go on with each of these, with --manifest-resume and its --manifest-shard, "
            "then merge their ledgers again"
        )
    return path


def newest_run(options: Options, manifest: Manifest) -> Path:
    """Return the ledger of the run that was named, or of the newest of this manifest and shard.

    Where no run has the manifest's digest, takes the newest run of this file from before it was
    changed; not for a shard, which had other entries then. Raises LedgerError where there is none
    at all.
    """
    name = short_path(manifest.path, options.root)
    if options.run:
        path = RunFiles.of(options.ledgers, options.run).ledger
        if not path.is_file():
            runs = find_runs_of_manifest(options.ledgers, manifest.path)
            known = ", ".join(p.stem for p in runs) or "none"
            raise LedgerError(f"there is no run {options.run}; runs of {name}: {known}")
        _check_kinship(path, manifest, name)
        _check_shard(path, options.shard, manifest, name)
        return path
    of_digest = find_runs_by_digest(options.ledgers, manifest.sha256)
    earlier = _of_shard(of_digest, options.shard)
    if options.shard is None and not earlier:
        _refuse_shards(of_digest, name)
        earlier = _of_shard(find_runs_of_manifest(options.ledgers, manifest.path), None)
    for path, error in unreadable_ledgers(options, manifest):
        if not earlier or _start_order(path) > _start_order(earlier[-1]):
            raise LedgerError(
                f"{name}: the newest run of this manifest cannot be read: {error}; "
                "an older one can be named with --manifest-run=RUN"
            )
    if not earlier:
        what = "this manifest" if options.shard is None else f"{options.shard.words} as it is now"
        raise LedgerError(
            f"{name}: there is no run of {what} in {options.ledgers}; "
            "dispatch it first, without --manifest-audit and --manifest-resume"
        )
    return earlier[-1]


def _of_shard(ledgers: Sequence[Path], shard: Shard | None) -> list[Path]:
    """Return the ledgers of runs of exactly this shard; with None, of runs of no shard."""
    return [path for path in ledgers if _shard(path) == shard]


def _shard(path: Path) -> Shard | None:
    with Ledger.open(path) as ledger:
        return ledger.info.shard()


def _refuse_shards(ledgers: Sequence[Path], name: str) -> None:
    """Raise LedgerError where all runs of the manifest are of shards."""
    if ledgers:
        runs = listed([f"{path.stem} ({_shard(path)})" for path in ledgers], _SHOWN)
        raise LedgerError(
            f"{name}: there are only runs of shards of it ({runs}); merge them with "
            "'manifest merge LEDGER...', or name one by --manifest-shard=K/N"
        )


def _check_shard(path: Path, shard: Shard | None, manifest: Manifest, name: str) -> None:
    """Raise LedgerError where the run that was named is not of the session's shard."""
    with Ledger.open(path) as ledger:
        info, own = ledger.info.read(), ledger.info.shard()
    if own is not None and own != shard:
        raise LedgerError(f"run {info.run} is of {own.words}; add --manifest-shard={own}")
    if shard is not None and info.sha256 != manifest.sha256:
        raise LedgerError(
            f"{name}: was changed since run {info.run}, so its shards are others; restore it, or "
            "leave out --manifest-shard"
        )
    if shard is not None and own is None:
        raise LedgerError(f"run {info.run} is of no shard; leave out --manifest-shard={shard}")


def unreadable_ledgers(options: Options, manifest: Manifest) -> list[tuple[Path, LedgerError]]:
    """Return the ledgers with a copy of this manifest that cannot be read, and why."""
    found: list[tuple[Path, LedgerError]] = []
    for path in runs_by_copy(options.ledgers, manifest.sha256):
        try:
            Ledger.open(path).close()
        except LedgerError as error:
            found.append((path, error))
    return found


def _start_order(ledger: Path) -> tuple[int, int]:
    """Return the key that sorts ledgers, readable or not, by the start of their runs.

    It is the run number in the lock file and, for runs without one, when that file was made (ns).
    """
    lock = RunFiles(ledger).lock
    return run_number_of_lock(lock), lock.stat().st_mtime_ns if lock.exists() else 0


def _check_kinship(path: Path, manifest: Manifest, name: str) -> None:
    """Raise LedgerError where the run was made of a different manifest than this one."""
    with Ledger.open(path) as ledger:
        info = ledger.info.read()
    planned = info.workflow is not None
    replanned = (info.workflow, info.mode) == (manifest.header.workflow, manifest.header.mode)
    same_file = info.manifest == manifest.path.resolve()
    if info.sha256 != manifest.sha256 and not same_file and not (planned and replanned):
        raise LedgerError(
            f"run {info.run} was a run of another manifest ({info.manifest.name}) than {name}"
        )


def kept_stack_data(options: Options, manifest: Manifest) -> Path | None:
    """Return the data folder that the embedded broker left when its pytest ended without a stop."""
    with Ledger.open(ledger_to_resume(options, manifest)) as ledger:
        return kept_folder(ledger)


def is_finished(options: Options, manifest: Manifest, entries: Iterable[str]) -> bool:
    """Check whether the newest run is of this manifest and each of the entries has passed.

    If so, there is nothing to resume.
    """
    with Ledger.open(_run_to_resume(options, manifest)) as ledger:
        if ledger.info.read().sha256 != manifest.sha256:
            return False
        statuses = ledger.verdicts.statuses()
    return all(statuses.get(entry) == "passed" for entry in entries)


def stack_is_gone(path: Path) -> bool:
    """Check whether the run's stack was a private one that has left no data."""
    with Ledger.open(path) as ledger:
        return ledger.info.read().is_private and kept_folder(ledger) is None


def kept_folder(ledger: Ledger) -> Path | None:
    """Return the folder in which the run's embedded broker left data, None where none is left."""
    folder = ledger.info.get_meta(STACK_DATA)
    return Path(folder) if folder and Path(folder).is_dir() else None


def forget_stack_data(options: Options) -> None:
    """Remove the data folders of embedded brokers that no run would resume with.

    Removes none where a ledger cannot be read, as it may name any of them.
    """
    import shutil

    from pytest_manifest.processes import is_held

    folders = set(options.stacks.iterdir()) if options.stacks.is_dir() else set()
    folders = {folder for folder in folders if not is_held(folder / "lock")}
    for path in ledgers_in(options.ledgers) if folders else ():
        try:
            with Ledger.open(path) as ledger:
                kept = kept_folder(ledger)
                if kept is not None and ledger.info.status != "finished":
                    folders.discard(kept)
        except LedgerError:
            return
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
