"""Find the earlier runs of a manifest: the one that is audited or resumed, and those that forbid to
send it again.

Also one that was edited under its run: runs of the same file count, whatever was in it.

A session that dispatches a manifest looks for earlier unfinished runs, and a session that resumes
one looks for newer ones. Each has to record in a ledger what it does before the other looks.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import DispatchError, LedgerError
from pytest_manifest.files import git_ignored_folder
from pytest_manifest.ledger import Ledger, RunInfo, find_runs
from pytest_manifest.ledger.files import (
    RunFiles,
    find_ledger,
    ledgers_in,
    run_number_of_lock,
    runs_by_copy,
)
from pytest_manifest.ledger.rows import RunStatus
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.run_options import receipt_keys
from pytest_manifest.processes import is_held
from pytest_manifest.schema.wire import sha256
from pytest_manifest.text import listed, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest, Shard
    from pytest_manifest.plugin.session_runs import SessionRuns


_SHOWN: Final = 3
STACK_DATA: Final = "stack_data"
"""The ledger's key for the folder with the data of the embedded stack's broker."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run of a manifest as its ledger has it.

    ``parts``: the runs that it was merged of, and ``shards`` what it has entries of (None: the
    whole manifest). ``stack_data``: the folder in which its private broker has left data.
    """

    path: Path
    info: RunInfo
    status: RunStatus
    parts: Sequence[str]
    shard: Shard | None
    shards: Sequence[Shard | None]
    stack_data: Path | None

    @classmethod
    def read(cls, path: Path) -> EarlierRun:
        with Ledger.open(path) as ledger:
            own = ledger.info
            folder = own.get_meta(STACK_DATA)
            kept = Path(folder) if folder and Path(folder).is_dir() else None
            return cls(path, own.read(), own.status, own.merged(), own.shard(), own.shards(), kept)

    @property
    def is_going_on(self) -> bool:
        """Return whether a pytest is at it."""
        return is_held(RunFiles(self.path).lock)

    @property
    def stack_is_gone(self) -> bool:
        """Return whether its stack was a private one that has left no data."""
        return self.info.is_private and self.stack_data is None

    def is_of(self, manifest: Manifest) -> bool:
        """Return whether it was made of the manifest as it is now."""
        return self.info.sha256 == manifest.sha256


def sent(path: Path) -> int:
    """Count the entries that were sent, or may have been, by the ledger of a run."""
    with Ledger.open(path) as ledger:
        counts = ledger.attempts.send_states()
    return sum(counts.get(state, 0) for state in ("intent", "sent", "uncertain"))


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

    With --manifest-receipts it is a ledger made of the receipts, in a scratch folder. Where the
    manifest was changed since, a copy of the run's ledger is evaluated by the manifest as it is
    now. Raises DispatchError for --manifest-audit=wait on an unfinished merged run.
    """
    options = session_runs.context.options
    if options.receipts is not None:
        from pytest_manifest.run.exports import ledger_of_receipts

        folder, keys = session_runs.scratch_folder(), receipt_keys(options, session_runs.own_key)
        path, warnings = ledger_of_receipts(manifest, options.receipts, folder, keys)
        session_runs.notices += warnings
        return AuditSource(path, is_open=False, scratch=None, evaluated=True)
    run = newest_run(options, manifest)
    with Ledger.open(run.path) as ledger:
        undecided = ledger.attempts.has_undecided()
        incomplete = undecided or ledger.verdicts.any_without_receipt()
    if run.parts and undecided and options.audit == "wait":
        raise DispatchError(
            f"run {run.info.run} was merged of others; wait for each of these with "
            "--manifest-audit=wait where it was sent, then merge again"
        )
    scratch = None if run.is_of(manifest) else session_runs.scratch_folder()
    if scratch is not None:
        session_runs.notices.append(
            f"{short_path(manifest.path, options.root)} is not what run {run.info.run} was made "
            "of: the run is judged by what it says now, its own ledger stays as it is"
        )
    # A private stack is gone, and a merged run had several. Of what ran again after the run's end
    # only its stack has heard, which is asked where it is named.
    asked = options.broker_given and options.stack_word != "private"
    is_open = (incomplete or asked) and not run.info.is_private and not run.parts
    return AuditSource(run.path, is_open=is_open, scratch=scratch)


