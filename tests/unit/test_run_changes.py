"""A changed manifest is kept before the ledger has its digest, and counts only with that."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.run_files import runs_by_copy
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.changes import (
    change_of,
    keep_changes,
    keep_manifest,
    kept_manifest,
)
from pytest_manifest.run.resume_rules import record_decisions
from pytest_manifest.schema import Entry, Header
from tests.unit.ledger_support import INFO

KILLED = """
import os, signal, sys
from pathlib import Path
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import read_manifest
from pytest_manifest.run import changes, resume

changed, before, ledger, applied, moment = sys.argv[1:]
path = Path(ledger)
manifest = read_manifest(Path(changed))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

digest, _ = changes.keep_changes(manifest, read_manifest(Path(before)), path, set(applied.split()))
if moment == "kept":
    die()
with Ledger.open(path, write=True) as ledger:
    ledger.info.set_status = die  # the last record of the transaction
    resume.record_decisions(ledger, manifest, [], [], {}, digest)
"""


def manifest(path: Path, *numbers: int) -> Manifest:
    """Entries e-0, e-1, ... whose arguments are these numbers."""
    return write_manifest(
        path,
        Header(),
        [Entry(id=f"e-{n}", task="t", args=[value]) for n, value in enumerate(numbers)],
    )


@pytest.fixture
def before(tmp_path: Path) -> Manifest:
    return manifest(tmp_path / "before.jsonl", 0, 1, 2)


@pytest.fixture
def changed(tmp_path: Path) -> Manifest:
    """``before`` with other arguments of e-0 and e-2."""
    return manifest(tmp_path / "changed.jsonl", 10, 1, 12)


@pytest.fixture
def ledger(tmp_path: Path, before: Manifest) -> Path:
    """The ledger of a run of ``before``, which is kept beside it."""
    path = tmp_path / "runs" / f"{INFO.run}.sqlite"
    Ledger.create(path, replace(INFO, sha256=before.sha256)).close()
    keep_manifest(before, path)
    return path


def open_changes(ledger: Path, manifest: Manifest) -> set[str]:
    """The entries of ``manifest`` that differ from what the run is of by its ledger."""
    with Ledger.open(ledger) as opened:
        kept = kept_manifest(ledger, opened.info.read().sha256)
    assert kept is not None
    known = {entry.id: entry for entry in kept}
    return {e.id for e in manifest if change_of(e, known.get(e.id))[0] is not None}


def take_up(ledger: Path, before: Manifest, changed: Manifest, applied: set[str]) -> None:
    digest, _ = keep_changes(changed, before, ledger, applied)
    with Ledger.open(ledger, write=True) as opened:
        record_decisions(opened, changed, [], [], {}, digest)


ALL = {"e-0", "e-1", "e-2"}


@pytest.mark.parametrize("applied", [ALL, {"e-0", "e-1"}], ids=["all", "part"])
@pytest.mark.parametrize("moment", ["kept", "recording"])
def test_a_kill_before_the_ledger_has_it_loses_no_change(
    ledger: Path, before: Manifest, changed: Manifest, moment: str, applied: set[str]
) -> None:
    """After kill -9 every change is still one, and is taken up as if nothing had happened."""
    where = (str(changed.path), str(before.path), str(ledger), " ".join(applied), moment)
    killed = subprocess.run([sys.executable, "-c", KILLED, *where], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert open_changes(ledger, changed) == {"e-0", "e-2"}
    take_up(ledger, before, changed, applied)
    assert open_changes(ledger, changed) == {"e-0", "e-2"} - applied


def test_a_new_entry_that_was_not_taken_up_is_still_new(
    ledger: Path, before: Manifest, tmp_path: Path
) -> None:
    """What is kept lacks it, so that the next time it is new once more."""
    more = manifest(tmp_path / "more.jsonl", 0, 11, 2, 3)
    take_up(ledger, before, more, {"e-1"})
    assert open_changes(ledger, more) == {"e-3"}


def test_a_run_is_found_by_what_is_kept_beside_it(
    ledger: Path, before: Manifest, changed: Manifest
) -> None:
    """Also where its ledger cannot be opened; not by another manifest."""
    ledger.write_bytes(b"")
    assert runs_by_copy(ledger.parent, before.sha256) == [ledger]
    assert runs_by_copy(ledger.parent, changed.sha256) == []
