"""What a finished run says its exported receipts say, too; an audit makes nothing green."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.manifest.writer import write_receipt_lines
from pytest_manifest.run.audit import audit_run
from pytest_manifest.run.exports import exported_lines, ledger_of_receipts
from pytest_manifest.run.fact_log import record_own_limits
from pytest_manifest.run.invariants import corrections, trees
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header, Receipt, Verdict, VerdictStatus
from pytest_manifest.urls import StackAddress
from tests.ledger_edits import make_readable
from tests.reports import add_receipts, add_starts
from tests.unit.analysis_support import INFO, START, MadeRun
from tests.unit.ledger_support import NOTHING, start

NOWHERE: Final = StackAddress("", "", None, is_private=False)
FINAL: Final[Sequence[VerdictStatus]] = [
    status for status in get_args(VerdictStatus) if status != "pending"
]
"""An audit alone says 'pending', of a run that is not finished."""
WHOLE: Final[dict[str, Any]] = {
    "sent_at": START,
    "started_at": START,
    "finished_at": START,
    **NOTHING,
}


class Run(MadeRun):
    """A run whose task ids are such as a run computes."""

    def plan(self, *names: str, number: int = 1, reason: str | None = None) -> None:
        rows = [(self.task_id(name), name, number, n, reason) for n, name in enumerate(names)]
        self.ledger.attempts.plan(rows)
        self.ledger.attempts.mark((row[0] for row in rows), "sent", sent_at=START)

    def task_id(self, name: str) -> str:
        return attempt_of(INFO.run, Entry(id=name, task="jobs.t"), 1).task_id

    def ran(self, name: str, runtime: float) -> Receipt:
        """The receipt of a job that ran so long, without a fault."""
        return self.receipt(name, task_id=self.task_id(name), **{**WHOLE, "runtime": runtime})


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A finished run with two entries of each status: one has a receipt that is without fault, of a
    job that ran for 2 s, and the other has none."""
    folder = tmp_path / "runs"
    folder.mkdir()
    names = [f"{status}-{how}" for status in FINAL for how in ("receipt", "nothing")]
    made = Run(folder, [Entry(id=name, task="jobs.t") for name in names])
    with made.ledger as ledger:
        ledger.info.begin_segment(START)
        record_own_limits(ledger, {"jobs.t": 100.0})
        made.plan(*names)
        add_starts(ledger, [start(made.task_id(name), "x") for name in names])
        for status in FINAL:
            told = made.ran(f"{status}-receipt", 2)
            made.settle(f"{status}-receipt", status, told)
            if status != "passed":
                made.settle(f"{status}-nothing", status, None)
            else:
                made.settle("passed-nothing", "skipped", None)
        ledger.info.set_status("finished")
    return ledger.path


def verdicts(path: Path) -> dict[str, Verdict]:
    with closing(sqlite3.connect(path)) as db:
        make_readable(db)
        assert db.execute("SELECT * FROM corrections").fetchall() == []
    with Ledger.open(path) as ledger:
        assert ledger.info.status == "finished"
        return {one.verdict.entry: one.verdict for one in ledger.queries.all_verdicts()}


def audit(path: Path) -> dict[str, Verdict]:
    """The verdicts after an audit."""
    settings = RunSettings(folder=path.parent, kills=1)
    manifest = read_manifest(path.with_name("m.jsonl"))
    run = audit_run(manifest, path, NOWHERE, settings, wait=False)
    run.prepare()
    run.take_effect()
    run.start()
    return verdicts(path)


def exported(path: Path, folder: Path) -> Path:
    file = folder / "r.jsonl"
    with Ledger.open(path) as ledger:
        write_receipt_lines(file, exported_lines(ledger))
    return file


def imported(manifest: Manifest, file: Path, folder: Path) -> dict[str, Verdict]:
    path, _ = ledger_of_receipts(manifest, file, folder)
    with Ledger.open(path) as ledger:
        return {one.verdict.entry: one.verdict for one in ledger.queries.all_verdicts()}


def test_its_exported_receipts_say_the_same(ledger: Path, tmp_path: Path) -> None:
    """Of what has a receipt; what has none is unknown there."""
    manifest = read_manifest(ledger.with_name("m.jsonl"))
    before = verdicts(ledger)
    found = imported(manifest, exported(ledger, tmp_path), tmp_path / "scratch")
    for name, verdict in found.items():
        if name.endswith("-receipt") and name != "passed-receipt":
            assert verdict == before[name]
        else:
            assert verdict.verdict == ("passed" if name == "passed-receipt" else "unknown")


