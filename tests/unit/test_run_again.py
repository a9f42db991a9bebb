"""Verdicts that are looked at again: only those that something has changed for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.audit import audit_run
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Expectations, Header, VerdictStatus
from pytest_manifest.urls import StackAddress
from tests.unit.record_support import FAILED, RecordWriter

NOWHERE = StackAddress("", "", None, is_private=False)
COUNT = 450
"""More than two batches."""
NAMES = [f"e-{n}" for n in range(COUNT)]
OTHER = Expectations(result={"n": 1})


def entry(name: str, **fields: object) -> Entry:
    return Entry.model_validate({"id": name, "task": "jobs.t", **fields})


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RecordWriter:
    """A run of many entries: one failed, the others passed."""
    folder = tmp_path_factory.mktemp("record")
    record = RecordWriter(folder, [{"id": name, "task": "jobs.t"} for name in NAMES])
    with record.ledger.transaction():
        for name in NAMES:
            record.attempt(name, **(FAILED if name == "e-7" else {}))
    keep_manifest(record.manifest, record.finish())
    return record


def changes(record: RecordWriter, manifest: Manifest, scratch: Path) -> dict[str, VerdictStatus]:
    """What an audit by this manifest says otherwise."""
    scratch.mkdir()
    path, settings = record.ledger.path, RunSettings(folder=scratch)
    run = audit_run(manifest, path, NOWHERE, settings, wait=False, scratch=scratch)
    run.prepare()
    run.take_effect()
    run.start()
    with run.read() as after, Ledger.open(path) as before:
        had = before.verdicts.statuses()
        return {name: one for name, one in after.verdicts.statuses().items() if one != had[name]}


def changed(
    record: RecordWriter, folder: Path, *entries: Entry, without: Sequence[str] = ()
) -> Manifest:
    """The manifest with these entries in place of their former selves, or added."""
    new = {one.id: one for one in entries}
    kept = [new.pop(old.id, old) for old in record.manifest if old.id not in without]
    return write_manifest(folder / "new.jsonl", Header(workflow="demo"), [*kept, *new.values()])


def test_changed_lines_are_judged_again(record: RecordWriter, tmp_path: Path) -> None:
    """Other expectations, other work, new and removed entries, wherever they stand."""
    manifest = changed(
        record,
        tmp_path,
        entry("e-3", expect=OTHER),
        entry("e-4", args=[1]),
        entry("e-7", expect=Expectations(state="failed")),
        entry("e-410", expect=OTHER, meta={"x": 1}),
        entry("e-411", meta={"x": 1}),
        entry("new"),
        without=["e-0", "e-5", "e-250"],
    )
    assert changes(record, manifest, tmp_path / "scratch") == {
        "e-3": "failed",
        "e-4": "unknown",
        "e-7": "passed",
        "e-410": "failed",
    }


def test_entries_in_another_order_are_the_same(record: RecordWriter, tmp_path: Path) -> None:
    """Nothing of them is other work."""
    turned = list(reversed(list(record.manifest)))
    manifest = write_manifest(tmp_path / "new.jsonl", Header(workflow="demo"), turned)
    assert changes(record, manifest, tmp_path / "scratch") == {}


def test_without_the_runs_own_manifest_all_are_judged_again(
    record: RecordWriter, tmp_path: Path
) -> None:
    """Nobody knows what has changed, and by their receipts they come to the same."""
    kept = RunFiles(record.ledger.path).manifest(record.manifest.sha256)
    away = kept.rename(tmp_path / "away")
    try:
        manifest = changed(record, tmp_path, entry("e-3", expect=OTHER))
        assert changes(record, manifest, tmp_path / "scratch") == {"e-3": "failed"}
    finally:
        away.rename(kept)
