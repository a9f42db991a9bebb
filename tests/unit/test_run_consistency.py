"""``manifest check`` on a record written by hand: what breaks a promise, and what does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pytest_manifest.run.consistency import Violation
from tests.broken_records import MUTATIONS
from tests.unit.record_support import broken, copy_record, write_record


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
    """By the very promise that is broken."""
    promise, statements = MUTATIONS[name]
    assert promise in {found for found, _, _ in changed(sound, tmp_path, statements)}
