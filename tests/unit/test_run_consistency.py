"""``manifest check`` on a record written by hand: what breaks a promise, and what does not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.run import consistency
from pytest_manifest.run.consistency import RecordSize, Violation, record_size
from tests.broken_records import MUTATIONS
from tests.unit.record_support import broken, copy_record, write_record

SAID: dict[str, list[list[str]]] = json.loads(
    Path(__file__).with_name("data").joinpath("violations.json").read_text("utf-8")
)
"""All that the check says of each of these records."""


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("sound"))


def changed(sound: Path, folder: Path, statements: str) -> list[Violation]:
    """What the record breaks once these statements have changed it."""
    path = copy_record(sound, folder)
    with closing(sqlite3.connect(path)) as db:
        before = db.total_changes
        db.executescript(statements)
        db.commit()
        assert db.total_changes > before, "nothing was changed"
    return broken(path)


def test_a_sound_record_breaks_no_promise(sound: Path) -> None:
    """Two attempts, a failure that was expected, trees and a chord are nothing to blame."""
    assert broken(sound) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_broken_promise_is_seen(name: str, sound: Path, tmp_path: Path) -> None:
    """By the very promise that is broken, and in the same words as ever."""
    promise, statements = MUTATIONS[name]
    found = changed(sound, tmp_path, statements)
    assert promise in {one.promise for one in found}
    assert [list(one) for one in found] == SAID[name]


OF = "(SELECT task_id FROM attempts WHERE entry = '{}' AND attempt = {})"
PLAIN, OTHER, LOOSE = (OF.format(name, 1) for name in ("plain", "other", "loose"))
CHORD, ONCE, TREE = (OF.format(name, 1) for name in ("chord", "once", "tree"))
START = "INSERT INTO starts (task_id, execution, retries, redelivered, hop) VALUES "


def called(status: str, entry: str, sentence: str = "nobody has it") -> str:
    """SQL that gives an entry another verdict, without a receipt."""
    return (
        f"UPDATE settled SET kind = '{status}', receipt = NULL, verdict = json_set(verdict, "
        f"'$.verdict', '{status}', '$.sentence', '{sentence}') WHERE entry = '{entry}';"
    )


UNHEARD = (
    f"DELETE FROM receipts WHERE task_id = {PLAIN}; DELETE FROM starts WHERE task_id = {PLAIN};"
)
LAWFUL = {
    "the session itself says why it was not sent": (
        f"UPDATE attempts SET state = 'withheld', sent_at = NULL WHERE entry = 'plain';"
        f"DELETE FROM starts WHERE task_id = {PLAIN};"
        f"UPDATE receipts SET receipt = json_set(receipt, '$.source', 'harness') "
        f"WHERE task_id = {PLAIN};" + called("skipped", "plain")
    ),
    "a worker tells of a descendant": f"{START}('t1', 'x', 0, 0, 0)",
    "a descendant's receipt came": (
        "INSERT INTO receipts (task_id, receipt, arrived_at) "
        "SELECT 't2', receipt, arrived_at FROM receipts LIMIT 1"
    ),
    "lost, as a descendant was": (
        "UPDATE settled SET kind = 'lost', verdict = json_set(verdict, '$.verdict', 'lost', "
        "'$.mismatches', json('[{\"path\": \"descendants\"}]')) WHERE entry = 'tree'"
    ),
    "lost, and the verdict says by whom": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        + called("lost", "plain", "It was lost (started on w@h).")
    ),
    "lost once it was handed on": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        "INSERT INTO handed_on (task_id, execution, how, ended_at) "
        f"SELECT task_id, execution, 'retry', '2026' FROM starts WHERE task_id = {PLAIN};"
        + called("lost", "plain")
    ),
    "lost, and the store has what somebody said": (
        f"UPDATE receipts SET receipt = json_set(receipt, '$.source', 'backend') "
        f"WHERE task_id = {PLAIN}; DELETE FROM starts WHERE task_id = {PLAIN};"
        + called("lost", "plain")
    ),
    "retried by itself": f"{START}({PLAIN}, 'y', 1, 0, 0)",
    "handed on to itself": f"{START}({PLAIN}, 'y', 0, 0, 1)",
    "a child was not sent": "UPDATE descendants SET kind = 'skipped' WHERE task_id = 't1'",
    "a child was stopped at its limit": (
        "UPDATE descendants SET kind = 'timed_out' WHERE task_id = 'l1'"
    ),
    "a child crashed where an end is enough": (
        "UPDATE descendants SET kind = 'crashed' WHERE task_id = 'l1'"
    ),
    "the body is known by its id": "UPDATE descendants SET fulfils = NULL",
    "the body is known by its key": "UPDATE announced SET task_ids = '[]'",
    "the chord was called off": (
        "UPDATE announced SET is_off = 1; DELETE FROM descendants WHERE task_id = 'body'"
    ),
    "the chord was called off by another": (
        "INSERT INTO announced SELECT root, key, 'c1', how, task, number, task_ids, 1 "
        "FROM announced; DELETE FROM descendants WHERE task_id = 'body'"
    ),
    "nothing is asked of a tree": (
        "UPDATE announced SET root = (SELECT task_id FROM attempts WHERE entry = 'careless'), "
        "number = 9"
    ),
    "corrected by a receipt that came later": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'passed', '2000-01-01', '2000-01-02')"
    ),
    "corrected by a receipt of the same moment": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "SELECT 'plain', 1, 'lost', 'passed', arrived_at, arrived_at FROM receipts "
        f"WHERE task_id = {PLAIN}"
    ),
    "corrected after the clock was set back": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('plain', 1, 'lost', 'passed', '2999-01-01', '2998-12-31')"
    ),
    "corrected by a second start": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('twice', 1, 'passed', 'failed', '2999-01-01', '2999-01-02')"
    ),
    "corrected by what it started": (
        "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
        "VALUES ('tree', 1, 'passed', 'failed', '2999-01-01', '2999-01-02')"
    ),
    "nobody saw the first attempt begin": (
        "DELETE FROM run WHERE key = 'sent_on_request';"
        f"DELETE FROM starts WHERE task_id = {ONCE};"
        "UPDATE receipts SET receipt = json_set(receipt, '$.started_at', NULL) "
        f"WHERE task_id = {ONCE}"
    ),
    "stopped before its end": (
        "UPDATE run SET value = 'stopped' WHERE key = 'status';"
        "DELETE FROM settled WHERE entry = 'plain'"
    ),
    "resumed for more entries than at first": "UPDATE run SET value = '1' WHERE key = 'entries'",
    "a limit of the task's own": (
        "UPDATE settled SET receipt = json_set(receipt, '$.runtime', 400) WHERE entry = 'plain';"
        "INSERT INTO run VALUES ('own_limits', '{\"jobs.double\": 600}')"
    ),
}
"""What a record may hold, by the SQL that puts it there."""


@pytest.mark.parametrize("name", LAWFUL)
def test_what_may_happen_breaks_no_promise(name: str, sound: Path, tmp_path: Path) -> None:
    """Else a check that is not believed would be switched off."""
    assert changed(sound, tmp_path, LAWFUL[name]) == []


BROKEN: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "in the manifest's order": (
        (
            "UPDATE attempts SET sent_at = NULL, ordinal = 99 - ordinal "
            "WHERE entry IN ('plain', 'tree')"
        ),
        [
            ("S1", name, "attempt 1 was sent, and nobody had written down that it would be")
            for name in ("tree", "plain")
        ],
    ),
    "in the manifest's order, and told of": (
        (
            f"UPDATE attempts SET state = 'planned', ordinal = 99 - ordinal WHERE entry = 'fails' "
            f"OR task_id = {ONCE}; UPDATE settled SET kind = 'failed', verdict = json_set(verdict, "
            "'$.verdict', 'failed') WHERE entry = 'fails'"
        ),
        [
            ("S1", name, "attempt 1 was never sent by this record, and a worker tells of it")
            for name in ("once", "fails")
        ],
    ),
    "an attempt 0 in place of the first": (
        "UPDATE attempts SET attempt = 0 WHERE entry = 'again' AND attempt = 1",
        [
            ("S1", "again", "attempt 2 is there, and one before it is not"),
            ("S1", "again", "has a task id that is another's"),
        ],
    ),
    "handed on, but not by the execution that is lost": (
        f"DELETE FROM receipts WHERE task_id = {PLAIN};"
        f"INSERT INTO handed_on (task_id, execution, how, ended_at) VALUES ({PLAIN}, 'y', 'retry', "
        "'2026');" + called("lost", "plain"),
        [("S3", "plain", "attempt 1 is called lost, and a worker had begun it")],
    ),
    "lost, and it says so of another path": (
        (
            f"DELETE FROM receipts WHERE task_id = {PLAIN}; UPDATE settled SET kind = 'lost', "
            "receipt = NULL, verdict = json_set(verdict, '$.verdict', 'lost', '$.mismatches', "
            "json('[{\"path\": \"state\"}]')) WHERE entry = 'plain'"
        ),
        [("S3", "plain", "attempt 1 is called lost, and a worker had begun it")],
    ),
    "begun thrice where twice is allowed": (
        START + f"({OF.format('twice', 1)}, 'z', 0, 0, 0)",
        [("S4", "twice", "passed, and its job was begun 3 times")],
    ),
    "one of many that failed is named, of each entry": (
        "UPDATE descendants SET kind = 'lost'",
        [
            ("S4", "chord", "passed, and its descendant 'jobs.t' ('body') is lost"),
            ("S4", "loose", "passed, and its descendant 'jobs.t' ('l1') is lost"),
            ("S4", "tree", "passed, and its descendant 'jobs.t' ('t1') is lost"),
        ],
    ),
    "a grandchild is no child": (
        "UPDATE descendants SET parent = 't1' WHERE task_id = 't2'",
        [("S4", "tree", "passed, and of the 2 tasks that its job started 1 are known")],
    ),
    "an only child is forgotten": (
        "DELETE FROM descendants WHERE task_id = 'l1'",
        [("S4", "loose", "passed, and of the 1 task that its job started 0 are known")],
    ),
    "of several announcements the largest counts": (
        "INSERT INTO announced SELECT root, key, 'c1', how, task, 3, '[]', 0 FROM announced",
        [
            (
                "S4",
                "chord",
                "passed, and 2 of what was announced of its tree (chord_body) never came",
            )
        ],
    ),
    "another word in a verdict on what was never sent": (
        "UPDATE settled SET kind = 'failed' WHERE entry = 'held'",
        [("S5", "held", "has a verdict that says something else than its row")],
    ),
    "an earlier verdict is another entry's": (
        (
            "UPDATE attempts SET verdict = json_set(verdict, '$.entry', 'x') WHERE entry = 'again' "
            "AND attempt = 1"
        ),
        [("S5", "again", "attempt 1 has a verdict that says something else than its row")],
    ),
    "the receipt alone says that the first began": (
        f"DELETE FROM run WHERE key = 'sent_on_request'; DELETE FROM starts WHERE task_id = {ONCE}",
        [
            (
                "S2",
                "once",
                (
                    "is not idempotent, and its attempts 1 and 2 were both begun; nobody had "
                    "asked for that"
                ),
            )
        ],
    ),
    "the last attempt has no verdict": (
        "DELETE FROM settled WHERE entry = 'again'",
        [("L1", "again", "attempt 2 has no verdict, and the run is said to have finished")],
    ),
    "passed by a state that another receipt has": (
        "UPDATE settled SET receipt = json_set(receipt, '$.attempt', 2) WHERE entry = 'other'",
        [
            (
                "S4",
                "other",
                "attempt 1 passed by a receipt that is not its own, or never arrived",
            ),
            ("S4", "other", "passed by a receipt that lies: it is of another attempt: 2, not 1"),
        ],
    ),
}
"""What breaks promises, and all that is said of it."""


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_said_once(name: str, sound: Path, tmp_path: Path) -> None:
    """Of the right entry and attempt, and nothing of what is in order."""
    statements, expected = BROKEN[name]
    assert changed(sound, tmp_path, statements) == [Violation(*one) for one in expected]  # type: ignore[arg-type]  # promises of the table


def test_the_size_of_a_record_is_that_of_its_entries(sound: Path, tmp_path: Path) -> None:
    """Entries count once, however often they were sent; and verdicts."""
    with Ledger.open(sound) as ledger:
        assert record_size(ledger) == RecordSize(12, 12)
    with closing(sqlite3.connect(copy_record(sound, tmp_path))) as db:
        db.execute("DELETE FROM settled WHERE entry = 'plain'")
        db.commit()
    with Ledger.open(tmp_path / sound.name) as ledger:
        assert record_size(ledger) == RecordSize(12, 11)


def test_each_part_of_a_long_manifest_is_judged(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are read some at a time."""
    monkeypatch.setattr(consistency, "BATCH", 1)
    late = "UPDATE settled SET receipt = json_set(receipt, '$.run', 'r') WHERE entry = 'twice'"
    found = changed(sound, tmp_path, late)
    assert [(one.promise, one.entry) for one in found] == [("S4", "twice")]


def test_a_receipt_that_is_none_is_damage(sound: Path, tmp_path: Path) -> None:
    """It is no contradiction: the ledger cannot be read."""
    with pytest.raises(LedgerError, match="run\\.sqlite"):
        changed(sound, tmp_path, "UPDATE settled SET receipt = '{}' WHERE entry = 'plain'")