def run_to_resume(options: Options, manifest: Manifest) -> EarlierRun:
    """Return the run to resume.

    Raises LedgerError where there is no run, or the manifest was changed since it, and
    DispatchError where it was merged, or is going on in another pytest.
    """
    run = _unmerged(options, manifest)
    if run.is_going_on:
        raise DispatchError(
            f"run {run.info.run} is going on in another pytest; wait until that has ended"
        )
    if not run.is_of(manifest):
        goes_on = _may_go_on(run)  # a new run is refused as long as that is not known
        raise LedgerError(
            f"{short_path(manifest.path, options.root)}: was changed since run {run.info.run}"
            f"{', whose jobs may still be queued or running' if goes_on else ''}; "
            f"{_as_it_was(run, manifest)}"
            f"{'' if goes_on else f', or begin a new run with --manifest-reuse={run.info.run}'}"
        )
    return run


def _may_go_on(run: EarlierRun) -> bool:
    """Return whether jobs of a run that no pytest follows may be queued or running."""
    outlives = not run.info.is_private and run.status in ("running", "detached")
    return (outlives or bool(run.stack_data)) and sent(run.path) > 0


def _as_it_was(run: EarlierRun, manifest: Manifest) -> str:
    """Return how to have a manifest as it was when its run was made.

    What is kept of one in YAML is the JSON lines that it stood for: they have its digest, and are
    no YAML.
    """
    from pytest_manifest.manifest.yaml_file import is_yaml

    kept = RunFiles(run.path).manifest(run.info.sha256)
    if is_yaml(manifest.path):
        return f"give it as it was, by --manifest={quote(short_path(kept, Path.cwd()))}"
    return f"restore it from {kept.name}, beside the ledger"


def _unmerged(options: Options, manifest: Manifest) -> EarlierRun:
    run = newest_run(options, manifest)
    if run.parts:
        raise DispatchError(
            f"run {run.info.run} was merged of others ({listed(run.parts, _SHOWN)}); resume each "
            "of these, with its --manifest-shard, then merge again"
        )
    return run


def newest_run(options: Options, manifest: Manifest) -> EarlierRun:
    """Return the run that was named, or the newest of this manifest and shard.

    Where no run has the manifest's digest, takes the newest run of this file from before it was
    changed; not for a shard, which had other entries then. Raises LedgerError where there is none
    at all.
    """
    name, shard = short_path(manifest.path, options.root), options.shard
    if options.run:
        return _named_run(options, manifest, options.run, name)
    every = [*map(EarlierRun.read, find_runs(options.ledgers, sha256=manifest.sha256))]
    earlier = [run for run in every if run.shard == shard]
    if shard is None and not earlier:
        if every:
            runs = listed([f"{run.info.run} ({run.shard})" for run in every], _SHOWN)
            raise LedgerError(
                f"{name}: there are only runs of shards of it ({runs}); merge them by 'manifest "
                "merge', or name one by --manifest-shard=K/N"
            )
        of_file = map(EarlierRun.read, find_runs(options.ledgers, manifest.path))
        earlier = [run for run in of_file if run.shard is None]
    for path, error in _unreadable_ledgers(options, manifest):
        if not earlier or _start_order(path) > _start_order(earlier[-1].path):
            raise LedgerError(
                f"{name}: the newest run of this manifest cannot be read: {error}; "
                "an older one can be named with --manifest-run=RUN"
            )
    if not earlier:
        what = "this manifest" if shard is None else f"{shard.words} as it is now"
        raise LedgerError(
            f"{name}: there is no run of {what} in {options.ledgers}; "
            "dispatch it first, without --manifest-audit and --manifest-resume"
        )
    return earlier[-1]


def _named_run(options: Options, manifest: Manifest, named: str, name: str) -> EarlierRun:
    """Return the run of --manifest-run, by its id or the beginning of that.

    Raises LedgerError where it is of something else, or several begin like that.
    """
    path, shard = find_ledger(options.ledgers, named), options.shard
    if path is None:
        known = ", ".join(p.stem for p in find_runs(options.ledgers, manifest.path)) or "none"
        raise LedgerError(f"there is no run {named}; runs of {name}: {known}")
    run = EarlierRun.read(path)
    info, header = run.info, manifest.header
    replanned = info.workflow and (info.workflow, info.mode) == (header.workflow, header.mode)
    if not (run.is_of(manifest) or info.manifest == manifest.path.resolve() or replanned):
        raise LedgerError(
            f"run {info.run} was a run of another manifest ({info.manifest.name}) than {name}"
        )
    if run.shard is not None and run.shard != shard:
        raise LedgerError(
            f"run {info.run} is of {run.shard.words}; add --manifest-shard={run.shard}"
        )
    if shard is not None and not run.is_of(manifest):
        raise LedgerError(
            f"{name}: was changed since run {info.run}, so its shards are others; restore it, or "
            "leave out --manifest-shard"
        )
    if shard is not None and run.shard is None:
        raise LedgerError(f"run {info.run} is of no shard; leave out --manifest-shard={shard}")
    return run


