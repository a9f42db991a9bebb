"""A ledger that another program holds: it is waited for once, and the sentence says what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import SECRETS, Ledger
from pytest_manifest.ledger.database import BUSY_AGAIN_MS
from pytest_manifest.run.run import Run
from tests.unit.ledger_support import INFO
from tests.unit.resume_rig import resume_rig


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the right to write the ledger, as a program that looks at it may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def patience(ledger: Ledger) -> int:
    """The milliseconds that the ledger waits for others."""
    (found,) = ledger._db.connection.execute("PRAGMA busy_timeout").fetchone()
    return int(found)


def test_what_is_held_for_long_is_waited_for_once(tmp_path: Path) -> None:
    """What a run has left to write as it gives up takes a second each, not half a minute."""
    path = tmp_path / "run.sqlite"
    with Ledger.create(path, INFO) as ledger:
        assert patience(ledger) > BUSY_AGAIN_MS
        ledger._db.connection.execute("PRAGMA busy_timeout = 10")
        with (
            held(path),
            pytest.raises(LedgerError, match="another program has"),
        ):
            ledger.info.set_meta("status", "stopped")
        assert patience(ledger) == BUSY_AGAIN_MS
        ledger.info.set_meta("status", "stopped")
    with Ledger.open(path) as ledger:
        assert ledger.info.status == "stopped"


def test_another_failure_says_nothing_of_programs(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger._db.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerError, match="free some space"):
            ledger.info.set_meta("status", "stopped")
        assert patience(ledger) > BUSY_AGAIN_MS


@pytest.mark.parametrize("failed", [False, True])
def test_what_may_be_missing_is_not_tried_where_the_ledger_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, failed: bool
) -> None:
    """Each try would wait for half a minute, once the tests are over."""
    compacted: list[Path] = []
    monkeypatch.setattr(Ledger, "compact", lambda ledger: compacted.append(ledger.path))
    with resume_rig(tmp_path) as rig:
        run = Run(rig.make())
        run.ended.set()
        run.error = LedgerError("run.sqlite: cannot be written.") if failed else None
        run.keep_secrets(["hunter2hunter2"])
        run.compact_ledger()
        with rig.ledger() as ledger:
            assert (ledger.info.get_meta(SECRETS) is None) == failed
        assert compacted == ([] if failed else [rig.path])
