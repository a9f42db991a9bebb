"""An audit of a run that has ended changes nothing that is final, whatever became of its jobs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from benchmarks import audit as made
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.redaction import names, texts
from pytest_manifest.run.audit import audit_run, judged_otherwise
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.facts import Ended, TakenUp
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Judged, Judging, recorded
from tests.ledger_edits import edit
from tests.reports import add_receipts
from tests.unit import test_judge as rules
from tests.unit.judge_world import (
    AS_EXPECTED,
    Row,
    Step,
    an_entry,
    ended,
    later,
    nowhere,
    planned,
    play,
    run_over,
    search,
    seen,
    sent,
    started,
    time_over,
)
from tests.unit.judge_world import (
    stored as store_has,
)
from tests.unit.test_judge_disagreements import ROWS as DISAGREEMENTS
from tests.unit.written_worlds import written

NOWHERE: Final = StackAddress("", "", None, is_private=False)
UNWRITTEN: Final = re.compile("J1: the body|J2: .*(off|looked for|handlers)")
"""Stories whose ledger would be another: what is announced has an id that follows from its key."""
ROWS: Final = [
    row
    for row in (
        *(*rules.A, *rules.B, *rules.C, *rules.D, *rules.E, *rules.F, *rules.G, *rules.J),
        *DISAGREEMENTS,
        Row("expired", [sent(), ended("expired", None)], ("expired", "expired")),
    )
    if row.is_final and row.rules is None and not UNWRITTEN.search(row.name)
]
"""The rules of what is final."""


def recorded_run(row: Row, folder: Path) -> tuple[Path, Manifest]:
    """A finished run in which this has happened, with the verdict on it."""
    world = play(row.steps, row.entry, is_private=row.is_private, signed_only=row.signed_only)
    path, manifest = written(world, folder)
    with Ledger.open(path, write=True) as ledger:
        judged = Judging(ledger).of(manifest["e1"])
        verdict, receipt = recorded(judged)
        ledger.verdicts.record([(verdict, receipt)])
        ledger.info.set_status("finished")
    assert (judged.judgement.status, judged.judgement.code) == row.comes_to
    return path, manifest


def audit(path: Path, manifest: Manifest) -> None:
    run = audit_run(manifest, path, NOWHERE, RunSettings(folder=path.parent), wait=False)
    run.prepare()
    run.take_effect()
    run.start()


def stored(path: Path) -> StoredReason:
    with Ledger.open(path) as ledger:
        [found] = ledger.verdicts.reasons(["e1"]).values()
        return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_audit_changes_nothing_that_is_final(row: Row, tmp_path: Path) -> None:
    """The status, the code and the fields are the same, and so is the row; the check agrees."""
    path, manifest = recorded_run(row, tmp_path)
    before = stored(path)
    audit(path, manifest)
    assert stored(path) == before
    with Ledger.open(path) as ledger:
        assert list(judged_otherwise(ledger, manifest)) == []
        assert ledger.info.status == "finished"


@pytest.mark.parametrize(
    ("change", "is_judged"),
    [
        pytest.param("", False, id="nothing"),
        pytest.param(
            "UPDATE facts SET seq = seq + 1000 WHERE receipt IS NULL",
            True,
            id="a fact after its verdict",
        ),
        pytest.param("UPDATE verdicts SET status = NULL", True, id="taken up again"),
        pytest.param(
            "UPDATE facts SET receipt = json_set(receipt, '$.state', 'failed')",
            True,
            id="a receipt that says otherwise",
        ),
    ],
)
def test_an_audit_judges_what_may_have_another_verdict_now(
    change: str, *, is_judged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has something new, no final verdict, or one that the record contradicts."""
    made.make(tmp_path, 3)
    [path] = (tmp_path / ".manifest" / "runs").glob("*.sqlite")
    manifest = read_manifest(tmp_path / "m.jsonl")
    edit(path, change or "SELECT 1")
    looked_at: list[str] = []
    judge = Judging.judge

    def watched(self: Judging, entry: Entry, *args: Any, **kwargs: Any) -> Judged:
        looked_at.append(entry.id)
        return judge(self, entry, *args, **kwargs)

    monkeypatch.setattr(Judging, "judge", watched)
    audit(path, manifest)
    assert looked_at == ([entry.id for entry in manifest] if is_judged else [])


def test_every_status_that_is_final_is_among_these() -> None:
    assert {row.comes_to[0] for row in ROWS} == {*get_args(VerdictStatus)} - {"pending"}


# By another manifest, and of what goes on


def judged_by(entry: Entry, steps: list[Step], folder: Path) -> StoredReason:
    """What an audit by this entry says of a run of ``an_entry()`` in which these steps were taken;
    its verdicts are in a copy of the ledger."""
    path, _ = recorded_run(Row("", steps, recorded_as(steps)), folder)
    line = entry.model_dump_json(exclude_unset=True, by_alias=True)
    (folder / "other.jsonl").write_text(f"{line}\n", "utf-8")
    scratch = folder / "scratch"
    scratch.mkdir()
    before = stored(path)
    other = read_manifest(folder / "other.jsonl")
    settings = RunSettings(folder=folder)
    run = audit_run(other, path, NOWHERE, settings, wait=False, scratch=scratch)
    run.prepare()
    run.take_effect()
    run.start()
    assert stored(path) == before
    return stored(scratch / path.name)


