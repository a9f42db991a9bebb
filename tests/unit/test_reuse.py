"""Reuse of earlier passes: of the very same work alone, judged anew, and told as what it is."""

from __future__ import annotations

import csv
import io
import json
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_manifest import signing as keys
from pytest_manifest.analysis.digest import make_digest
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.cli.show import show_facts
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import DispatchError, LedgerError, PlanError
from pytest_manifest.ledger import SECRETS, TO_REUSE, AttemptRow, Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.run_info import REUSED_RUNS
from pytest_manifest.manifest import read_manifest
from pytest_manifest.planning import plan_spec
from pytest_manifest.plugin.context import PluginContext
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.plans import Plans
from pytest_manifest.redaction import texts
from pytest_manifest.reporting.run_page.page import details
from pytest_manifest.run import resume_rules
from pytest_manifest.run.audit import audit_run
from pytest_manifest.run.exports import exported_lines, ledger_of_receipts
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.merge import merge_files
from pytest_manifest.run.reuse import refuse_unlooked, take_over_passes
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.facts import Reused, Started
from pytest_manifest.schema.summary import RunSummary
from pytest_manifest.schema.wire import json_sha256
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Costs
from pytest_manifest.worker import signing
from tests.ledger_edits import make_editable
from tests.reports import add_receipts, all_receipts, starts_by_task
from tests.unit.cli_support import as_json, manifest
from tests.unit.record_support import RUN, SENT_AT
from tests.unit.reuse_rig import CODE, CODES, OTHER, Rig, double


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# What is reused


def test_the_same_work_is_not_sent_again(rig: Rig) -> None:
    """It has its verdict before anything is sent; what is new is sent, and the record is sound."""
    rig.passed([double("a"), double("b", 2)])
    run = rig.reuse([double("a"), double("b", 2), double("c", 3)])
    assert run.sent == ["c"]
    assert run.broken() == []
    with Ledger.open(run.path) as ledger:
        assert ledger.verdicts.statuses() == {"a": "passed", "b": "passed"}
        settled = ledger.verdicts.of_entry("a")
        assert settled is not None
        assert settled.receipt is not None
        assert settled.verdict.attempt == 0
        assert settled.verdict.sentence.startswith(f"Reused from run {RUN}: The task succeeded")
        assert (settled.receipt.run, settled.receipt.attempt) == (RUN, 1)
        assert settled.receipt.reused is not None
        assert settled.receipt.reused.run == run.state.info.run
    assert f"reuses 2 of 3 entries, from run {RUN} (2)" in run.notices


@pytest.mark.parametrize(
    "changed",
    [
        {"args": [2]},
        {"args": [1.0]},
        {"args": [True]},
        {"kwargs": {"n": 1}},
        {"headers": {"tenant": "b"}},
        {"task": "jobs.t"},
        {"timeout": 20},
        {"expect": {"result": {"n": 2}}},
        {"expect": {"max_runtime": 30}},
        {"reuse": False},
    ],
    ids=str,
)
def test_what_differs_is_sent(rig: Rig, changed: dict[str, object]) -> None:
    """In its work, or in what is expected of it; or as it says that it is never to be reused."""
    rig.passed([double("a")])
    assert rig.reuse([{**double("a"), **changed}]).sent == ["a"]


@pytest.mark.parametrize(
    "changed",
    [{"queue": "other"}, {"priority": 3}, {"tags": ["x"]}, {"meta": {"x": 1}}, {"cost": 2.0}],
    ids=str,
)
def test_where_and_when_it_runs_is_no_other_work(rig: Rig, changed: dict[str, object]) -> None:
    rig.passed([double("a")])
    assert rig.reuse([{**double("a"), **changed}]).sent == []


