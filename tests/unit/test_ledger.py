"""The ledger: what is written is what is read, and only whole transactions are seen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger, RunInfo, Start, file_system, find_runs, utc_now
from pytest_manifest.schema import Receipt, Verdict

INFO = RunInfo(
    run="20261124T150000-0123abcd",
    manifest=Path("/tmp/m.jsonl"),
    sha256="0" * 64,
    workflow="demo",
    mode=None,
    entries=2,
    created_at=datetime(2026, 11, 24, 15, tzinfo=UTC),
    broker="redis://:***@127.0.0.1:1/0",
    backend="redis://:***@127.0.0.1:1/0",
    owned=True,
    stream_ttl=3600,
)


def receipt(entry: str) -> Receipt:
    return Receipt(
        run=INFO.run, entry=entry, attempt=1, task_id=f"t-{entry}", task="t", state="succeeded"
    )


def verdict(entry: str, kind: str = "passed") -> Verdict:
    return Verdict.model_validate(
        {"verdict": kind, "entry": entry, "attempt": 1, "sentence": f"{entry} {kind}"}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / f"{INFO.run}.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.create(path, INFO) as made:
        with made.transaction():
            made.plan([("t-a", "a", 1, 0), ("t-b", "b", 1, 1)])
        yield made


def test_a_run_is_described_as_it_was_created(ledger: Ledger, path: Path) -> None:
    """What a run is about survives the file, None included."""
    with Ledger.open(path) as reader:
        assert reader.info() == INFO
        assert reader.status == "running"
    assert path.stat().st_mode & 0o777 == 0o600


def test_sending_states_and_times_are_kept(ledger: Ledger) -> None:
    """Intent, then what came of it; a time once given stays."""
    moment = utc_now()
    ledger.mark(["t-a", "t-b"], "intent", sent_at=moment)
    ledger.mark(["t-a"], "sent")
    ledger.mark(["t-b"], "uncertain", note="connection reset")
    rows = {row.entry: row for row in ledger.attempts()}
    assert (rows["a"].state, rows["a"].sent_at) == ("sent", moment)
    assert (rows["b"].state, rows["b"].note) == ("uncertain", "connection reset")
    assert ledger.send_states() == {"sent": 1, "uncertain": 1}


def test_settled_entries_come_in_the_order_in_which_they_settled(ledger: Ledger) -> None:
    """A reader that remembers its position sees each settlement once."""
    ledger.settle([(verdict("b"), receipt("b"))])
    (first,) = ledger.settled_since(0)
    assert first[1] == "b"
    ledger.settle([(verdict("a", "lost"), None)])
    assert [entry for _, entry in ledger.settled_since(first[0])] == ["a"]
    found = ledger.settled("b")
    assert found is not None
    assert (found.verdict, found.receipt) == (verdict("b"), receipt("b"))
    assert [s.verdict.entry for s in ledger.all_settled()] == ["a", "b"]
    assert ledger.verdict_counts() == {"passed": 1, "lost": 1}


def test_what_may_change_counts_as_unsettled(ledger: Ledger) -> None:
    """Pending and unknown are no last words."""
    ledger.settle([(verdict("a", "pending"), None), (verdict("b"), receipt("b"))])
    assert [row.entry for row in ledger.attempts(unsettled=True)] == ["a"]
    assert ledger.has_unsettled()
    ledger.settle([(verdict("a"), receipt("a"))])
    assert not ledger.has_unsettled()
    assert ledger.verdict_counts() == {"passed": 2}


def test_starts_are_counted_once_each(ledger: Ledger) -> None:
    """The same start record read twice is one execution; another execution is another."""
    start = Start("t-a", "x1", utc_now(), 0, "w@h", "h", 1, redelivered=False)
    ledger.add_starts([start, start])
    ledger.add_starts([replace(start, execution="x2", redelivered=True)])
    assert [s.execution for s in ledger.starts("t-a")] == ["x1", "x2"]
    assert [s.redelivered for s in ledger.starts("t-a")] == [False, True]


def test_a_failed_transaction_leaves_nothing(ledger: Ledger, path: Path) -> None:
    """Records of a transaction that raises are not seen by anyone."""

    def fail_in_the_middle() -> None:
        with ledger.transaction():
            ledger.settle([(verdict("a"), receipt("a"))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    with Ledger.open(path) as reader:
        assert reader.settled_since(0) == []


def test_committed_records_survive_kill_9(path: Path) -> None:
    """A writer that is killed inside its second transaction leaves the first one whole."""
    script = f"""
import os, signal
from tests.unit.test_ledger import *
made = Ledger.create(Path({str(path)!r}), INFO)
with made.transaction():
    made.plan([("t-a", "a", 1, 0), ("t-b", "b", 1, 1)])
    made.settle([(verdict("a"), receipt("a"))])
with made.transaction():
    made.settle([(verdict("b"), receipt("b"))])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == -9
    with Ledger.open(path) as reader:
        assert [entry for _, entry in reader.settled_since(0)] == ["a"]
        assert [row.entry for row in reader.attempts(unsettled=True)] == ["b"]


def test_a_reader_cannot_write(ledger: Ledger, path: Path) -> None:
    """Opened for reading, the ledger refuses changes."""
    with (
        Ledger.open(path) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.set_status("finished")


def test_what_is_no_ledger_is_refused(tmp_path: Path, ledger: Ledger, path: Path) -> None:
    """A missing file, another kind of file and another version each have a sentence."""
    with pytest.raises(LedgerError, match=r"missing\.sqlite: this is not a ledger"):
        Ledger.open(tmp_path / "missing.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("hello, this is no database\n" * 50)
    with pytest.raises(LedgerError, match="not a ledger that can be read"):
        Ledger.open(text)
    ledger.note("ledger", "99")
    with pytest.raises(LedgerError, match="version 99, this program reads version 1"):
        Ledger.open(path)
    with pytest.raises(LedgerError, match="cannot be created"):
        Ledger.create(path, INFO)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost mount counts; SQLite's locks are not to be trusted across a network."""
    share = tmp_path / "my share"
    share.mkdir()
    mounts = tmp_path / "mounts"
    where = str(share.resolve()).replace(" ", "\\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/x {where} nfs4 rw 0 0\n")
    assert file_system(share / "runs", mounts) == "nfs4"
    assert file_system(tmp_path, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "absent") == ""
    monkeypatch.setattr("pytest_manifest.ledger.file_system", lambda _folder: "nfs4")
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*manifest_dir"):
        Ledger.create(share / "runs" / "r.sqlite", INFO)


def test_runs_of_a_manifest_are_found_by_its_digest(tmp_path: Path) -> None:
    """Oldest first; other manifests' runs and broken files are passed over."""
    names = ["20261124T150000-0000000a", "20261124T150001-0000000b", "20261124T150002-0000000c"]
    for name, digest in zip(names, ["1" * 64, "2" * 64, "1" * 64], strict=True):
        Ledger.create(tmp_path / f"{name}.sqlite", replace(INFO, run=name, sha256=digest)).close()
    (tmp_path / "20261124T150003-broken.sqlite").write_bytes(b"")
    assert [path.stem for path in find_runs(tmp_path, "1" * 64)] == [names[0], names[2]]
    assert find_runs(tmp_path / "nowhere", "1" * 64) == []