def _unreadable_ledgers(options: Options, manifest: Manifest) -> Iterator[tuple[Path, LedgerError]]:
    """Yield the ledgers with a copy of this manifest that cannot be read, and why."""
    for path in runs_by_copy(options.ledgers, manifest.sha256):
        try:
            Ledger.open(path).close()
        except LedgerError as error:
            yield path, error


def _start_order(ledger: Path) -> tuple[int, int]:
    """Return the key that sorts ledgers, readable or not, by the start of their runs.

    It is the run number in the lock file and, for runs without one, when that file was made (ns).
    """
    lock = RunFiles(ledger).lock
    return run_number_of_lock(lock), lock.stat().st_mtime_ns if lock.exists() else 0


def is_finished(options: Options, manifest: Manifest, entries: Iterable[str]) -> bool:
    """Check whether the newest run is of this manifest and each of the entries has passed.

    If so, there is nothing to resume.
    """
    run = _unmerged(options, manifest)
    if not run.is_of(manifest):
        return False
    with Ledger.open(run.path) as ledger:
        statuses = ledger.verdicts.statuses()
    return all(statuses.get(entry) == "passed" for entry in entries)


def forget_stack_data(options: Options) -> None:
    """Remove the data folders of embedded brokers that no run would resume with.

    Removes none where a ledger cannot be read, as it may name any of them.
    """
    folders = set(options.stacks.iterdir()) if options.stacks.is_dir() else set()
    folders = {folder for folder in folders if not is_held(folder / "lock")}
    try:
        runs = [*map(EarlierRun.read, ledgers_in(options.ledgers) if folders else ())]
    except LedgerError:
        return
    for folder in folders - {run.stack_data for run in runs if run.status != "finished"}:
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


def refuse_overtaken(options: Options, manifest: Manifest, run: EarlierRun) -> None:
    """Raise DispatchError where another session sends the manifest since ``run`` was chosen.

    Call it within :func:`one_at_a_time`.
    """
    name = short_path(manifest.path, options.root)
    chosen = run_to_resume(options, manifest)
    if chosen.path != run.path:
        raise DispatchError(
            f"{name}: run {chosen.info.run} of it has begun meanwhile; go on with that one"
        )
    for other in _overlapping_runs(options, manifest):
        if other.path != run.path and other.is_going_on and other.status != "finished":
            raise DispatchError(
                f"{name}: run {other.info.run} of it is going on in another pytest; wait for it"
            )


def refuse_copies(options: Options, manifests: Sequence[Manifest]) -> None:
    """Raise DispatchError where two files hold one manifest that must not be sent twice.

    The search for earlier runs cannot see it, as the runs of a session begin together.
    """
    once = [manifest for manifest in manifests if not manifest.header.rerun]
    _refuse_twice(
        options,
        once,
        [manifest.sha256 for manifest in once],
        "nothing was sent: {} are the same manifest, and its header says that this work must not "
        "be repeated; give one of them",
    )


def refuse_one_run_twice(
    options: Options, manifests: Sequence[Manifest], ledgers: Sequence[Path]
) -> None:
    """Raise DispatchError where two files belong to one run, which is resumed or audited once."""
    runs = [ledger.stem for ledger in ledgers]
    _refuse_twice(options, manifests, runs, "{} are both of run {}; give one of them")


