"""A ledger that cannot be read says nothing of what was sent: nothing is sent again by accident."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"


def garbage(ledger: Path) -> None:
    ledger.write_bytes(b"not a ledger\n" * 1000)


def truncated(ledger: Path) -> None:
    content = ledger.read_bytes()
    ledger.write_bytes(content[: len(content) // 2])


def newer(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("UPDATE run SET ledger = 99")


@pytest.fixture
def ledger(project: Project) -> Path:
    """The ledger of a run of m.jsonl, d-0 and d-1."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    return ledger


@pytest.fixture
def damaged(ledger: Path) -> Path:
    """That ledger, which nobody can read any more."""
    garbage(ledger)
    return ledger


@pytest.mark.parametrize("damage", [garbage, truncated, newer])
def test_nothing_is_sent_where_the_ledger_cannot_be_read(
    project: Project, ledger: Path, damage: Callable[[Path], None]
) -> None:
    """In whichever way it is damaged."""
    damage(ledger)
    plain = project.run("--manifest=m.jsonl", MEMORY)
    assert plain.ret == pytest.ExitCode.USAGE_ERROR
    plain.stderr.fnmatch_lines(
        [f"*an earlier run of this manifest may be unfinished*{ledger.name}*add --manifest-rerun"]
    )
    assert project.ran() == {"d-0": 1, "d-1": 1}


def test_an_unreadable_ledger_is_given_up_once(project: Project, damaged: Path) -> None:
    """An audit and a resume are refused and name the file; --manifest-rerun insists."""
    for option in ("--manifest-audit", "--manifest-resume"):
        refused = project.run("--manifest=m.jsonl", MEMORY, option)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines(
            [f"*the newest run of this manifest cannot be read*{damaged.name}*"]
        )
    assert project.ran() == {"d-0": 1, "d-1": 1}
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-rerun").assert_outcomes(passed=2)
    assert project.ran() == {"d-0": 2, "d-1": 2}
    assert damaged.exists()
    # Given up once is enough: nothing is refused for it any more.
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-audit").assert_outcomes(passed=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)


def test_an_older_run_is_not_taken_for_the_newest(project: Project) -> None:
    """Where the newest ledger is damaged, the one before it answers only to its name."""
    project.doubles(count=2)
    for _ in range(2):
        project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    older, newest = project.ledgers()
    garbage(newest)
    for option in ("--manifest-audit", "--manifest-resume"):
        refused = project.run("--manifest=m.jsonl", MEMORY, option)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
    named = f"--manifest-run={older.stem}"
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-audit", named).assert_outcomes(passed=2)
    newest.unlink()
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume").assert_outcomes(passed=2)


def test_the_ledger_of_another_manifest_is_no_hindrance(project: Project, damaged: Path) -> None:
    """Other work is sent beside it, and can be looked at and gone on with."""
    project.manifest("other.jsonl", [{"id": "x", "task": "jobs.double", "args": [1, "x"]}])
    for option in (), ("--manifest-audit",), ("--manifest-resume",):
        project.run("--manifest=other.jsonl", MEMORY, *option).assert_outcomes(passed=1)
    assert project.ran() == {"d-0": 1, "d-1": 1, "x": 1}
    assert damaged.exists()


DAMAGING = """
import pytest
from pathlib import Path

WHEN = {when!r}


def damage():
    for ledger in Path(__file__).with_name(".manifest").rglob("*.sqlite"):
        ledger.write_bytes(b"not a ledger\\n" * 1000)
        for beside in ledger.parent.glob(ledger.name + "-*"):
            beside.unlink()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    if WHEN == "finish":
        damage()


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary():
    if WHEN == "summary":
        damage()
"""


@pytest.mark.parametrize(("when", "option"), [("finish", "-v"), ("summary", "-q")])
def test_a_ledger_that_breaks_before_the_summary_is_a_sentence(
    project: Project, when: str, option: str
) -> None:
    """What the tests have told stands; that the rest cannot be read is said, with the file."""
    project.write("conftest.py", DAMAGING.format(when=when))
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", MEMORY, option)
    result.assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    result.stdout.fnmatch_lines([f"m.jsonl: *is not known*{ledger.name}*"])
    for output in (result.stdout, result.stderr):
        output.no_fnmatch_line("*INTERNALERROR*")
        output.no_fnmatch_line("*Traceback*")