def test_another_id_is_no_other_work(rig: Rig) -> None:
    """A plan that numbers its entries anew is reused; the verdict names the earlier entry."""
    rig.passed([double("old")])
    run = rig.reuse([double("new")])
    assert (run.sent, run.broken()) == ([], [])
    with Ledger.open(run.path) as ledger:
        settled = ledger.verdicts.of_entry("new")
    assert settled is not None
    assert settled.verdict.sentence.startswith(f"Reused from run {RUN}, entry 'old': ")


def test_one_job_counts_for_one_entry(rig: Rig) -> None:
    """Two entries of the same work are two jobs, and one of them has not run yet."""
    rig.passed([double("a")])
    assert rig.reuse([double("a"), double("b")]).sent == ["b"]
    assert rig.reuse([double("b"), double("c")]).sent == ["c"]
    assert rig.reuse([double("a", 9), double("b")]).sent == ["a", "b"]


def test_an_entry_is_left_to_the_pass_of_its_own_id(rig: Rig) -> None:
    """Which can be of no other one, as the pass of another id can, though it comes first."""
    rig.passed([double("old"), double("a")])
    run = rig.reuse([double("a"), double("new")])
    assert (run.sent, run.broken()) == ([], [])
    assert run.origins() == {"a": "a", "new": "old"}


def test_an_entry_is_left_to_an_older_pass_of_its_own_id(rig: Rig) -> None:
    """Whatever ids the same work had since; of other ids the newest pass counts."""
    rig.passed([double("a", 1)])
    rig.passed([double("x", 1), double("y", 2)])
    rig.passed([double("z", 1), double("w", 2)])
    run = rig.reuse([double("a", 1), double("b", 2)])
    assert (run.sent, run.broken()) == ([], [])
    assert run.origins() == {"a": "a", "b": "w"}


def test_work_of_another_id_counts_where_an_entrys_own_pass_does_not(rig: Rig) -> None:
    rig.passed([double("a")], code=OTHER)
    rig.passed([double("z")])
    run = rig.reuse([double("a")])
    assert (run.sent, run.origins()) == ([], {"a": "z"})


def test_what_was_reused_is_reused_from_the_run_that_had_sent_it(rig: Rig) -> None:
    rig.passed([double("a")])
    again = rig.reuse([double("a")])
    again.state.lock.release()
    rig.earlier = [again.path]
    run = rig.reuse([double("a")])
    assert (run.sent, run.broken()) == ([], [])
    assert f"from run {RUN} (1)" in run.notices


def test_one_job_that_two_runs_tell_of_counts_once(rig: Rig) -> None:
    """It was sent as ``a``, and reused as ``b`` since: a plan of both sends one of them."""
    rig.passed([double("a")])
    again = rig.reuse([double("b")])
    again.state.lock.release()
    rig.earlier.insert(0, again.path)
    run = rig.reuse([double("a"), double("b")])
    assert (run.sent, run.broken()) == (["a"], [])


def test_shards_that_count_one_job_are_not_merged(rig: Rig, tmp_path: Path) -> None:
    """Two sessions cannot know of one another; their ledgers tell."""
    rig.passed([double("old")])
    one, other = rig.reuse([double("a")]), rig.reuse([double("b")])
    with pytest.raises(LedgerError, match="entries 'a' and 'b' were both reused from one job"):
        merge_files(tmp_path / "merged.sqlite", [one.path, other.path], {}, [])


