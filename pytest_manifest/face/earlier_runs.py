"""Earlier runs of a manifest: the one to audit, and those that forbid to send it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import DispatchError, LedgerError
from pytest_manifest.face.options import Options
from pytest_manifest.face.session import short_path
from pytest_manifest.ledger import Ledger, find_runs

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest


def guard_against_repetition(options: Options, manifest: Manifest, notices: list[str]) -> None:
    """A batch is never bought twice by accident.

    Raises DispatchError where an earlier run of the manifest may still be going on, or where its
    header forbids a second run.
    """
    from pytest_manifest.run.locks import is_held

    if options.rerun:
        return
    name = short_path(manifest.path, options.root)
    sent_before = 0
    for path in find_runs(options.ledgers, manifest.sha256):
        with Ledger.open(path) as ledger:
            status, info, counts = ledger.status, ledger.info(), ledger.send_states()
        sent = sum(counts.get(state, 0) for state in ("intent", "sent", "uncertain"))
        sent_before += sent
        followed = status == "running" and is_held(path.with_suffix(".lock"))
        if followed or (status in ("running", "detached") and not info.owned and sent):
            raise DispatchError(
                f"{name}: run {info.run} of this manifest is unfinished and its jobs may still be "
                "queued or running; attach to it with --audit --wait, or send everything again "
                "with --manifest-rerun"
            )
        last = (info, status, sent)
    if not sent_before:
        return
    if not manifest.header.rerun:
        raise DispatchError(
            f"{name}: earlier runs, the last of them {last[0].run}, sent {sent_before} of its "
            "entries already, and its header says that this work must not be repeated; look at it "
            "with --audit, or insist with --manifest-rerun"
        )
    if last[1] != "finished" and last[2]:
        notices.append(
            f"{name}: run {last[0].run} was stopped after {last[2]} of {last[0].entries} entries; "
            "this run sends all that is selected again"
        )


def ledger_of(options: Options, manifest: Manifest) -> Path:
    """The ledger of the run to audit: the one named, or the newest of this manifest."""
    name = short_path(manifest.path, options.root)
    if options.run:
        path = options.ledgers / f"{options.run}.sqlite"
        if not path.is_file():
            known = ", ".join(p.stem for p in find_runs(options.ledgers, manifest.sha256)) or "none"
            raise LedgerError(f"there is no run {options.run}; runs of {name}: {known}")
        with Ledger.open(path) as ledger:
            sha256 = ledger.info().sha256
        if sha256 != manifest.sha256:
            raise LedgerError(f"run {options.run} was a run of another manifest than {name}")
        return path
    earlier = find_runs(options.ledgers, manifest.sha256)
    if not earlier:
        raise LedgerError(
            f"{name}: there is no run of this manifest in {options.ledgers}; "
            "dispatch it first, without --audit"
        )
    return earlier[-1]


def is_complete(path: Path) -> bool:
    """Whether every entry of the run has its final verdict."""
    with Ledger.open(path) as ledger:
        return not ledger.has_unsettled()