@pytest.mark.parametrize("status", ["failed", "forged", "quarantined", "timed_out"])
def test_by_another_manifest_only_what_expectations_decide_is_judged_anew(
    ledger: Path, tmp_path: Path, status: str
) -> None:
    """That a receipt is not believed, or a job is not sent again, no manifest decides."""
    other = [Entry(id=one.id, task=one.task, timeout=200) for one in _entries(ledger)]
    manifest = write_manifest(tmp_path / "other.jsonl", Header(), other)
    found = imported(manifest, exported(ledger, tmp_path), tmp_path / "scratch")
    kept = status in ("forged", "quarantined")
    assert found[f"{status}-receipt"].verdict == (status if kept else "passed")


@pytest.mark.parametrize(
    ("timeout", "runtime", "status"),
    [(None, 2, "timed_out"), (5, 2, "timed_out"), (1, 0.5, "passed")],
)
def test_the_limit_that_the_task_had_is_in_the_file(
    tmp_path: Path, timeout: float | None, runtime: float, status: VerdictStatus
) -> None:
    """Also where somebody says in the file that what ran too long had passed."""
    fields = {} if timeout is None else {"timeout": timeout}
    made = Run(tmp_path, [Entry.model_validate({"id": "a", "task": "jobs.t", **fields})])
    with made.ledger as ledger:
        record_own_limits(ledger, {"jobs.t": 1.0})
        made.plan("a")
        made.settle("a", "passed", made.ran("a", runtime))
    found = imported(made.manifest, exported(ledger.path, tmp_path), tmp_path / "scratch")
    assert found["a"].verdict == status


@pytest.mark.parametrize(
    ("timeout", "runtime", "status"), [(None, 2, "unknown"), (5, 2, "passed"), (None, 1, "passed")]
)
def test_what_a_file_lacks_is_unknown_where_it_could_make_a_difference(
    tmp_path: Path, timeout: float | None, runtime: float, status: VerdictStatus
) -> None:
    """Receipts of another program, or of an older version, do not say what limit the task had."""
    fields = {} if timeout is None else {"timeout": timeout}
    made = Run(tmp_path, [Entry.model_validate({"id": "a", "task": "jobs.t", **fields})])
    made.ledger.close()
    file = tmp_path / "r.jsonl"
    told = made.ran("a", runtime)
    file.write_text(told.model_dump_json() + "\n", "utf-8")
    assert imported(made.manifest, file, tmp_path / "scratch")["a"].verdict == status


@pytest.mark.parametrize(("counted", "status"), [(1, "passed"), (2, "unknown")])
def test_a_pass_whose_descendant_started_more_than_is_known_is_unknown_to_all(
    tmp_path: Path, counted: int, status: VerdictStatus
) -> None:
    """The record's check, an audit and an import; so an older version's pass does not stay one."""
    made = Run(tmp_path, [Entry(id="a", task="jobs.t")])
    with made.ledger as ledger:
        made.plan("a")
        root = made.task_id("a")
        for name, parent, children in (("c1", root, counted), ("c2", "c1", 0)):
            ledger.descendants.add([Descendant(name, root, parent, "jobs.t", "call")])
            ended = made.receipt("a", task_id=name, children=children, **WHOLE)
            add_starts(ledger, [start(name, "x")])
            add_receipts(ledger, [(name, "x", ended)])
            ended_well = Verdict(verdict="passed", entry="a", attempt=1, sentence="It ended.")
            ledger.descendants.end({name: ended_well})
        add_starts(ledger, [start(root, "x")])
        told = made.ran("a", 0.1).model_copy(update={"children": 1})
        made.settle("a", "passed", told)
        ledger.info.set_status("finished")
        broken = [one.sentence for one in trees(ledger, made.manifest)]
    said = "passed, and of the 2 tasks that its descendant 'jobs.t' ('c1') started 1 are known"
    assert broken == ([] if status == "passed" else [said])
    file = exported(ledger.path, tmp_path)
    assert imported(made.manifest, file, tmp_path / "scratch")["a"].verdict == status
    assert audit(ledger.path)["a"].verdict == status


def _entries(ledger: Path) -> list[Entry]:
    return list(read_manifest(ledger.with_name("m.jsonl")))


def test_the_check_finds_a_verdict_that_was_changed_in_silence(ledger: Path) -> None:
    """As an audit once made 'crashed' of 'quarantined'; what a correction says is no fault."""
    name = "quarantined-receipt"
    crashed = Verdict(verdict="crashed", entry=name, attempt=1, sentence="It died.")
    with Ledger.open(ledger, write=True) as made:
        assert [one for one in corrections(made) if one.entry == name] == []
        made.verdicts.note_correction(name)
        made.verdicts.record([(crashed, None)])
        said = [one.sentence for one in corrections(made) if one.entry == name]
        assert "no correction says" not in " ".join(said)
        made.verdicts.record([(crashed.model_copy(update={"verdict": "failed"}), None)])
        made.verdicts.record([(crashed.model_copy(update={"verdict": "lost"}), None)])
        said = [one.sentence for one in corrections(made) if one.entry == name]
    assert "attempt 1 had another verdict, and no correction says that it changed" in said
