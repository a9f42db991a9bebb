"""Keep the manifest that a run was made of beside its ledger, and find how a later one differs."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator
from itertools import filterfalse
from pathlib import Path
from typing import Literal

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import FILE_MODE, copy_privately
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.manifest import Manifest, id_and_task, read_manifest, sync, write_manifest
from pytest_manifest.manifest.jsonl import is_remark
from pytest_manifest.schema import Entry

Change = Literal["new", "job", "expectation"]

WORK_FIELDS = ("task", "args", "kwargs")
"""The fields that define the work. Where and when it is done (queue, priority, countdown, eta,
expires) makes no other work of it; the rest defines how the outcome is judged."""


def keep_manifest(manifest: Manifest, ledger: Path) -> None:
    """Copy the manifest beside the ledger. Raises LedgerError where that cannot be done."""
    target = RunFiles(ledger).manifest(manifest.sha256)
    scratch = target.with_suffix(".new")
    with _keeping(target):
        copy_privately(manifest.path, scratch)
        sync(scratch)
        scratch.replace(target)


@contextlib.contextmanager
def _keeping(target: Path) -> Iterator[None]:
    """Turn an OSError of the block into a LedgerError."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"{target}: the manifest cannot be kept beside the run's ledger ({error}); free some "
            "space, or choose another folder with the ini option manifest_dir"
        ) from error


def keep_changes(
    manifest: Manifest, before: Manifest | None, ledger: Path, applied: Container[str]
) -> tuple[str, Path | None]:
    """Keep a changed manifest, with the entries that were not ``applied`` as they were.

    Of a change that was taken up in part the rest is still a change the next time. Returns the
    digest of what is kept: the manifest's own where all of it was taken up; and the file, None
    where that was there before. It counts when the ledger has this digest, not before.
    """
    old = {} if before is None else {entry.id: entry for entry in before}
    if before is None or all(e.id in applied or old.get(e.id) == e for e in manifest):
        target = RunFiles(ledger).manifest(manifest.sha256)
        is_new = not target.exists()
        keep_manifest(manifest, ledger)
        return manifest.sha256, target if is_new else None
    kept = [e if e.id in applied else old.get(e.id) for e in manifest]
    entries = [entry for entry in kept if entry is not None]
    names = {entry.id for entry in entries}
    known = [
        entry.model_copy(update={"after": [name for name in entry.after if name in names]})
        for entry in entries
    ]
    scratch = RunFiles(ledger).merged_manifest
    made = write_manifest(scratch, manifest.header, known, mode=FILE_MODE)
    target = RunFiles(ledger).manifest(made.sha256)
    is_new = not target.exists()
    with _keeping(target):
        scratch.replace(target)
    return made.sha256, target if is_new else None


def kept_manifest(ledger: Path, sha256: str) -> Manifest | None:
    """Return the manifest that a run was made of; None for runs that kept none."""
    path = RunFiles(ledger).manifest(sha256)
    return read_manifest(path, lean=True) if path.is_file() else None


class EarlierLines:
    """Read a manifest's lines by the ids of another manifest's entries, in turn.

    As long as both have them in the same order, it is read along and nothing of it kept.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._file = manifest.open()
        self._next = b""

    def close(self) -> None:
        self._file.close()

    def line(self, entry: str) -> bytes | None:
        """Return the line of this entry; None where there is none."""
        self._next = self._next or next(filterfalse(is_remark, self._file), b"")
        if not self._next or id_and_task(self._next)[0] != entry:
            if entry not in self._manifest:
                return None  # new: the one that was to come next is still to come
            self._file.seek(self._manifest.offset_of(entry))
            self._next = self._file.readline()
        line, self._next = self._next, b""
        return line


def change_of(entry: Entry, before: Entry | None) -> tuple[Change | None, str]:
    """Return how an entry differs from its earlier form, and a phrase that names the fields."""
    if before is None:
        return "new", "new in the manifest"
    changed = [name for name in WORK_FIELDS if getattr(entry, name) != getattr(before, name)]
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


def _expected(entry: Entry, name: str) -> tuple[bool, object]:
    # "result": null is not the same as no expectation of a result.
    return name in entry.expect.model_fields_set, getattr(entry.expect, name)
