"""Find the earlier run of a manifest that is audited or resumed, and the data of its stack.

Refuse to send one manifest twice: after an earlier run, beside another session, by two files.

Also one that was edited under its run: runs of the same file count, whatever was in it.

A session that dispatches a manifest looks for earlier unfinished runs, and a session that resumes
one looks for newer ones. Each has to record in a ledger what it does before the other looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import DispatchError, LedgerError
from pytest_manifest.files import git_ignored_folder
from pytest_manifest.ledger import Ledger, RunInfo, find_runs
from pytest_manifest.ledger.files import RunFiles, ledgers_in, run_number_of_lock, runs_by_copy
from pytest_manifest.ledger.rows import RunStatus
from pytest_manifest.plugin.options import Options
from pytest_manifest.schema.wire import sha256
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
    it is now. Raises DispatchError for --manifest-audit=wait on an unfinished merged run.
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
            "with --manifest-audit=wait where it was sent, then merge their ledgers "
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
            runs = find_runs(options.ledgers, manifest.path)
            known = ", ".join(p.stem for p in runs) or "none"
            raise LedgerError(f"there is no run {options.run}; runs of {name}: {known}")
        _check_kinship(path, manifest, name)
        _check_shard(path, options.shard, manifest, name)
        return path
    of_digest = find_runs(options.ledgers, sha256=manifest.sha256)
    earlier = _of_shard(of_digest, options.shard)
    if options.shard is None and not earlier:
        _refuse_shards(of_digest, name)
        earlier = _of_shard(find_runs(options.ledgers, manifest.path), None)
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


@contextlib.contextmanager
def one_at_a_time(options: Options, manifests: Sequence[Manifest]) -> Iterator[None]:
    """Lock these manifests, so that no other session begins to send one of them."""
    from pytest_manifest.run.locks import one_dispatch_at_a_time

    git_ignored_folder(options.folder)
    with contextlib.ExitStack() as locks:
        files = (sha256(bytes(one.path.resolve())) for one in manifests)
        for digest in sorted({*files, *(manifest.sha256 for manifest in manifests)}):
            locks.enter_context(one_dispatch_at_a_time(options.ledgers, digest))
        yield


def refuse_overtaken(options: Options, manifest: Manifest, ledger: Path) -> None:
    """Raise DispatchError where another session sends the manifest since ``ledger`` was chosen.

    Call it within :func:`one_at_a_time`.
    """
    from pytest_manifest.processes import is_held

    name = short_path(manifest.path, options.root)
    chosen = ledger_to_resume(options, manifest)
    if chosen != ledger:
        raise DispatchError(
            f"{name}: run {chosen.stem} of this manifest has begun meanwhile; go on with that one"
        )
    for path in _overlapping_runs(options, manifest):
        if path == ledger or not is_held(RunFiles(path).lock):
            continue
        with Ledger.open(path) as other:
            going_on = other.info.status != "finished"
        if going_on:
            raise DispatchError(
                f"{name}: run {path.stem} of this manifest is going on in another pytest; wait "
                "until that has ended"
            )


def refuse_copies(options: Options, manifests: Sequence[Manifest]) -> None:
    """Raise DispatchError where two files hold one manifest that must not be sent twice.

    The search for earlier runs cannot see it, as the runs of a session begin together.
    """
    seen: dict[str, Manifest] = {}
    for manifest in manifests:
        first = seen.setdefault(manifest.sha256, manifest)
        if first is not manifest and not manifest.header.rerun:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(
                f"nothing was sent: {names[0]} and {names[1]} are the same manifest, and its "
                "header says that this work must not be repeated; give one of them"
            )


def refuse_one_run_twice(
    options: Options, manifests: Sequence[Manifest], ledgers: Sequence[Path]
) -> None:
    """Raise DispatchError where two files belong to one run, which is resumed or audited once."""
    seen: dict[Path, Manifest] = {}
    for manifest, ledger in zip(manifests, ledgers, strict=True):
        first = seen.setdefault(ledger, manifest)
        if first is not manifest:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(
                f"{names[0]} and {names[1]} are both of run {ledger.stem}; give one of them"
            )


def guard_against_repetition(
    options: Options, manifest: Manifest, entries: Sequence[str], notices: list[str]
) -> None:
    """Refuse to send a batch twice by accident.

    Raises DispatchError where an earlier run of the manifest, or of its file before that was
    edited, may still be going on, where work of these entries may have run in the latter, or where
    the manifest's header forbids a second run. Adds a notice where an earlier run was stopped
    midway.
    """
    if options.rerun:
        return
    name = short_path(manifest.path, options.root)
    for _, error in unreadable_ledgers(options, manifest):
        raise DispatchError(
            f"{name}: an earlier run of this manifest may be unfinished, and its ledger cannot be "
            f"read: {error}; to send everything again add --manifest-rerun"
        )
    every = [_earlier_run(path) for path in _overlapping_runs(options, manifest)]
    for run in every:
        _refuse_unfinished(run, name, is_edited=run.info.sha256 != manifest.sha256)
    if every and every[-1].info.sha256 != manifest.sha256:
        _refuse_left_work(every[-1], manifest, entries, name)
    earlier = [run for run in every if run.info.sha256 == manifest.sha256]
    sent_before = sum(run.sent for run in earlier)
    if not sent_before:
        return
    last = earlier[-1]
    if not manifest.header.rerun:
        raise DispatchError(
            f"{name}: earlier runs, the last of them {last.info.run}, sent "
            f"{min(sent_before, len(manifest))} of its "
            "entries already, and its header says that this work must not be repeated; look at it "
            "with --manifest-audit, go on with it by --manifest-resume, or insist with "
            "--manifest-rerun"
        )
    if last.status != "finished" and last.sent and options.reuse is None:
        notices.append(
            f"{name}: run {last.info.run} was stopped after {last.sent} of {last.info.entries} "
            "entries; this run sends all that is selected again, --manifest-resume would have gone "
            "on"
        )


@dataclass(frozen=True, slots=True)
class _EarlierRun:
    """An earlier run of a manifest, by its ledger.

    ``sent``: entries that were, or may have been; ``is_kept``: the data of its private stack were
    kept; ``is_merged``: its ledger was merged of others.
    """

    path: Path
    info: RunInfo
    status: RunStatus
    sent: int
    is_kept: bool
    is_merged: bool


def _earlier_run(path: Path) -> _EarlierRun:
    with Ledger.open(path) as ledger:
        counts = ledger.attempts.send_states()
        return _EarlierRun(
            path,
            ledger.info.read(),
            ledger.info.status,
            sent=sum(counts.get(state, 0) for state in ("intent", "sent", "uncertain")),
            is_kept=kept_folder(ledger) is not None,
            is_merged=bool(ledger.info.merged()),
        )


def _refuse_unfinished(run: _EarlierRun, name: str, *, is_edited: bool) -> None:
    """Raise DispatchError where jobs of an earlier run may still be queued or running."""
    from pytest_manifest.processes import is_held

    if run.status != "finished" and is_held(RunFiles(run.path).lock):
        raise DispatchError(
            f"{name}: run {run.info.run} of this manifest is going on in another pytest; wait for "
            "it, or send everything again with --manifest-rerun"
        )
    outlives = not run.info.is_private and run.status in ("running", "detached")
    if not (outlives or run.is_kept) or not run.sent:
        return
    if is_edited:
        kept = RunFiles(run.path).manifest(run.info.sha256).name
        raise DispatchError(
            f"{name}: was changed under run {run.info.run}, whose jobs may still be queued or "
            f"running; restore it from {kept} and add --manifest-resume, or insist with "
            "--manifest-rerun"
        )
    attach = "attach to it with --manifest-audit=wait, "
    how = "go on with the runs that it was merged of" if run.is_merged else "go on with it"
    raise DispatchError(
        f"{name}: run {run.info.run} of this manifest is unfinished and its jobs may still be "
        f"queued or running; {'' if run.is_kept or run.is_merged else attach}{how} by "
        "--manifest-resume, or send everything again with --manifest-rerun"
    )


def _refuse_left_work(
    run: _EarlierRun, manifest: Manifest, entries: Sequence[str], name: str
) -> None:
    """Raise DispatchError where work of these entries may have run in an unfinished run.

    Of the same file, before it was edited.
    """
    from pytest_manifest.run.changes import left_work

    if run.status == "finished" or not run.sent:
        return
    left = left_work(run.path, manifest, entries)
    if left:
        raise DispatchError(
            f"{name}: what {listed(list(map(repr, left)), _SHOWN)} would do may have run in run "
            f"{run.info.run}, did not pass there and is not idempotent; deselect it, or insist "
            "with --manifest-rerun"
        )


_NAMED: Final = 3


def _overlapping_runs(options: Options, manifest: Manifest) -> list[Path]:
    """Return the ledgers of runs that may have sent what this session would send, oldest first.

    Those of the manifest as it is, of this file as it was, whose shards were others.
    Leaves out a merged run where the runs that it was merged of are here too: it would count twice.
    """
    from pytest_manifest.manifest.partition import overlap

    found: list[Path] = []
    for path in find_runs(options.ledgers, manifest.path, manifest.sha256):
        with Ledger.open(path) as ledger:
            merged, shards = ledger.info.merged(), ledger.info.shards()
            is_edited = ledger.info.read().sha256 != manifest.sha256
        here = [RunFiles.of(options.ledgers, run).ledger.is_file() for run in merged]
        overlaps = is_edited or any(overlap(options.shard, shard) for shard in shards)
        if overlaps and not (here and all(here)):
            found.append(path)
    return found


def give_up_unfinished(options: Options, manifest: Manifest) -> None:
    """Mark the manifest's unfinished runs whose pytest is gone as stopped, so none is resumed.

    Forgets the copies of the manifest beside unreadable ledgers, too. Call it once the new run,
    which sends everything again, is certain: where that is refused the earlier runs must stay
    resumable.
    """
    from pytest_manifest.processes import is_held

    for path, _ in unreadable_ledgers(options, manifest):
        RunFiles(path).forget_manifest(manifest.sha256)
    for path in _overlapping_runs(options, manifest):
        with Ledger.open(path, write=True) as ledger:
            if is_held(RunFiles(path).lock):
                continue
            ledger.info.set_meta(STACK_DATA, "")
            if ledger.info.status == "running":
                ledger.info.set_status("stopped")
