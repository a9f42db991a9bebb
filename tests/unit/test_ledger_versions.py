"""Ledgers of an older version: what they held is there, and comes to this version in one piece."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import (
    LEDGER_VERSION,
    STORE_EMPTIED,
    AttemptRow,
    Ledger,
    Start,
    find_runs_by_digest,
    find_runs_of_manifest,
)
from pytest_manifest.ledger.files import version_of
from tests.unit.ledger_support import (
    INFO,
    MOMENT,
    OLD_LEDGER,
    ROOT,
    is_sound,
    old_ledger,
    receipt,
    verdict,
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return old_ledger(tmp_path / "runs" / f"{INFO.run}.sqlite")


def ledger_of_version(number: int, path: Path) -> Path:
    """A ledger as that version wrote it, kept as SQL since."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = OLD_LEDGER.with_name(f"ledger-v{number}.sql").read_text("utf-8")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(written)
    return path


def version(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as db:
        return version_of(db)


def layout(path: Path) -> Iterator[tuple[str, ...]]:
    """Every table's columns, as SQLite understands them."""
    with closing(sqlite3.connect(path)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall():
            yield from [(name, *row) for row in db.execute(f"PRAGMA table_info({name})")]


@pytest.mark.parametrize("write", [False, True])
def test_everything_that_an_old_ledger_held_is_there(old: Path, *, write: bool) -> None:
    """Its attempts have the verdicts of their entries, where these are about them."""
    said = receipt("a", result={"n": 1, "text": "it's\nö"})
    with Ledger.open(old, write=write) as ledger:
        assert list(ledger.attempts.all()) == [
            AttemptRow("t-a", "a", 1, 0, "sent", MOMENT, None, None, "passed", verdict("a")),
            AttemptRow(
                "t-b", "b", 1, 1, "sent", MOMENT, None, None, "pending", verdict("b", "pending")
            ),
            AttemptRow("t-c", "c", 1, 2, "uncertain", MOMENT, "connection reset"),
            AttemptRow("t-d", "d", 1, 3, "withheld", None, "unknown task 'nö'"),
        ]
        assert ledger.verdicts.statuses() == {"a": "passed", "b": "pending", "d": "unknown_task"}
        assert list(ledger.events.all_receipts()) == [("t-a", "x1", said)]
        assert sorted(ledger.events.starts_by_task()) == ["t-a", "t-b"]
        assert ledger.info.get_meta("position") == "1-0"
        assert ledger.info.status == "running"
    assert version(old) == str(LEDGER_VERSION)


def test_a_migrated_ledger_is_as_a_new_one(old: Path, tmp_path: Path) -> None:
    """Its tables have the same columns, so that all can be written."""
    new = tmp_path / "new.sqlite"
    Ledger.create(new, INFO).close()
    Ledger.open(old).close()
    assert list(layout(old)) == list(layout(new))
    with Ledger.open(old, write=True) as ledger:
        ledger.attempts.plan([("t-c2", "c", 2, 2, "lost")])
        assert ledger.attempts.of_entry("c")[-1].reason == "lost"
        ledger.verdicts.reopen()
        assert [row.status for row in ledger.attempts.newest()] == ["passed", "pending", None, None]


def test_what_version_2_knew_of_starts_is_there(old: Path) -> None:
    """Nobody said then where their pids mean anything, and nobody says so now."""
    with closing(sqlite3.connect(old)) as db:
        for column in ("reason", "kind", "verdict"):
            db.execute(f"ALTER TABLE attempts ADD COLUMN {column} TEXT")
        db.execute("UPDATE run SET value = '2' WHERE key = 'ledger'")
        db.commit()
    later = Start("t-a", "x9", MOMENT, 1, "w@h", "h", 8, False, "a boot", "pid:[1]")
    with Ledger.open(old, write=True) as ledger:
        (before,) = ledger.events.starts("t-a")
        assert (before.boot, before.pid_namespace) == (None, None)
        ledger.events.add_starts([later])
        assert later in ledger.events.starts("t-a")
        assert later in ledger.queries.histories(["a"])["a"].starts["t-a"]


def test_looking_for_runs_leaves_old_ledgers_as_they_are(old: Path) -> None:
    """They are found by digest and by path, and a search changes nothing."""
    assert find_runs_by_digest(old.parent, INFO.sha256) == [old]
    assert find_runs_of_manifest(old.parent, INFO.manifest) == [old]
    assert version(old) == "1"


def test_two_processes_may_migrate_at_once(old: Path) -> None:
    """One does it, the others find it done; all of them can write."""
    command = [sys.executable, "-m", "tests.unit.ledger_processes", "migrate", str(old)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(60) for process in started] == [0] * 4
    with Ledger.open(old) as ledger:
        assert all(ledger.info.get_meta(f"seen by {process.pid}") for process in started)
        assert ledger.attempts.count_entries() == 4
    assert is_sound(old)


def test_a_killed_migration_leaves_an_old_ledger(old: Path, tmp_path: Path) -> None:
    """Wherever it is killed, nothing was changed, and the next one succeeds."""
    folder, seeds = tmp_path / "killed", 25
    command = [sys.executable, "-m", "tests.unit.ledger_processes", "die-migrating"]
    subprocess.run([*command, str(folder), str(seeds)], cwd=ROOT, check=True, timeout=120)
    with closing(sqlite3.connect(old)) as db:
        before = list(db.iterdump())
    for seed in range(seeds):
        path = folder / str(seed) / "run.sqlite"
        with closing(sqlite3.connect(path)) as db:
            assert list(db.iterdump()) == before, f"seed {seed}"
        with Ledger.open(path) as ledger:
            assert ledger.attempts.count_entries() == 4
        assert is_sound(path)


def test_an_old_ledger_that_cannot_be_migrated_says_what_to_do(old: Path) -> None:
    """Where another process holds it for good, as where the disk is read only: a sentence."""
    with closing(sqlite3.connect(old)) as db:
        db.execute("ALTER TABLE attempts RENAME TO elsewhere")
    with pytest.raises(
        LedgerError, match=r"has version 1 and cannot be brought to version 9 \(no such table.*copy"
    ):
        Ledger.open(old)
    assert version(old) == "1"


@pytest.mark.parametrize("number", [1, *range(4, LEDGER_VERSION)])
def test_each_older_version_comes_to_the_layout_of_a_new_ledger(
    number: int, tmp_path: Path
) -> None:
    """As it was written, not as this program would write it: a table may have been changed."""
    path = ledger_of_version(number, tmp_path / "old.sqlite")
    Ledger.open(path).close()
    new = tmp_path / "new.sqlite"
    Ledger.create(new, INFO).close()
    assert sorted(layout(path)) == sorted(layout(new))


def test_trees_of_version_4_are_read(tmp_path: Path) -> None:
    """Nobody told then what waits for a task, nor when it may start."""
    path = ledger_of_version(4, tmp_path / "old.sqlite")
    with Ledger.open(path) as ledger:
        one, other = ledger.descendants.of_root("t-a")
        assert (one.task_id, one.status, other.status) == ("c1", "passed", None)
        assert (one.chords, one.due, one.broker) == (None, None, None)
        assert [announced.task_ids for announced in ledger.descendants.announced("t-a")] == [["c2"]]


def test_of_receipts_of_version_5_times_tell_what_they_found(tmp_path: Path) -> None:
    """Nobody wrote down then what their entries had come to when they came."""
    path = ledger_of_version(5, tmp_path / "old.sqlite")
    with Ledger.open(path) as ledger:
        assert list(ledger.promises.lost_though_ended()) == []
        assert list(ledger.promises.corrected_without_evidence()) == []
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT task_id, newest_attempt, after_verdict FROM receipts").fetchall()
    assert sorted(found) == [
        ("of-a-child", None, 0),
        ("t-a", 2, 0),
        ("t-a2", 2, 0),
        ("t-b", 1, 1),
        ("t-c", 1, 0),
    ]


def test_what_version_8_excused_is_excused_where_it_was_judged_so(tmp_path: Path) -> None:
    """It was kept once a ledger: what had been forged stays so. Each of the runs that it was merged
    of has what all of them had."""
    path = ledger_of_version(8, tmp_path / "old.sqlite")
    with Ledger.open(path) as ledger:
        assert [ledger.excuses.may_lack_starts(one) for one in ("t-a2", "t-c", "of-a-child")] == [
            True,
            False,
            True,
        ]
        assert [ledger.excuses.set_back(one) for one in ("t-a2", "t-b", "t-c")] == [
            7200.0,
            7200.0,
            0,
        ]
        info = ledger.info
        assert info.get_meta(STORE_EMPTIED) is None
        for run in info.merged():
            assert info.of_run(STORE_EMPTIED, run) == "1"
            assert info.of_run("own_limits", run) == '{"t": 100.0}'
