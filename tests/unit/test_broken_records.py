"""What of a record written by hand breaks a promise, by the invariants alone: nothing is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_manifest.run.invariants import Violation
from tests.broken_records import MUTATIONS
from tests.unit.record_changes import BROKEN, LAWFUL
from tests.unit.record_support import KeptRecord, write_record

SAID: dict[str, list[list[str]]] = json.loads(
    Path(__file__).with_name("data").joinpath("violations.json").read_text("utf-8")
)
"""All that the check says of each of these records."""


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> KeptRecord:
    return KeptRecord(write_record(tmp_path_factory.mktemp("sound")))


def test_a_sound_record_breaks_no_promise(sound: KeptRecord) -> None:
    """Two attempts, a failure that was expected, trees and a chord are nothing to blame."""
    assert sound.broken() == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_broken_promise_is_seen(name: str, sound: KeptRecord) -> None:
    """By the very promise that is broken, and in the same words as ever."""
    promise, statements = MUTATIONS[name]
    found = sound.broken(statements)
    assert promise in {one.promise for one in found}
    assert [list(one) for one in found] == SAID[name]


@pytest.mark.parametrize("name", LAWFUL)
def test_what_may_happen_breaks_no_promise(name: str, sound: KeptRecord) -> None:
    """Else a check that is not believed would be switched off."""
    assert sound.broken(LAWFUL[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_said_once(name: str, sound: KeptRecord) -> None:
    """Of the right entry and attempt, and nothing of what is in order."""
    statements, expected = BROKEN[name]
    assert sound.broken(statements) == [Violation(*one) for one in expected]  # type: ignore[arg-type]  # promises of the table
