"""Passes that an entry has not earned: none of them is reused, wherever it comes from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest import signing as keys
from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import Ledger
from pytest_manifest.run.casebook import require_signatures
from pytest_manifest.run.exports import exported_lines, ledger_of_receipts
from pytest_manifest.run.reuse import take_over_passes
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.worker import signing
from tests.ledger_edits import make_editable
from tests.reports import EMPTIED, add_receipts, add_starts, all_receipts, note, started
from tests.unit.record_support import RUN, SENT_AT, RecordWriter
from tests.unit.reuse_rig import CODE, CODES, Reused, Rig, Row, double
from tests.verdicts import evaluate

KEY, PUBLIC = keys.generate()
STRANGERS_KEY, _ = keys.generate()
TREE = {"id": "t", "task": "jobs.start"}
LATER = SENT_AT + timedelta(hours=1)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@contextmanager
def signed(record: RecordWriter, key: bytes = KEY) -> Iterator[None]:
    """Have this key sign the receipts that are written."""
    unsigned = record.receipt

    def receipt(entry: Entry, task_id: str, number: int, **ended: Any) -> Receipt:
        told = unsigned(entry, task_id, number, **ended).model_dump(mode="json")
        document = signing.sign_receipt(told, f"x-{task_id}")
        return Receipt.model_validate_json(json.dumps(document))

    signing.use(keys.read_signer(key.decode(), "key"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record, "receipt", receipt)
            yield
    finally:
        signing.forget()


# What a receipt says


@pytest.mark.parametrize(
    "lie",
    [
        {"run": "20261124T150000-0badcaff"},
        {"entry": "b"},
        {"attempt": 2},
        {"task_id": "another"},
        {"sent_at": LATER},
        {"task": "jobs.t"},
        {"args_sha256": arguments_sha256([2], {})},
        {"args_sha256": None},
        {"result": "***", "result_sha256": json_sha256({"n": 2})},
        {"result": "***", "result_sha256": None},
        {"started_at": None},
        {"finished_at": None},
        {"runtime": None},
        {"executions": 0, "sent_at": None},
        {"started_at": SENT_AT - timedelta(hours=1)},
        {"source": "harness"},
    ],
    ids=str,
)
def test_a_pass_by_a_receipt_that_was_changed_does_not_count(
    rig: Rig, lie: dict[str, object]
) -> None:
    """Though its run says that the entry has passed, and wrote it down so."""
    record = rig.begun([double("a")])
    record.attempt("a", code=CODE)
    entry, task_id = record.manifest["a"], record.task_id("a")
    true = record.receipt(entry, task_id, 1, code=CODE)
    told = true.model_copy(update=lie)
    record.ledger._db.connection.execute(
        "UPDATE facts SET receipt = ? WHERE receipt IS NOT NULL", (told.model_dump_json(),)
    )
    record.ledger.verdicts.reopen(["a"])
    record.ledger.verdicts.record([(evaluate(entry, true, attempt=1), told)])
    rig.finish(record)
    run = rig.reuse([double("a")])
    assert run.sent == ["a"]
    with Ledger.open(run.path) as ledger:
        assert all_receipts(ledger) == []


def test_the_end_of_an_execution_that_nobody_has_begun_does_not_count(rig: Rig) -> None:
    record = rig.begun([double("a")])
    record.attempt("a", code=CODE)
    record.ledger._db.connection.execute(
        "UPDATE facts SET execution = 'another' WHERE receipt IS NULL"
    )
    rig.finish(record)
    assert rig.reuse([double("a")]).sent == ["a"]


# Signatures, and what a job has started


def tree(rig: Rig, *, root: bytes, child: bytes | None, required: bool = True) -> None:
    """An entry whose job has started one task; these keys have signed how the two have ended."""
    record = rig.begun([TREE])
    if required:
        require_signatures(record.ledger, PUBLIC)
    with signed(record, root):
        record.attempt("t", code=CODE, children=1)
    record.child("t", "c1", told=False)
    record.begin("c1")
    job = Entry(id="t", task="jobs.t")
    if child is None:
        told = record.receipt(job, "c1", 1, code=CODE)
    else:
        with signed(record, child):
            told = record.receipt(job, "c1", 1, code=CODE)
    add_receipts(record.ledger, [("c1", "x-c1", told)])
    rig.finish(record)


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        ({"root": KEY, "child": KEY}, []),
        ({"root": KEY, "child": None}, ["t"]),
        ({"root": KEY, "child": STRANGERS_KEY}, ["t"]),
        ({"root": STRANGERS_KEY, "child": KEY}, ["t"]),
        ({"root": KEY, "child": KEY, "required": False}, ["t"]),
    ],
    ids=["all signed", "end unsigned", "of a stranger", "root of one", "records unsigned"],
)
def test_where_signatures_are_required_all_that_a_job_started_is_signed(
    rig: Rig, made: dict[str, Any], sent: list[str]
) -> None:
    """A run that believed whoever told of a descendant may have been told of another one."""
    tree(rig, **made)
    run = rig.reuse([TREE], receipt_keys=PUBLIC)
    assert (run.sent, run.broken()) == (sent, [])
    assert rig.reuse([TREE]).sent == []


@pytest.mark.parametrize(
    "end",
    [{"state": "failed", "result": None, "result_sha256": None}, {"executions": 2}],
    ids=["failed", "ran twice"],
)
def test_a_descendant_that_is_said_to_have_passed_has_passed(rig: Rig, end: dict[str, Any]) -> None:
    record = rig.begun([TREE])
    record.attempt("t", code=CODE, children=1)
    record.child("t", "c1", told=False)
    record.begin("c1")
    if "executions" in end:
        record.begin("c1", "again")
    told = record.receipt(Entry(id="t", task="jobs.t"), "c1", 1, code=CODE, **end)
    add_receipts(record.ledger, [("c1", "x-c1", told)])
    rig.finish(record)
    run = rig.reuse([TREE])
    assert (run.sent, run.broken()) == (["t"], [])
    assert "1 earlier pass is none as judged now" in run.notices


@pytest.mark.parametrize(("children", "grandchildren"), [(2, 0), (1, 1)])
def test_where_not_all_that_was_started_is_known_it_runs_again(
    rig: Rig, children: int, grandchildren: int
) -> None:
    """As an entry that ignores its descendants has passed so, and nobody knows their code."""
    entry = {**TREE, "expect": {"descendants": "ignored"}}
    record = rig.begun([entry])
    record.attempt("t", code=CODE, children=children)
    record.child("t", "c1", told=False)
    record.begin("c1")
    job = Entry(id="t", task="jobs.t")
    told = record.receipt(job, "c1", 1, code=CODE, children=grandchildren)
    add_receipts(record.ledger, [("c1", "x-c1", told)])
    rig.finish(record)
    run = rig.reuse([entry])
    assert (run.sent, run.broken()) == (["t"], [])
    assert "1 earlier pass is of a job of which not all that it started is known" in run.notices
    assert "would not pass" not in run.notices


def test_exported_receipts_cannot_say_of_themselves_that_they_were_reused(
    rig: Rig, tmp_path: Path
) -> None:
    """That is pytest's word, which no worker signs: else any old receipt could be made to count."""
    record = rig.begun([double("a")])
    with signed(record):
        record.attempt("a", code=CODE)
    rig.finish(record)
    run = rig.reuse([double("a")], receipt_keys=PUBLIC)
    assert run.sent == []
    file = tmp_path / "receipts.jsonl"
    with Ledger.open(run.path) as ledger:
        file.write_bytes(b"".join(line + b"\n" for line in exported_lines(ledger)))
    told = []
    for name, receipt_keys in (("all", None), ("signed", PUBLIC)):
        (tmp_path / name).mkdir()
        path, _ = ledger_of_receipts(run.manifest, file, tmp_path / name, receipt_keys)
        with Ledger.open(path) as ledger:
            told += [one.verdict for one in ledger.queries.all_verdicts()]
    assert [one.verdict for one in told] == ["passed", "unknown"]
    assert f"it is not signed that run {run.state.info.run} has reused it" in told[1].sentence