def _refuse_twice(
    options: Options, manifests: Sequence[Manifest], keys: Sequence[str], message: str
) -> None:
    """Raise DispatchError with the message, of two manifests that have the same key."""
    seen: dict[str, Manifest] = {}
    for manifest, key in zip(manifests, keys, strict=True):
        first = seen.setdefault(key, manifest)
        if first is not manifest:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(message.format(" and ".join(names), key))


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
    for _, error in _unreadable_ledgers(options, manifest):
        raise DispatchError(
            f"{name}: an earlier run of this manifest may be unfinished, and its ledger cannot be "
            f"read: {error}; to send everything again add --manifest-rerun"
        )
    every = _overlapping_runs(options, manifest)
    for run in every:
        _refuse_unfinished(run, name, manifest)
    if every and not every[-1].is_of(manifest):
        _refuse_left_work(every[-1], manifest, entries, name)
    earlier = [(run, sent(run.path)) for run in every if run.is_of(manifest)]
    sent_before = sum(number for _, number in earlier)
    if not sent_before:
        return
    last, sent_last = earlier[-1]
    if not manifest.header.rerun:
        number = min(sent_before, len(manifest))
        raise DispatchError(
            f"{name}: earlier runs, the last of them {last.info.run}, sent {number} of its entries "
            "already, and its header says that this work must not be repeated; --manifest-audit "
            "looks at it, --manifest-resume goes on, --manifest-rerun insists"
        )
    if last.status != "finished" and sent_last and options.reuse is None:
        notices.append(
            f"{name}: run {last.info.run} was stopped after {sent_last} of {last.info.entries} "
            "entries; this run sends all again, --manifest-resume would have gone on"
        )


def _refuse_unfinished(run: EarlierRun, name: str, manifest: Manifest) -> None:
    """Raise DispatchError where jobs of an earlier run may still be queued or running."""
    if run.status != "finished" and run.is_going_on:
        raise DispatchError(
            f"{name}: run {run.info.run} of this manifest is going on in another pytest; wait for "
            "it, or send everything again with --manifest-rerun"
        )
    if not _may_go_on(run):
        return
    if not run.is_of(manifest):
        raise DispatchError(
            f"{name}: was changed under run {run.info.run}, whose jobs may still be queued or "
            f"running; {_as_it_was(run, manifest)}, and add --manifest-resume, or insist with "
            "--manifest-rerun"
        )
    attach = "attach to it with --manifest-audit=wait, "
    how = "go on with the runs that it was merged of" if run.parts else "go on with it"
    raise DispatchError(
        f"{name}: run {run.info.run} of this manifest is unfinished and its jobs may still be "
        f"queued or running; {'' if run.stack_data or run.parts else attach}{how} by "
        "--manifest-resume, or send everything again with --manifest-rerun"
    )


def _refuse_left_work(
    run: EarlierRun, manifest: Manifest, entries: Sequence[str], name: str
) -> None:
    """Raise DispatchError where work of these entries may have run in an unfinished run.

    Of the same file, before it was edited.
    """
    from pytest_manifest.run.changes import left_work

    if run.status == "finished" or not sent(run.path):
        return
    if left := left_work(run.path, manifest, entries):
        raise DispatchError(
            f"{name}: {listed(list(map(repr, left)), _SHOWN)} may have run in run {run.info.run}, "
            "did not pass there and is not idempotent; deselect it, or insist with --manifest-rerun"
        )


def _overlapping_runs(options: Options, manifest: Manifest) -> list[EarlierRun]:
    """Return the runs that may have sent what this session would send, oldest first.

    Those of the manifest as it is, and of this file as it was, whose shards were others. Leaves out
    a merged run where the runs that it was merged of are here too: it would count twice.
    """
    from pytest_manifest.manifest.partition import overlap

    found: list[EarlierRun] = []
    for path in find_runs(options.ledgers, manifest.path, manifest.sha256):
        run = EarlierRun.read(path)
        here = [RunFiles.of(options.ledgers, part).ledger.is_file() for part in run.parts]
        overlaps = any(overlap(options.shard, shard) for shard in run.shards)
        if (overlaps or not run.is_of(manifest)) and not (here and all(here)):
            found.append(run)
    return found


def give_up_unfinished(options: Options, manifest: Manifest) -> None:
    """Mark the manifest's unfinished runs whose pytest is gone as stopped, so none is resumed.

    Forgets the copies of the manifest beside unreadable ledgers, too. Call it once the new run,
    which sends everything again, is certain: where that is refused the earlier runs must stay
    resumable.
    """
    for path, _ in _unreadable_ledgers(options, manifest):
        RunFiles(path).forget_manifest(manifest.sha256)
    for run in _overlapping_runs(options, manifest):
        if run.is_going_on:
            continue
        with Ledger.open(run.path, write=True) as ledger:
            ledger.info.set_meta(STACK_DATA, "")
            if ledger.info.status == "running":
                ledger.info.set_status("stopped")
