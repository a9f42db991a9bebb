"""Each fault that was found and mended is held by a test, which is there."""

from __future__ import annotations

from pathlib import Path

import tomllib

from tests.house.conftest import ROOT
from tests.nodes import TESTS, missing, outside_ring_1

CHANGELOG = "CHANGELOG.md"
FOUND = "model and simulation"
"""What those have found, in a sentence each."""
FIRST_VERSION = "## 0.1.0"
"""From here on the changelog tells what there is, and no fault that was mended."""

TABLES = tomllib.loads((TESTS / "faults.toml").read_text("utf-8"))
HELD: dict[str, dict[str, str]] = {page: TABLES[page] for page in (CHANGELOG, FOUND)}
NEW: list[str] = TABLES["new"]["bullets"]


def bullets(text: str) -> list[str]:
    """The bullets of a document, each on one line."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("- "):
            found.append(line.removeprefix("- "))
        elif line.startswith("  ") and found and found[-1]:
            found[-1] += f" {line.strip()}"
        elif found and found[-1]:
            found.append("")
    return [one for one in found if one]


def changes() -> list[str]:
    """The bullets of the changelog that tell of faults, or of what is new."""
    return bullets(Path(ROOT, CHANGELOG).read_text("utf-8").partition(FIRST_VERSION)[0])


def test_each_bullet_is_held_or_new() -> None:
    """Whoever adds one names the test that holds it, or says that it was no fault, not both."""
    found = {
        one: [any(key in one for key in keys) for keys in (HELD[CHANGELOG], NEW)]
        for one in changes()
    }
    assert [one[:80] for one, held in found.items() if held.count(True) != 1] == []


def test_each_key_is_of_one_bullet() -> None:
    """Else nobody could tell what the test holds; a bullet may tell of several faults."""
    keys = [*HELD[CHANGELOG], *NEW]
    assert {
        key: number for key in keys if (number := sum(key in one for one in changes())) != 1
    } == {}


def test_each_fault_has_a_test_that_is_there() -> None:
    assert missing({node for held in HELD.values() for node in held.values()}) == []


def test_faults_are_held_by_ring_1_but_where_a_reason_says_why_not() -> None:
    """By a rule, an example of the simulation or a session; a reason that is idle goes."""
    nodes = {node for held in HELD.values() for node in held.values()}
    assert outside_ring_1(nodes) == sorted(TABLES["ring2"])
    assert all(TABLES["ring2"].values())
    assert len(TABLES["ring2"]) <= 25


def test_bullets_are_read_whole() -> None:
    text = "# C\n- one\n  goes on\n- two\n\nNo more\n  of it\n- three\n"
    assert bullets(text) == ["one goes on", "two", "three"]