# What else is told of it


def test_of_an_older_copy_of_a_ledger_what_it_knows_is_reused(rig: Rig) -> None:
    """What a newer copy may have sent is sent: also where it has passed, as nobody knows when."""
    plan = [double(name, n) for n, name in enumerate("abc")]
    record = rig.begun(plan)
    for name in "ab":
        record.attempt(name, code=CODE)
    number = list(record.manifest.ids).index("c")
    record.ledger.attempts.plan([(record.task_id("c"), "c", 1, number)])
    doubted = [record.task_id(name) for name in "bc"]
    record.ledger.attempts.mark(doubted, "uncertain", note="a newer copy may have sent it")
    record.ledger._db.connection.execute("UPDATE jobs SET sent_at = NULL WHERE state = 'uncertain'")
    note(record.ledger, EMPTIED)
    rig.finish(record)
    run = rig.reuse(plan)
    assert (run.sent, run.broken()) == (["b", "c"], [])


def corrected(rig: Rig, verdict: str = "duplicated") -> None:
    """Have a run be reused by another one, and judge its entry ``a`` otherwise after that."""
    record = rig.passed([double("a")])
    between = rig.reuse([double("a")])
    between.state.lock.release()
    own = rig.folder / f"{RUN}.sqlite"
    shutil.copy(record.ledger.path, own)
    with Ledger.open(own, write=True) as ledger, ledger.transaction():
        ledger._db.connection.execute("UPDATE verdicts SET status = ?", (verdict,))
    rig.earlier = [between.path]


