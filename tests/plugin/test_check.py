"""``manifest check``: the record of a real run keeps its promises, and each broken one is seen."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.ledger import Ledger
from pytest_manifest.run.audit import violations
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.run_facts import Segment, SegmentEnded, StoreFact, TaskFact
from tests.broken_records import ENTRIES, MUTATIONS
from tests.ledger_edits import make_editable
from tests.plugin.conftest import Project
from tests.plugin.test_descendants import STARTING

pytestmark = [pytest.mark.live, pytest.mark.broken_record]


@pytest.fixture
def record(project: Project) -> Path:
    """The ledger of a run that was resumed once: two entries were sent twice, one by insistence."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + STARTING)
    project.manifest("m.jsonl", ENTRIES)
    for name in ("again", "once"):
        project.write(f"broken-{name}", "")
    stack = ("--manifest=m.jsonl", "--manifest-broker=memory://")
    project.run(*stack).assert_outcomes(passed=6, failed=2)
    (project.path / "broken-again").unlink()
    resumed = project.run(*stack, "--manifest-resume=unsafe")
    resumed.assert_outcomes(passed=7, failed=1)
    return project.ledgers()[-1]


def command(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``manifest`` in the project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest_manifest", *arguments],
        cwd=project.path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def broken(path: Path) -> list[tuple[str, str]]:
    """The promises that a record breaks, and the sentences about it."""
    stored = StoredRun.open(path)
    with stored.read() as ledger, closing(violations(ledger, stored.manifest)) as found:
        return [(one.promise, f"{one.entry}: {one.sentence}") for one in found]


def test_each_broken_promise_is_seen_and_a_real_record_breaks_none(
    record: Path, tmp_path: Path
) -> None:
    assert broken(record) == []
    with Ledger.open(record, write=True) as ledger:
        ledger.compact()
    assert len(MUTATIONS) >= 50
    unseen: dict[str, object] = {}
    folder = tmp_path / "mutated"
    for name, (promise, statements) in MUTATIONS.items():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(record.parent, folder)
        with closing(sqlite3.connect(folder / record.name)) as db:
            make_editable(db)
            before = db.total_changes
            db.executescript(statements)
            db.commit()
            assert db.total_changes > before, f"{name}: changes nothing"
        found = broken(folder / record.name)
        if promise not in {one for one, _ in found}:
            unseen[name] = found
    assert not unseen, json.dumps(unseen, indent=1)


@pytest.mark.parametrize("options", [(), ("-q",)])
def test_a_session_whose_record_breaks_a_promise_fails_and_says_which(
    project: Project, options: tuple[str, ...]
) -> None:
    """Whatever its tests have shown: its verdicts are not to be trusted."""
    project.doubles(count=3)
    project.write(
        "conftest.py",
        "import sqlite3, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_manifest_finished(config, run):\n"
        "    with sqlite3.connect(run.ledger_path) as db:\n"
        "        db.execute('UPDATE verdicts SET \"end\" = NULL, added = NULL WHERE job > 1')\n",
    )
    result = project.run("--manifest=m.jsonl", "--manifest-broker=memory://", *options)
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    said = " ".join(result.stdout.str().split())
    assert "S4, entry 'd-1': attempt 1 passed, and no receipt says so; S4, entry 'd-2'" in said
    assert "manifest check 2" in said
    if not options:
        result.stdout.fnmatch_lines(["  record    2 contradictions: 3 entries, 3 verdicts"])


def test_the_command_tells_what_each_record_breaks(project: Project) -> None:
    """For people and for programs; a record that breaks nothing ends with 0."""
    project.doubles(count=3)
    project.run("--manifest=m.jsonl", "--manifest-broker=memory://").assert_outcomes(passed=3)
    run = project.ledgers()[-1].stem
    good = command(project, "check", "last")
    assert (good.returncode, good.stdout) == (
        0,
        f"run {run}: its record is consistent: 3 entries, 3 verdicts\n",
    )
    with closing(sqlite3.connect(project.ledgers()[-1])) as db:
        db.execute('UPDATE verdicts SET "end" = NULL, added = NULL WHERE job > 1')
        db.commit()
    bad = command(project, "check", "last", "--limit=1")
    assert bad.returncode == 1
    assert bad.stdout.splitlines() == [
        "S4: entry 'd-1' attempt 1 passed, and no receipt says so",
        "... and 1 more; --limit=0 shows all",
        f"run {run}: its record has 2 contradictions: 3 entries, 3 verdicts",
    ]
    document = json.loads(command(project, "check", "last", "--json").stdout)
    assert [one["violations"] for one in document["runs"]] == [2]
    assert {one["entry"] for one in document["runs"][0]["shown"]} == {"d-1", "d-2"}


def test_a_real_record_has_the_facts_of_its_run(record: Path) -> None:
    """Each start of pytest with its settings and its end, the store, and the code of the tasks."""
    with Ledger.open(record) as ledger:
        facts = ledger.jobs.run_facts().facts
        segments = [one for one in facts if isinstance(one, Segment | SegmentEnded)]
        assert [type(one) for one in segments] == [Segment, SegmentEnded] * 2
        tasks = {one.task for one in facts if isinstance(one, TaskFact) and one.code is not None}
        assert tasks >= {entry["task"] for entry in ENTRIES}
        assert "marked" in {one.what for one in facts if isinstance(one, StoreFact)}
        attempts = ledger.jobs.of_entry("again")
        assert [one.own.job.why for one in attempts] == ["first", "resume"]
        kinds = [fact.kind for fact in attempts[0].own.facts]
        assert kinds[-1] is Kind.TAKEN_UP
        assert Kind.ENDED in kinds
