"""What the command ``manifest`` says of a ledger that is none, is broken, or is not its own."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.ledger.tables import LEDGER_VERSION, TABLES
from tests.unit.cli_support import called
from tests.unit.record_support import write_record
from tests.unit.test_ledger_damage import audit

Damage = Callable[[Path], None]
FIRST_PAGE = 4096


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def ledger(sound: Path, tmp_path: Path) -> Path:
    """A copy of a sound ledger, alone in its folder."""
    (tmp_path / "runs").mkdir()
    return Path(shutil.copy(sound, tmp_path / "runs"))


def cut(length: int) -> Damage:
    return lambda path: os.truncate(path, length if length >= 0 else path.stat().st_size + length)


def written(content: bytes) -> Damage:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def changed(statements: str) -> Damage:
    """SQL that changes it, with no trace beside it."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(statements)
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return change


def replaced(statements: str) -> Damage:
    """Make a file of somebody else's tables."""

    def replace(path: Path) -> None:
        path.unlink()
        with closing(sqlite3.connect(path)) as db:
            db.executescript(statements)

    return replace


def version(text: str) -> Damage:
    return changed(f"UPDATE run SET ledger = {text}")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(to: str) -> Damage:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return link


def strange_log(path: Path) -> None:
    """A write-ahead log of something else is beside it, which SQLite passes over."""
    path.with_name(f"{path.name}-wal").write_bytes(b"strange" * 1000)