def test_a_pass_that_its_own_run_has_corrected_since_is_reused_of_no_other(rig: Rig) -> None:
    """The correction is in the ledger of the run that had sent it, and in no other."""
    corrected(rig)
    run = rig.reuse([double("a")])
    assert run.sent == ["a"]
    assert "1 earlier pass is none any more in the run that had sent it" in run.notices


def test_a_run_that_has_it_as_passed_is_no_hindrance(rig: Rig) -> None:
    corrected(rig, "passed")
    assert rig.reuse([double("a")]).sent == []


def test_where_that_run_cannot_be_read_its_pass_is_reused_of_no_other(rig: Rig) -> None:
    corrected(rig)
    (rig.folder / f"{RUN}.sqlite").write_bytes(b"no ledger")
    assert rig.reuse([double("a")]).sent == ["a"]


@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_a_kept_manifest_that_was_changed_since_tells_nothing(rig: Rig, *, named: bool) -> None:
    """Its entries are no more those that have passed: here one waits that did not."""
    rig.passed([double("a"), double("b", 2)])
    (kept,) = rig.earlier[0].parent.glob("run.*.jsonl")
    rows = [double("a"), double("b", 2, after=["a"])]
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    refused(rig, rows, "is another one now", named=named)


@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE receipts SET receipt = json_remove(receipt, '$.run')",
        "UPDATE starts SET started_at = 'never'",
        "UPDATE descendants SET verdict = '{}'",
        "UPDATE attempts SET reused_from = '[]'",
    ],
    ids=lambda text: text.split()[1],
)
def test_a_row_that_cannot_be_read_is_a_fault_of_the_earlier_run_alone(
    rig: Rig, damage: str, *, named: bool
) -> None:
    """Of what a job has started, too: it is not copied before it was read."""
    tree(rig, root=KEY, child=KEY)
    with Ledger.open(rig.earlier[0], write=True) as ledger, ledger.transaction():
        make_editable(ledger._db.connection)
        ledger._db.connection.execute(damage)
    refused(rig, [TREE], "damaged", named=named)