def recorded_as(steps: list[Step]) -> tuple[str, str]:
    judgement = play(steps).judge()
    return judgement.status, judgement.code


@pytest.mark.parametrize(
    ("steps", "entry", "comes_to"),
    [
        pytest.param(
            [sent(), started(), run_over()],
            an_entry(expect={"state": "timed_out"}),
            ("timed_out", "run_deadline"),
            id="17: the run was over before its timeout, which is expected now",
        ),
        pytest.param(
            [sent(), started(), later(61), time_over(execution="x1")],
            an_entry(expect={"state": "timed_out"}),
            AS_EXPECTED,
            id="its own time was over, which is expected now",
        ),
        pytest.param(
            [sent(), started(), ended("failed")],
            an_entry(expect={"state": "failed"}),
            ("passed", "ended_so_as_expected"),
            id="its failure is expected now",
        ),
        pytest.param(
            [sent(), started(), ended()],
            an_entry(task="tasks.other"),
            ("unknown", "other_work"),
            id="L: its work is another now",
        ),
        pytest.param(
            [sent(), started(), ended("failed", fault="it is not signed"), search(), nowhere()],
            an_entry(expect={"state": "failed"}),
            recorded_as([sent(), started(), ended("failed", fault="no"), search(), nowhere()]),
            id="an end that is not believed is none by any manifest",
        ),
    ],
)
def test_another_manifest_decides_what_expectations_decide(
    steps: list[Step], entry: Entry, comes_to: tuple[str, str], tmp_path: Path
) -> None:
    """And nothing else."""
    found = judged_by(entry, steps, tmp_path)
    assert (found.status, found.reason["code"]) == comes_to


def test_18_what_is_unknown_by_what_was_expected_is_judged_once_that_is_dropped(
    tmp_path: Path,
) -> None:
    """Offline as with a stack: its receipt says how it ended."""
    asked = an_entry(expect={"max_runtime": 9.0})
    row = Row("", [sent(), store_has()], ("unknown", "times_not_reported"), asked)
    path, _ = recorded_run(row, tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_text(an_entry().model_dump_json(exclude_unset=True, by_alias=True) + "\n", "utf-8")
    audit(path, read_manifest(other))
    assert stored(path).status == "passed"


@pytest.mark.parametrize(
    ("steps", "comes_to"),
    [
        ([sent(), seen("queue")], ("pending", "stack_ended")),
        ([sent()], ("unknown", "past_lifetime")),
        ([planned()], ("unknown", "never_sent")),
    ],
    ids=["19: seen in its queue", "nobody has seen it", "never sent"],
)
def test_what_has_no_end_after_the_lifetime_of_reports(
    steps: list[Step], comes_to: tuple[str, str], tmp_path: Path
) -> None:
    """An audit records that it has looked; the next one says the same, and the check agrees."""
    path, manifest = written(play(steps), tmp_path)
    for _ in range(2):
        audit(path, manifest)
        found = stored(path)
        assert (found.status, found.reason["code"]) == comes_to
        with Ledger.open(path) as ledger:
            assert list(judged_otherwise(ledger, manifest)) == []
            assert list(ledger.facts.of_kind(TakenUp)) == []


def test_what_is_hidden_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has another salt, and knows no secret that a session was given."""
    entry = an_entry(expect={"result": {"password": "sesame-4711", "said": "open tulip-0815"}})
    found = {"password": "rose-2222", "said": "tulip-0815"}
    row = Row("", [sent(), started(), ended(result=found)], ("failed", "unmet"), entry)
    with monkeypatch.context() as session:
        session.setattr(names.settings, "now", replace(names.settings.now, salt=b"another"))
        session.setattr(texts.hidden_values.now, "literals", ("tulip-0815",))
        path, manifest = recorded_run(row, tmp_path)
    with Ledger.open(path) as ledger:
        assert list(judged_otherwise(ledger, manifest)) == []


@pytest.mark.parametrize(
    ("is_private", "code"), [(False, "not_asked"), (True, "stack_ended")], ids=["users", "private"]
)
def test_what_goes_on_is_not_asked_for_without_a_stack(
    tmp_path: Path, is_private: bool, code: str
) -> None:
    """It is said so, and it gets its verdict once it has an end."""
    world = play([sent(), started()], is_private=is_private)
    path, manifest = written(world, tmp_path)
    with Ledger.open(path, write=True) as ledger:
        ledger.info.set_meta("created_at", utc_now().isoformat())
    audit(path, manifest)
    assert (stored(path).status, stored(path).reason["code"]) == ("pending", code)
    ended()(world)
    with Ledger.open(path, write=True) as ledger:
        end = world.of["a1"][-1]
        assert isinstance(end, Ended)
        add_receipts(ledger, [("a1", "x1", end.receipt)])
    audit(path, manifest)
    assert stored(path).status == "passed"