def log_alone(path: Path) -> None:
    """It has a write-ahead log with a part of it, and no shared memory, as a copy may be."""
    names = [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm")]
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE run SET status = status")
        db.commit()
        kept = [name.read_bytes() for name in names[:2]]
    for name, content in zip(names[:2], kept, strict=True):
        name.write_bytes(content)
    names[2].unlink(missing_ok=True)


FILES: dict[str, Damage] = {
    **{f"cut to {n}": cut(n) for n in (0, 1, 100, FIRST_PAGE, FIRST_PAGE + 50, -FIRST_PAGE, -1)},
    "zeros": written(bytes(2 * FIRST_PAGE)),
    "text": written(b"not a ledger\n" * 100),
    "the head alone": written(b"SQLite format 3\0" + bytes(FIRST_PAGE)),
    "another program's": replaced("CREATE TABLE places (id); INSERT INTO places VALUES (1)"),
    "another program's runs": replaced("CREATE TABLE run (id); INSERT INTO run VALUES (1)"),
    "empty tables": replaced("; ".join(TABLES)),
    "a table that has a version alone": replaced(
        f"CREATE TABLE run (n, ledger); INSERT INTO run VALUES (1, {LEDGER_VERSION})"
    ),
    "of a table of keys and values": replaced(
        f"CREATE TABLE run (key, value); INSERT INTO run VALUES ('ledger', '{LEDGER_VERSION}')"
    ),
    "of a later version": version("'99'"),
    "of a version in words": version("'five'"),
    "of a version with another script's digits": version("'٣'"),
    "of a very large version": version(f"'{'9' * 5000}'"),
    "of a version that is no text": version("x'ff00'"),
    "of no version": changed("UPDATE run SET ledger = NULL"),
    "of an earlier version": version(f"'{LEDGER_VERSION - 1}'"),
    "a folder": folder,
    "a pipe": pipe,
    "a link to nothing": link("nowhere"),
    "a link to itself": link("run.sqlite"),
}
"""What cannot be read as a ledger."""
ALL_THE_SAME: dict[str, Damage] = {"a log alone": log_alone, "a strange log": strange_log}
DEEP = "[" * 3000 + "]" * 3000
VALUES = {
    "no UTF-8": "CAST(x'ffc328' AS TEXT)",
    "a NUL": "'a' || char(0) || 'b'",
    "bytes": "x'ff00'",
    "infinite": "1e400",
    "deep": f"'{DEEP}'",
    "another document": "'{}'",
    "null": "'null'",
    "empty": "''",
}
PLACES = {
    "run": "id manifest sha256 entries created_at broker",
    "segments": "started stopped",
    "jobs": "sent_at state name attempt entry verdict spawned_at status root chords",
    "facts": "started_at worker execution receipt at kind data",
    "verdicts": "verdict added status entry job",
}
CONTENT: dict[str, Mapping[str, Damage]] = {
    **{
        f"{table}.{column}": {
            name: changed(f"UPDATE OR IGNORE {table} SET {column} = {value}")
            for name, value in VALUES.items()
        }
        for table, columns in PLACES.items()
        for column in columns.split()
    },
    "without a table": {table: changed(f"DROP TABLE {table}") for table in PLACES},
    "without columns": {
        table: changed(
            f"CREATE TABLE other AS SELECT 1 AS one FROM {table}; DROP TABLE {table}; "
            f"PRAGMA legacy_alter_table = ON; ALTER TABLE other RENAME TO {table}"
        )
        for table in PLACES
    },
    "without its last byte": {"": cut(-1)},
}
"""What reads as a ledger, and holds what this program cannot have written."""
UNINDEXED = changed(
    "DROP INDEX jobs_by_name; DROP INDEX jobs_by_entry; DROP INDEX jobs_by_root; "
    "DROP INDEX facts_by_job; DROP INDEX verdicts_by_entry"
)


def commands(ledger: Path, sound: Path, folder: Path) -> list[list[str]]:
    name, out = str(ledger), str(folder / "out")
    return [
        ["check", name],
        ["show", name, "--json"],
        ["show", name, "--tree=tree"],
        ["show", name, f"--diff={sound}"],
        ["export", name, "--format=summary", "-o", out, "--force"],
        ["export", name, "--format=page", "-o", out, "--force"],
        ["merge", name, "-o", str(folder / "merged")],
    ]


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_ledger_is_a_sentence(name: str, ledger: Path, sound: Path) -> None:
    """What, where, what next, and status 2; it stays as it was."""
    FILES[name](ledger)
    before = content(ledger)
    for arguments in commands(ledger, sound, ledger.parent.parent):
        status, _, said = called(*arguments)
        assert status == 2, (arguments, said)
        assert str(ledger) in said
        assert said.count("\n") == 1
        assert ";" in said, "it does not say what to do next"
    assert content(ledger) == before
    status, _, said = called("show", "last", "--in", str(ledger.parent))
    assert (status, "there is no run in" in said or ledger.name in said) == (2, True)


@pytest.mark.parametrize("name", ALL_THE_SAME)
def test_a_ledger_is_read_whatever_is_beside_it(name: str, ledger: Path, sound: Path) -> None:
    """Shared memory is made anew, and a log that is not its own says nothing."""
    ALL_THE_SAME[name](ledger)
    for arguments in commands(ledger, sound, ledger.parent.parent):
        assert called(*arguments)[::2] == (0, "")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=pytest.mark.ring(2)) if number % 6 else place
        for number, place in enumerate(CONTENT)
    ],
)
def test_what_a_ledger_cannot_hold_is_a_sentence(place: str, ledger: Path, sound: Path) -> None:
    """Or does not matter to the command; never a traceback, and it stays as it was.

    Each damage is met by two commands, the next one by the next two.
    """
    turn = cycle(commands(ledger, sound, ledger.parent.parent))
    for _ in range(list(CONTENT).index(place)):
        next(turn)
    for name, damage in CONTENT[place].items():
        gc.collect()  # a statement that has failed keeps the file open until then
        for beside in ledger.parent.glob(f"{ledger.name}-*"):
            beside.unlink()
        shutil.copy(sound, ledger)
        damage(ledger)
        before = content(ledger)
        for arguments in islice(turn, 2):
            status, _, said = called(*arguments)
            assert status in (0, 1, 2)
            assert (status == 2) is bool(said), (name, arguments, said)
            if said:
                assert said.count("\n") == 1, (name, arguments, said)
                assert ";" in said, f"{name}: it does not say what to do next: {said}"
        assert content(ledger) == before


@pytest.mark.parametrize("place", CONTENT)
def test_an_audit_of_such_a_ledger_is_a_sentence(place: str, ledger: Path, sound: Path) -> None:
    """Or goes by what matters to it: two damages of each place, the next place's are the next."""
    shutil.copy(sound.with_name("m.jsonl"), ledger.parent)
    number = list(CONTENT).index(place)
    for name, damage in islice(cycle(CONTENT[place].items()), number, number + 2):
        for beside in ledger.parent.glob(f"{ledger.name}-*"):
            beside.unlink()
        shutil.copy(sound, ledger)
        damage(ledger)
        try:
            audit(ledger)
        except ManifestToolError as refused:
            said = str(refused)
            assert "\n" not in said, (name, said)
            assert ";" in said, f"{name}: it does not say what to do next: {said}"


def test_a_ledger_without_indices_says_the_same(ledger: Path, sound: Path) -> None:
    """Only later."""
    UNINDEXED(ledger)
    for arguments in commands(ledger, sound, ledger.parent.parent):
        assert called(*arguments)[::2] == (0, "")