@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_a_run_of_which_nobody_can_tell_whether_it_goes_on_is_not_reused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """Its lock belongs to another user."""

    def is_held(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    rig.passed([double("a")])
    monkeypatch.setattr("pytest_manifest.run.reuse.is_held", is_held)
    refused(rig, [double("a")], "whether its run goes on is not known", named=named)


def refused(rig: Rig, plan: Sequence[Row], why: str, *, named: bool) -> None:
    """Nothing is reused of the earlier run; where it was named, nothing is sent either."""
    if not named:
        run = rig.reuse(plan)
        assert run.sent == [str(entry["id"]) for entry in plan]
        assert "nothing is reused of run: it goes on, or cannot be read" in run.notices
        return
    state = rig.state(plan, named=True)
    with (
        Ledger.open(state.files.ledger, write=True) as ledger,
        pytest.raises(DispatchError, match=why),
    ):
        take_over_passes(state, ledger, CODES)


# What it waited for


def test_what_did_not_wait_for_what_is_waited_for_now_runs_again(rig: Rig) -> None:
    """It was sent after it, and may have begun before that had ended."""
    rig.passed([double("a"), double("b", 2)])
    run = rig.reuse([double("a"), double("b", 2, after=["a"])])
    assert (run.sent, run.broken()) == (["b"], [])
    assert "1 entry is not reused, not having run after what is waited for now" in run.notices


def test_what_waited_for_another_job_runs_again(rig: Rig) -> None:
    """Of the same work as that which is waited for now."""
    rig.passed([double("a"), double("old"), double("b", 2, after=["old"])])
    assert rig.reuse([double("a"), double("old"), double("b", 2, after=["a"])]).sent == ["b"]


def test_what_is_waited_for_may_have_another_id_since(rig: Rig) -> None:
    rig.passed([double("old"), double("b", 2, after=["old"])])
    assert rig.reuse([double("new"), double("b", 2, after=["new"])]).sent == []


def test_what_waited_for_a_job_that_was_sent_anew_since_runs_again(rig: Rig) -> None:
    """It had passed, and so has the new one."""
    record = rig.begun([double("a"), double("b", 2, after=["a"])])
    record.attempt("a", code=CODE)
    record.attempt("b", code=CODE)
    record.ledger.verdicts.reopen(["a"])
    record.attempt("a", 2, code=CODE, sent_at=LATER, started_at=LATER, finished_at=LATER)
    record.ledger.attempts.mark([record.task_id("a", 2)], "sent", sent_at=LATER)
    rig.finish(record)
    assert rig.reuse([double("a"), double("b", 2, after=["a"])]).sent == ["b"]


def test_what_waited_for_a_reused_entry_is_reused_with_it(rig: Rig) -> None:
    """The job of ``a`` ran in one run, and that of ``b`` in the next one, which waited for it."""
    rig.passed([double("a")])
    plan = [double("a"), double("b", 2, after=["a"])]
    between = rig.reuse(plan)
    assert between.sent == ["b"]
    run_job(between, "b")
    rig.earlier = [between.path]
    run = rig.reuse(plan)
    assert (run.sent, run.broken()) == ([], [])
    assert f"from run {RUN} (1), {between.state.info.run} (1)" in run.notices


def run_job(run: Reused, name: str) -> None:
    """Send what a run has left to be sent, and have it pass."""
    (attempt,) = run.state.to_send
    entry, task_id = attempt.entry, attempt.task_id
    with Ledger.open(run.path, write=True) as ledger:
        ledger.attempts.mark([task_id], "sent", sent_at=LATER)
        start = started(task_id, "x", LATER, 0, "w@h", "h", 1, redelivered=False)
        add_starts(ledger, [start])
        told = RecordWriter.receipt_of(
            entry, task_id, 1, run=run.state.info.run, code=CODE, sent_at=LATER,
            started_at=LATER, finished_at=LATER,
        )  # fmt: skip
        add_receipts(ledger, [(task_id, "x", told)])
        ledger.verdicts.record([(evaluate(entry, told, attempt=1), told)])
    assert entry.id == name
    run.state.lock.release()