def test_a_secret_of_the_earlier_run_is_one_of_the_new_run(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its receipts hold is hidden in the reports of the run that reuses them, too."""
    monkeypatch.setattr(texts.hidden_values, "now", texts.Hidden())
    record = rig.begun([double("a")])
    record.attempt("a", code=CODE)
    record.ledger.info.add_texts(SECRETS, ["hunter2-of-monday"])
    rig.finish(record)
    run = rig.reuse([double("a")])
    with Ledger.open(run.path) as ledger:
        assert ledger.info.texts(SECRETS) == {"hunter2-of-monday"}


# A pass is earned


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ({"code": OTHER}, "1 entry is not reused, having passed with other code"),
        ({"code": None}, "1 entry is not reused, having passed with other code"),
        ({"code": "py3.11:no-source"}, "1 entry is not reused, having passed with other code"),
        ({"replaced": True}, "1 entry is not reused, having passed with other code"),
        ({"source": "backend"}, "1 entry is not reused, having passed with other code"),
    ],
    ids=str,
)
def test_a_pass_by_other_code_or_by_unknown_code_does_not_count(
    rig: Rig, ended: dict[str, object], told: str
) -> None:
    rig.passed([double("a")], **ended)
    run = rig.reuse([double("a")])
    assert run.sent == ["a"]
    assert told in run.notices


def test_nothing_is_reused_of_a_task_whose_present_code_is_not_known(rig: Rig) -> None:
    rig.passed([double("a")])
    run = rig.reuse([double("a")], codes={})
    assert run.sent == ["a"]
    assert "what code would run of 'jobs.double'" in run.notices


def test_a_pass_that_lies_is_found_out(rig: Rig) -> None:
    """Its result is not the one of its digest: as an own receipt it would be forged."""
    record = rig.begun([double("a")])
    record.attempt("a", code=CODE, result_sha256=json_sha256({"n": 3}))
    rig.finish(record)
    run = rig.reuse([double("a")])
    assert run.sent == ["a"]
    assert "1 earlier pass is none as judged now" in run.notices
    with Ledger.open(run.path) as ledger:
        assert all_receipts(ledger) == []
        assert [row.state for row in ledger.attempts.all()] == ["planned"]


def test_a_job_that_had_begun_twice_is_none_that_passed(rig: Rig) -> None:
    record = rig.begun([double("a")])
    record.attempt("a", code=CODE)
    record.begin(record.task_id("a"), "again")
    rig.finish(record)
    assert rig.reuse([double("a")]).sent == ["a"]


def test_a_failure_is_no_pass(rig: Rig) -> None:
    rig.passed([double("a")], state="failed", result=None, result_sha256=None)
    assert rig.reuse([double("a")]).sent == ["a"]


def test_an_older_run_is_asked_where_the_newer_has_no_sound_pass(rig: Rig) -> None:
    rig.passed([double("a")])
    rig.passed([double("a")], code=OTHER)
    assert rig.reuse([double("a")]).sent == []


def test_where_signatures_are_required_what_a_trusted_worker_has_signed_counts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else, whatever the earlier run had asked for."""
    private, public = keys.generate()
    _, stranger = keys.generate()
    record = rig.begun([double("a"), double("b")])
    unsigned = record.receipt

    def signed(entry: Entry, task_id: str, number: int, **ended: Any) -> Receipt:
        told = unsigned(entry, task_id, number, **ended)
        if entry.id == "b":
            return told
        document = signing.sign_receipt(told.model_dump(mode="json"), f"x-{task_id}")
        return Receipt.model_validate_json(json.dumps(document))

    monkeypatch.setattr(record, "receipt", signed)
    signing.use(keys.read_signer(private.decode(), "key"))
    try:
        record.attempt("a", code=CODE)
        record.attempt("b", code=CODE)
    finally:
        signing.forget()
    rig.finish(record)
    plan = [double("a"), double("b")]
    assert rig.reuse(plan).sent == []
    assert rig.reuse(plan, receipt_keys=public).sent == ["b"]
    assert rig.reuse(plan, receipt_keys=stranger).sent == ["a", "b"]


@pytest.mark.parametrize(("reuse", "budget"), [(None, 3.0), ("all", None)])
def test_a_plan_that_may_be_reused_is_not_held_against_the_budget(
    tmp_path: Path, reuse: str | None, budget: float | None
) -> None:
    """What of it is sent is known when it is run, and held against the budget then."""
    options = SimpleNamespace(plans=tmp_path, plan_run="", budget=3.0, reuse=reuse)
    plans = Plans(cast("PluginContext", SimpleNamespace(options=options)), cast("ManifestStore", 0))
    spec = plan_spec("shop:all", lambda plan: plan.add("jobs.double", id="a", cost=4.0))
    with nullcontext() if budget is None else pytest.raises(PlanError, match="budget"):
        plans.write(spec, cast("pytest.FixtureRequest", 0))


# Trees


def tree(rig: Rig, *, code: str | None = CODE, status: str = "passed") -> None:
    """An entry whose job has started one task, which has ended so."""
    record = rig.begun([{"id": "t", "task": "jobs.start"}])
    record.attempt("t", code=CODE, children=1)
    record.child("t", "c1", status=status, told=False)
    child = Entry(id="t", task="jobs.t")
    receipt = record.receipt(child, "c1", 1, code=code)
    record.begin("c1")
    add_receipts(record.ledger, [("c1", "x-c1", receipt)])
    rig.finish(record)


def test_a_whole_tree_is_reused_with_its_root(rig: Rig) -> None:
    """All that was known of it is in the new record, and counts as no work of the new run."""
    tree(rig)
    run = rig.reuse([{"id": "t", "task": "jobs.start"}])
    assert (run.sent, run.broken()) == ([], [])
    with Ledger.open(run.path) as ledger:
        assert [one.task_id for one in ledger.descendants.of_root(task_id_of(ledger, "t"))] == [
            "c1"
        ]
        assert ledger.trees.statuses() == {}
        assert ledger.trees.last_end() is None


def task_id_of(ledger: Ledger, entry: str) -> str:
    (row,) = ledger.attempts.of_entry(entry)
    return row.task_id


@pytest.mark.parametrize("code", [OTHER, None])
def test_a_tree_of_other_code_is_run_again(rig: Rig, code: str | None) -> None:
    """Though the code of the entry's own task is the same."""
    tree(rig, code=code)
    run = rig.reuse([{"id": "t", "task": "jobs.start"}])
    assert run.sent == ["t"]
    with Ledger.open(run.path) as ledger:
        assert not ledger.descendants.any()
        assert starts_by_task(ledger) == {}


# Order


def test_what_waits_for_a_reused_entry_waits_no_more(rig: Rig) -> None:
    rig.passed([double("a")])
    run = rig.reuse([double("a"), double("b", 2, after=["a"])])
    assert run.sent == ["b"]
    with Ledger.open(run.path) as ledger:
        assert ledger.verdicts.statuses() == {"a": "passed"}


def test_what_waits_for_an_entry_that_runs_again_runs_again(rig: Rig) -> None:
    """Its work was done on what the old job had left: so does what waits for that, in turn."""
    old = [double("a"), double("b", 2, after=["a"]), double("c", 3, after=["b"])]
    rig.passed(old)
    run = rig.reuse([double("a", 9), *old[1:]])
    assert run.sent == ["a", "b", "c"]
    assert run.broken() == []
    assert "2 entries are not reused, not having run after what is waited for now" in run.notices


def test_what_ran_before_the_pass_that_it_waits_for_runs_again(rig: Rig) -> None:
    """The newest pass of ``a`` is later than that of ``b``, which saw what an older one left."""
    rig.passed([double("b", 2)])
    record, later = rig.begun([double("a")]), SENT_AT + timedelta(hours=1)
    record.attempt("a", code=CODE, sent_at=later, started_at=later, finished_at=later)
    record.ledger.attempts.mark([record.task_id("a")], "sent", sent_at=later)
    rig.finish(record)
    assert rig.reuse([double("a"), double("b", 2, after=["a"])]).sent == ["b"]


# What follows


def test_a_reused_entry_adds_no_cost_no_time_and_no_attempt(rig: Rig) -> None:
    rig.passed([double("a", cost=3.0)], evidence={"cost": 2.0})
    run = rig.reuse([double("a", cost=3.0)])
    with Ledger.open(run.path) as ledger:
        (record,) = read_records(ledger, run.manifest)
        found = statistics([record], run.state.info)
        assert Costs(ledger, run.manifest).total() == 0
        stored = dict(ledger.verdicts.stored_from("a", 1))["a"]
    assert (record.outcome, record.attempts) == ("passed", ())
    assert record.reused_from is not None
    assert (record.reused_from.run, record.reused_from.entry) == (RUN, "a")
    assert stored.attempts == 0
    assert found.reused == {RUN: 1}
    assert found.model_dump()["reused"] == {RUN: 1}
    facts = details(record, lambda _moment: None, 100)["facts"]
    assert ["reused from", f"run {RUN}, entry 'a', attempt 1"] in facts  # type: ignore[operator]  # a list
    assert (found.runtime, found.cost, found.duration, found.workers) == (None, None, None, [])


def test_what_is_reused_is_no_attempt(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Its facts are shown all the same."""
    rig.passed([double("a")])
    show_facts("a", StoredRun.open(rig.reuse([double("a")]).path), 0, json=False)
    told = capsys.readouterr().out
    assert "(passed): 0 attempts, " in told
    assert "  reused  " in told


def test_it_is_judged_anew_by_what_is_expected_later(rig: Rig) -> None:
    """An audit with another expectation holds the same receipt against that."""
    rig.passed([double("a")])
    run = rig.reuse([double("a")])
    path = run.manifest.path
    path.write_text(json.dumps(double("a", expect={"result": {"n": 7}})) + "\n", "utf-8")
    changed, scratch = read_manifest(path), run.path.with_name("scratch")
    scratch.mkdir()
    nowhere = StackAddress("", "", None, is_private=False)
    settings = RunSettings(folder=scratch)
    audit = audit_run(changed, run.path, nowhere, settings, wait=False, scratch=scratch)
    audit.prepare()
    audit.take_effect()
    audit.start()
    with audit.read() as ledger:
        settled = ledger.verdicts.of_entry("a")
    assert settled is not None
    assert settled.verdict.verdict == "failed"
    assert settled.verdict.sentence.startswith(f"Reused from run {RUN}: ")
    assert settled.receipt is not None
    assert settled.receipt.reused is not None


def test_exported_receipts_say_which_were_reused(rig: Rig, tmp_path: Path) -> None:
    """An audit of the file alone judges them as the run has, and takes them for no sending."""
    tree(rig)
    rig.passed([double("old")])
    run = rig.reuse([{"id": "t", "task": "jobs.start"}, double("new")])
    assert run.sent == []
    file = tmp_path / "receipts.jsonl"
    with Ledger.open(run.path) as ledger:
        file.write_bytes(b"".join(line + b"\n" for line in exported_lines(ledger)))
    (tmp_path / "scratch").mkdir()
    path, notes = ledger_of_receipts(run.manifest, file, tmp_path / "scratch")
    assert notes == []
    assert path.stem == run.state.info.run
    with Ledger.open(path) as ledger:
        assert ledger.verdicts.statuses() == {"t": "passed", "new": "passed"}
        assert {row.state for row in ledger.attempts.all()} == {"reused"}
        assert [one.task_id for one in ledger.descendants.of_root(task_id_of(ledger, "t"))] == [
            "c1"
        ]


def test_merged_ledgers_know_what_was_reused(rig: Rig, tmp_path: Path) -> None:
    rig.passed([double("a")])
    run = rig.reuse([double("a")])
    target = tmp_path / "merged.sqlite"
    with Ledger.open(run.path) as ledger:
        merge_files(target, [run.path], ledger.info.all_meta(), [])
    with Ledger.open(target) as ledger:
        assert ledger.queries.reused_runs() == {RUN: 1}
        assert ledger.info.texts(REUSED_RUNS) == {RUN}


def test_a_run_that_goes_on_is_not_reused(rig: Rig) -> None:
    """It may yet correct a verdict; where it was named, nothing is sent."""
    record = rig.passed([double("a")])
    lock = RunLock(RunFiles(record.ledger.path).lock)
    lock.acquire(RUN)
    try:
        run = rig.reuse([double("a")])
        assert run.sent == ["a"]
        state = rig.state([double("a")], named=True)
        with (
            Ledger.open(state.files.ledger, write=True) as ledger,
            pytest.raises(DispatchError, match="goes on in another pytest"),
        ):
            take_over_passes(state, ledger, CODES)
    finally:
        lock.release()


def test_a_run_that_had_not_looked_yet_is_not_gone_on_with(rig: Rig) -> None:
    """To resume it would send all of what has passed before."""
    rig.passed([double("a")])
    state = rig.state([double("a")])
    with Ledger.open(state.files.ledger) as ledger:
        assert ledger.info.get_meta(TO_REUSE)
        with pytest.raises(DispatchError, match="begin it again"):
            refuse_unlooked(ledger)
    run = rig.reuse([double("a")])
    with Ledger.open(run.path) as ledger:
        refuse_unlooked(ledger)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE attempts SET reused_from = NULL",
        "UPDATE attempts SET state = 'sent'",
        "UPDATE attempts SET reused_from = json_set(reused_from, '$[1]', 'x')",
        "UPDATE verdicts SET added = json_remove(added, '$.reused')",
        "DELETE FROM receipts",
    ],
)
def test_a_record_that_lies_about_reuse_is_found_out(rig: Rig, change: str) -> None:
    """By ``manifest check``."""
    rig.passed([double("a")])
    run = rig.reuse([double("a")])
    assert run.broken() == []
    with Ledger.open(run.path, write=True) as ledger, ledger.transaction():
        make_editable(ledger._db.connection)
        ledger._db.connection.execute(change)
    assert run.broken() != []


def test_starts_are_copied_with_the_receipt(rig: Rig) -> None:
    """So that what is judged anew later is judged by all of it."""
    rig.passed([double("a")])
    run = rig.reuse([double("a")])
    with Ledger.open(run.path) as ledger:
        ((task_id, starts),) = starts_by_task(ledger).items()
        assert task_id == task_id_of(ledger, "a")
        assert [type(one) for one in starts] == [Started]


def test_the_commands_tell_what_was_reused(rig: Rig) -> None:
    """``show``, ``runs``, ``export`` and ``check``; none of them tells times of the earlier run."""
    rig.passed([double("a")])
    run = rig.reuse([double("a"), double("b", 2)])
    ledger = str(run.path)
    shown = manifest("show", ledger)
    assert "1 passed (1 reused)" in shown
    assert f"reused from run {RUN}" in shown
    told = as_json("show", ledger)
    assert told["reused"] == {RUN: 1}
    assert f"reused from run {RUN}" in manifest("show", ledger, "--tree=a")
    (row, _) = csv.DictReader(io.StringIO(manifest("export", ledger, "-f", "csv")))
    assert (row["verdict"], row["reused_from"], row["runtime"]) == ("passed", RUN, "")
    summary = RunSummary.model_validate_json(manifest("export", ledger, "-f", "summary"))
    assert summary.statistics.reused == {RUN: 1}
    assert "its record is consistent" in manifest("check", ledger)
    digest = make_digest(run.path)
    assert (digest.reused, [one.p50 for one in digest.tasks]) == (1, [None])


def test_what_was_reused_and_passes_no_more_is_sent_when_the_run_goes_on() -> None:
    """This run has never sent it, so it cannot run twice by that, ``idempotent`` or not."""
    origin = Reused(run=RUN, entry="a", attempt=1, by="20261125T150000-0badcafe", at=SENT_AT)
    row = AttemptRow("t", "a", 0, 0, "reused", SENT_AT, None, reused_from=origin)
    state = resume_rules.EntryState(last=row, status="failed")
    entry = Entry.model_validate(double("a"))
    decided = resume_rules.decide(entry, state, unsafe=False)
    assert decided == resume_rules.Decision("a", "send", "what was reused is failed")
