"""Refuse to send one manifest twice: after an earlier run, beside another session, by two files.

Also one that was edited under its run: runs of the same file count, whatever was in it.

A session that dispatches a manifest looks for earlier unfinished runs, and a session that resumes
one looks for newer ones. Each has to record in a ledger what it does before the other looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import DispatchError
from pytest_manifest.files import git_ignored_folder
from pytest_manifest.ledger import Ledger, RunInfo, RunStatus, find_runs_of_manifest
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.run_history import (
    STACK_DATA,
    kept_folder,
    ledger_to_resume,
    unreadable_ledgers,
)
from pytest_manifest.schema.wire import sha256
from pytest_manifest.text import listed, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest


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
    attach = "attach to it with --manifest-audit --manifest-wait, "
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


_SHOWN: Final = 3


def _overlapping_runs(options: Options, manifest: Manifest) -> list[Path]:
    """Return the ledgers of runs that may have sent what this session would send, oldest first.

    Those of the manifest as it is, of this file as it was, whose shards were others.
    Leaves out a merged run where the runs that it was merged of are here too: it would count twice.
    """
    from pytest_manifest.manifest import overlap

    found: list[Path] = []
    for path in find_runs_of_manifest(options.ledgers, manifest.path, manifest.sha256):
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
