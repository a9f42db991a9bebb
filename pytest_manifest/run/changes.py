"""Keep the manifest that a run was made of beside its ledger, and find how a later one differs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import copy_privately, write_whole
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, id_and_task, read_manifest
from pytest_manifest.manifest.writer import sync
from pytest_manifest.manifest.yaml_file import is_yaml, open_lines
from pytest_manifest.run.strategy import NOT_OURS
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import canonical
from pytest_manifest.verdict.judging import Judging

Change = Literal["new", "job", "expectation"]

WORK_FIELDS = ("task", "args", "kwargs", "headers")
"""The fields that define the work: by its headers a task knows whose job it does.

Where and when it is done (queue, priority, countdown, eta, expires) makes no other work of it; the
rest defines how the outcome is judged."""


def keep_manifest(manifest: Manifest, ledger: Path) -> None:
    """Copy the manifest beside the ledger. Raises LedgerError where that cannot be done."""
    target = RunFiles(ledger).manifest(manifest.sha256)
    scratch = target.with_suffix(".new")
    try:
        if is_yaml(manifest.path):
            with open_lines(manifest.path) as file:
                write_whole(scratch, file.read())
        else:
            copy_privately(manifest.path, scratch)
        sync(scratch)
        scratch.replace(target)
    except OSError as error:
        raise LedgerError(
            f"{target}: the manifest cannot be kept beside the run's ledger ({error}); free some "
            "space, or choose another folder with the ini option manifest_dir"
        ) from error


def kept_manifest(ledger: Path, sha256: str) -> Manifest | None:
    """Return the manifest that a run was made of; None for runs that kept none."""
    path = RunFiles(ledger).manifest(sha256)
    return read_manifest(path, lean=True) if path.is_file() else None


def left_work(ledger: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    """Return those of these entries whose work may have run in this run, and is not to run again.

    It has not passed there, and the entry is not idempotent. Where the run kept no manifest the
    ids stand for the work.
    """
    with Ledger.open(ledger) as before:
        kept = kept_manifest(ledger, before.info.read().sha256)
        statuses = before.verdicts.statuses()
        sent = [one.entry for one in before.attempts.newest() if one.state not in NOT_OURS]
        left = [name for name in sent if statuses.get(name) != "passed"]
        if kept is None:
            risky: set[bytes | str | None] = {*left}
        else:
            entries = map(kept.__getitem__, left)
            judged = Judging(before).each(entries)
            risky = {_work(one.entry) for one in judged if one.judgement.may_have_run}
    if not risky:
        return []
    once = (entry for entry in manifest.some(names) if not entry.idempotent)
    return [one.id for one in once if (one.id if kept is None else _work(one)) in risky]


def _work(entry: Entry) -> bytes | None:
    return canonical([getattr(entry, name) for name in WORK_FIELDS])


def change_of(entry: Entry, before: Entry | None) -> tuple[Change | None, str]:
    """Return how an entry differs from its earlier form, and a phrase that names the fields."""
    if before is None:
        return "new", "new in the manifest"
    changed = [
        name
        for name in WORK_FIELDS
        if canonical(getattr(entry, name)) != canonical(getattr(before, name))
    ]
    if changed:
        return "job", f"its job was changed ({', '.join(changed)})"
    expected = [
        name
        for name in sorted(entry.expect.model_fields_set | before.expect.model_fields_set)
        if _expected(entry, name) != _expected(before, name)
    ]
    if entry.timeout != before.timeout:
        expected.append("timeout")
    if expected:
        return "expectation", f"expectation changed ({', '.join(expected)})"
    return None, ""


def _expected(entry: Entry, name: str) -> bytes | None:
    # "result": null is not the same as no expectation of a result, nor is true the same as 1.
    return canonical(entry.expect.model_dump(mode="json", include={name}, exclude_unset=True))


@dataclass(frozen=True, slots=True)
class EntryLine:
    """Hold an entry's line of the manifest.

    ``old``: that of the run's own manifest, None: unknown, or the entry is new; ``same``: nothing
    about it can have changed.
    """

    entry: str
    raw: bytes
    old: bytes | None
    same: bool


def manifest_lines(
    ledger: Ledger,
    manifest: Manifest,
    before: Manifest | None,
    names: Iterable[str] | None = None,
) -> Generator[EntryLine, None, None]:
    """Yield a manifest's lines, or those of these entries; ``before``: the manifest of which the
    ledger's run was made, if known."""
    same = ledger.info.read().sha256 == manifest.sha256
    with contextlib.ExitStack() as files:
        earlier = None
        if before is not None and not same:
            earlier = before, files.enter_context(before.open())
        for _, _, raw in manifest.lines(names):
            entry, _ = id_and_task(raw)
            old = None
            if earlier is not None and entry in earlier[0]:
                earlier[1].seek(earlier[0].offset_of(entry))
                old = earlier[1].readline()
            yield EntryLine(entry, raw, old, same or old == raw)
