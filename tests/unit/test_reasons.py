"""A reason is a code with fields: a ledger keeps these, and the sentence follows from them."""

from __future__ import annotations

import pytest

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import Problem, read_reason, reason_of, worded
from tests.verdicts import evaluate

GONE = problems.ProcessGone(worker="w@h", pid=77)


def test_a_reason_is_kept_as_code_and_fields() -> None:
    """What is as by default is left out; a reason may have another one as a field."""
    left = problems.Left(because="lost", why=GONE)
    told = {"code": "process_gone", "worker": "w@h", "pid": 77}
    assert left.document() == {"code": "left", "because": "lost", "why": told}
    assert read_reason(left.document()) == left
    canary = problems.CanaryFailed(names=("a", "b"), more=2)
    assert read_reason(canary.document()) == canary
    assert {left, left, canary} == {left, canary}


@pytest.mark.parametrize("document", [{}, {"code": "elsewhere"}, {"code": "never_sent", "a": 1}])
def test_what_is_no_reason_is_refused(document: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no reason of a verdict"):
        read_reason(document)


def test_fields_are_checked_and_never_changed() -> None:
    with pytest.raises(TypeError, match=r"process_gone has the fields task, .*, worker, pid: "):
        problems.ProcessGone(worker="w@h")  # type: ignore[call-arg]  # as from a ledger
    with pytest.raises(AttributeError, match="the field 'pid' of a reason is never changed"):
        GONE.pid = 3  # type: ignore[misc]  # frozen
    assert GONE.having(pid=3) == problems.ProcessGone(worker="w@h", pid=3) != GONE


def test_secrets_are_hidden_in_all_texts() -> None:
    """Also in those of a reason within, and in lists."""
    waits = problems.WaitsFor(names=("a", "b"), end="failed")
    assert waits.mapped(str.upper) == problems.WaitsFor(names=("A", "B"), end="FAILED")
    left = problems.Left(because="lost", why=GONE).mapped(str.upper)
    assert left.why == problems.ProcessGone(worker="W@H", pid=77)


def test_a_part_is_left_out_where_nothing_is_known_of_it() -> None:
    values = {"n": 2, "names": ("a", "b"), "where": "", "s": 90.0, "text": "\x1b[2J\x07"}
    assert worded("{n:#way}[ on {where}]: {names}", values) == "2 ways: 'a', 'b'"
    assert worded("{names: or } in {s:time}[, {n} of them] {text}", values) == (
        r"'a' or 'b' in 1 min 30 s, 2 of them \x07"
    )


def test_what_the_entry_expects_is_said() -> None:
    entry = Entry.model_validate({"id": "a", "task": "jobs.a", "expect": {"state": "crashed"}})
    assert GONE.of(entry, "crashed").expected
    assert not GONE.of(entry, "unknown").expected
    assert "its timeout is 300 s" in Problem().of(entry, "timed_out").sentence("timed_out")
    assert "named 'jobs.a'" in problems.UnknownTask().of(entry, "unknown_task").sentence(
        "unknown_task"
    )


@pytest.mark.parametrize("secret", ["correct-horse-battery", "retry"])
def test_a_verdict_has_no_secret_of_its_entry(secret: str) -> None:
    """Neither in its sentence nor in the fields of its reason, whoever looks at them."""
    entry = Entry(id="a", task="jobs.a", kwargs={"password": secret})
    error = problems.NotJudged(error=f"ValueError: {secret}")
    for why in (error, problems.LostBetween(worker=secret, how="retry")):
        verdict = evaluate(entry, None, attempt=1, problem="lost", why=why)
        assert secret not in f"{verdict.reason}"
        assert "***" in f"{verdict.reason}"
        assert reason_of(verdict).sentence("lost") == verdict.sentence
    receipt = Receipt.model_validate(
        {
            "run": "20261124T150000-0a1b2c3d",
            "entry": "a",
            "attempt": 1,
            "task_id": "t",
            "task": "jobs.a",
            "state": "failed",
            "worker": "w@h",
            "error": {"type": "ValueError", "message": f"it was {secret}"},
        }
    )
    verdict = evaluate(entry, receipt, attempt=1)
    assert secret not in verdict.model_dump_json()
    assert reason_of(verdict).sentence("failed") == verdict.sentence
