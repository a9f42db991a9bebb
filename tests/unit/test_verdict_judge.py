"""Judging: every kind of verdict, from receipts and from the lack of one."""

from __future__ import annotations

import re
import socket
from typing import Any, get_args

import pytest

from pytest_manifest.schema import Entry, Receipt, VerdictStatus
from pytest_manifest.schema.json_schemas import SchemaFlawError
from pytest_manifest.schema.statuses import outcome
from pytest_manifest.schema.wire import json_sha256
from pytest_manifest.verdict import expectations
from tests.reasons import noted
from tests.verdicts import evaluate


def entry(expect: dict[str, Any] | None = None, **fields: Any) -> Entry:
    """An entry with these expectations."""
    return Entry.model_validate(
        {"id": "e-1", "task": "tasks.crud.work", "timeout": 30, "expect": expect or {}, **fields}
    )


def receipt(state: str = "succeeded", **fields: Any) -> Receipt:
    """A receipt of that entry from an instrumented worker."""
    base = {
        "run": "20261124T150000-0a1b2c3d",
        "entry": "e-1",
        "attempt": 1,
        "task_id": "0a1b2c3d-x",
        "task": "tasks.crud.work",
        "worker": "celery@w1",
        "pid": 77,
        "executions": 1,
        "wait": 0.01,
        "runtime": 1.25,
    }
    return Receipt.model_validate({**base, "state": state, **fields})


def error(kind: str = "ValueError", message: str = "no such film") -> dict[str, str]:
    return {"type": kind, "message": message}


@pytest.mark.parametrize(
    ("expect", "result"),
    [
        ({}, {"anything": 1}),
        ({"result": {"a": 1}}, {"a": 1.0, "b": 2}),
        ({"result": None}, None),
        ({"schema": {"type": "object", "required": ["a"]}}, {"a": 1}),
        ({"max_runtime": 1.25, "max_wait": 0.01}, None),
        ({"executions": 2}, None),
    ],
)
def test_passed(expect: dict[str, Any], result: Any) -> None:
    """All expectations hold: the sentence says where it ran and how long."""
    verdict = evaluate(entry(expect), receipt(result=result), attempt=1)
    assert (verdict.verdict, verdict.mismatches) == ("passed", [])
    assert verdict.sentence == "The task succeeded on celery@w1 (pid 77) in 1.25 s, as expected."


@pytest.mark.parametrize(
    ("expect", "fields", "path", "expected", "actual"),
    [
        ({"result": {"a": 1}}, {"result": {"a": 2}}, "result.a", "1", "2"),
        ({"result": None}, {"result": 0}, "result", "None", "0"),
        ({"max_runtime": 1}, {}, "runtime", "at most 1 s (max_runtime)", "1.25 s"),
        ({"max_wait": 0.001}, {}, "wait", "at most 0.001 s (max_wait)", "0.01 s"),
        (
            {"schema": {"properties": {"a": {"items": {"type": "integer"}}}}},
            {"result": {"a": [1, True]}},
            "result.a[1]",
            "type 'integer' (schema)",
            "True",
        ),
        (
            {"schema": {"type": "object", "required": ["a"]}},
            {"result": {}},
            "result",
            '"a" is a required property (schema)',
            "{}",
        ),
    ],
)
def test_failed_on_an_expectation(
    expect: dict[str, Any], fields: dict[str, Any], path: str, expected: str, actual: str
) -> None:
    """The mismatch says where, what was expected, what is; the sentence repeats the first one."""
    verdict = evaluate(entry(expect), receipt(**fields), attempt=1)
    assert verdict.verdict == "failed"
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [
        (path, expected, actual)
    ]
    assert f"but {path} is {actual} where {expected} was expected;" in verdict.sentence
    assert "correct it" in verdict.sentence


def test_several_differences_are_counted() -> None:
    """The sentence names the first one, the mismatches have all, up to twenty."""
    few = evaluate(entry({"result": [1, 2, 3]}), receipt(result=[0, 0, 0]), attempt=1)
    assert "(and 2 more differences)" in few.sentence
    wanted = {str(i): i for i in range(100)}
    many = evaluate(entry({"result": wanted}), receipt(result={}), attempt=1)
    assert len(many.mismatches) == 20
    assert "(and at least 20 more differences)" in many.sentence
    just = evaluate(
        entry({"result": wanted}), receipt(result=dict(list(wanted.items())[20:])), attempt=1
    )
    assert "(and 19 more differences)" in just.sentence


def test_failed_with_an_error() -> None:
    """The error's type and message are in the sentence, in one line and bounded."""
    failed = receipt("failed", error=error(message="no\nsuch \x1b[31mfilm" + "!" * 500))
    verdict = evaluate(entry(), failed, attempt=1)
    assert verdict.verdict == "failed"
    assert verdict.sentence.startswith("The task raised ValueError: no such film!!!")
    assert verdict.sentence.endswith("on celery@w1 (pid 77); start from the worker's traceback.")
    assert len(verdict.sentence) < 260
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [
        ("state", "succeeded", "failed")
    ]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"type": "ValueError"}, error()),
        ({"type": "films.NoFilm"}, error("NoFilm")),
        ({"type": "NoFilm"}, error("films.NoFilm")),
        ({"match": "such (film|book)$"}, error()),
        ({"type": "ValueError", "match": "^no"}, error()),
        ({}, error()),
    ],
)
def test_an_expected_error_passes(expected: dict[str, Any], actual: dict[str, str]) -> None:
    """By class name, with or without module, and by a search in the message."""
    expect = {"state": "failed", "error": expected}
    verdict = evaluate(entry(expect), receipt("failed", error=actual), attempt=1)
    assert verdict.verdict == "passed"
    assert verdict.sentence.startswith(f"The task ended as 'failed' with {actual['type']}: no such")


@pytest.mark.parametrize(
    ("expected", "actual", "mismatch"),
    [
        ({"type": "KeyError"}, error(), ("error.type", "KeyError", "ValueError")),
        ({"type": "a.E"}, error("b.E"), ("error.type", "a.E", "b.E")),
        ({"match": "^film"}, error(), ("error.message", "a match of '^film'", "'no such film'")),
        ({"type": "E"}, None, ("error", "E", "no error")),
        ({"match": "x"}, None, ("error", "a message that matches 'x'", "no error")),
    ],
)
def test_another_error_than_expected(
    expected: dict[str, Any], actual: dict[str, str] | None, mismatch: tuple[str, str, str]
) -> None:
    """The task failed as it should, but not in the way it should."""
    expect = {"state": "failed", "error": expected}
    verdict = evaluate(entry(expect), receipt("failed", error=actual), attempt=1)
    assert verdict.verdict == "failed"
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [mismatch]


def test_an_expected_failure_that_succeeds_says_so() -> None:
    """Its sentence leaves no doubt that success is what is wrong."""
    expect = {"state": "failed", "error": {"type": "ValueError"}}
    verdict = evaluate(entry(expect), receipt(), attempt=1)
    assert verdict.verdict == "failed"
    assert verdict.sentence.startswith(
        "The task succeeded on celery@w1 (pid 77), but this entry expects it to end as 'failed' "
        "with ValueError; if success is right now, correct 'expect'"
    )


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        ("crashed", "crashed", "The process that ran the task on celery@w1 (pid 77) died before"),
        ("timed_out", "timed_out", "The task was stopped after 1.25 s on celery@w1 (pid 77)"),
        ("unknown_task", "unknown_task", "knows no task named 'tasks.crud.work'"),
        ("rejected", "rejected", "then its message was rejected"),
        ("expired", "expired", "The job expired before it was started"),
        ("revoked", "revoked", "The job was revoked"),
        ("ignored", "failed", "raised celery.exceptions.Ignore"),
    ],
)
def test_states_become_verdicts_unless_expected(state: str, kind: str, says: str) -> None:
    """Each has its sentence; where the state is expected, it passes."""
    verdict = evaluate(entry(), receipt(state), attempt=1)
    assert verdict.verdict == kind
    assert says in verdict.sentence
    assert "; " in verdict.sentence
    assert (verdict.entry, verdict.attempt) == ("e-1", 1)
    other = evaluate(entry({"state": "failed"}), receipt(state), attempt=1)
    assert other.verdict == kind
    assert "where 'failed' was expected" in other.sentence
    assert evaluate(entry({"state": state}), receipt(state), attempt=1).verdict == "passed"


@pytest.mark.parametrize("state", ["succeeded", "failed", "ignored"])
def test_a_runtime_past_the_timeout_counts_as_timed_out(state: str) -> None:
    """Also where the pool could not stop the task; and it may be expected."""
    late = receipt(state, runtime=45.2)
    verdict = evaluate(entry({"state": state}), late, attempt=1)
    assert verdict.verdict == "timed_out"
    assert (
        "ran for 45.2 s on celery@w1 (pid 77), longer than its timeout of 30 s" in verdict.sentence
    )
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [
        ("state", state, "timed_out"),
        ("runtime", "at most 30 s (timeout)", "45.2 s"),
    ]
    assert evaluate(entry({"state": "timed_out"}), late, attempt=1).verdict == "passed"
    assert evaluate(entry(), receipt(runtime=30.0), attempt=1).verdict == "passed"


def test_more_executions_than_allowed_are_a_duplicate() -> None:
    """Whatever else holds; and what does not hold is told as well."""
    twice = receipt(executions=2, redelivered=True, result=1)
    verdict = evaluate(entry({"result": 2}), twice, attempt=1)
    assert verdict.verdict == "duplicated"
    assert "started 2 times where 1 is allowed (the broker delivered it again)" in verdict.sentence
    assert [m.path for m in verdict.mismatches] == ["executions", "result"]
    assert (verdict.mismatches[0].expected, verdict.mismatches[0].actual) == ("at most 1", "2")


@pytest.mark.parametrize(("executions", "retries"), [(0, 0), (1, 0), (1, 2)])
def test_retries_and_unknown_counts_are_no_duplicates(executions: int, retries: int) -> None:
    """A retry that the task asked for is no second execution; 0 means that nobody counted."""
    seen = receipt(executions=executions, retries=retries)
    assert evaluate(entry(), seen, attempt=1).verdict == "passed"


@pytest.mark.parametrize("expect", [{"result": None}, {"schema": {"type": "null"}}])
def test_a_result_that_was_left_out_is_not_null(expect: dict[str, object]) -> None:
    """Too large for a receipt: that it is null, or is not, nobody can say."""
    seen = receipt(result=None, evidence={"result_omitted": 5_000_002})
    verdict = evaluate(entry(expect), seen, attempt=1)
    assert verdict.verdict == "unknown"
    assert "5000002 bytes is too large for a receipt" in verdict.sentence


def test_all_that_a_result_which_was_left_out_hides_is_named() -> None:
    """With the reason why it was."""
    expect = {"result": 1, "schema": {"type": "integer"}, "max_wait": 1}
    seen = receipt(result=None, evidence={"result_not_json": "a set"}, wait=None)
    assert evaluate(entry(expect), seen, attempt=1).sentence == (
        "The task ended as 'succeeded' on celery@w1 (pid 77), but result and schema and max_wait "
        "cannot be checked: its result is not JSON; return plain values, or drop the expectation."
    )


@pytest.mark.parametrize("evidence", [{"result_omitted": 5_000_002}, {"result_not_json": "a set"}])
def test_a_digest_shows_that_a_result_was_null(evidence: dict[str, Any]) -> None:
    """Then it was not left out, whatever else is said."""
    seen = receipt(result=None, result_sha256=json_sha256(None), evidence=evidence)
    assert evaluate(entry({"result": None}), seen, attempt=1).verdict == "passed"
    assert evaluate(entry({"result": 1}), seen, attempt=1).verdict == "failed"


def test_a_digest_shows_that_a_result_was_json() -> None:
    """No worker makes one of what is none; and a result that is there was not left out."""
    digest = json_sha256([1])
    seen = receipt(result=None, result_sha256=digest, evidence={"result_not_json": "a set"})
    assert evaluate(entry({"result": 1}), seen, attempt=1).verdict == "failed"
    there = receipt(result=[1], result_sha256=digest, evidence={"result_omitted": 9})
    assert evaluate(entry({"result": [1]}), there, attempt=1).verdict == "passed"


def test_a_receipt_that_leaves_out_what_workers_always_say_passes_nothing() -> None:
    """What is found counts for more."""
    verdict = evaluate(entry(), receipt(), attempt=1, missing=["sent_at", "code"])
    assert verdict.verdict == "unknown"
    assert verdict.sentence.startswith(
        "The task ended as 'succeeded' on celery@w1 (pid 77), but its receipt leaves out sent_at, "
        "code, by which it could be known whether that is true; "
    )
    other = evaluate(entry({"result": 1}), receipt(), attempt=1, missing=["sent_at"])
    assert other.verdict == "failed"


@pytest.mark.parametrize("evidence", [{"result_omitted": 5_000_002}, {"result_not_json": "a set"}])
@pytest.mark.parametrize(
    ("limit", "fields", "mismatch"),
    [
        ("max_runtime", {"runtime": 1.25}, ("runtime", "at most 1 s (max_runtime)", "1.25 s")),
        ("max_wait", {"wait": 2.5}, ("wait", "at most 1 s (max_wait)", "2.5 s")),
    ],
)
def test_limits_need_no_result(
    evidence: dict[str, Any], limit: str, fields: dict[str, Any], mismatch: tuple[str, str, str]
) -> None:
    """How long it took is known, also where the result stayed out of the receipt."""
    seen = receipt(result=None, evidence=evidence, **fields)
    verdict = evaluate(entry({limit: 1}), seen, attempt=1)
    assert verdict.verdict == "failed"
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [mismatch]
    # What is found counts for more than what is not known.
    assert evaluate(entry({limit: 1, "result": 1}), seen, attempt=1).verdict == "failed"


def test_a_lack_of_times_is_not_blamed_on_the_result() -> None:
    """The reason that is told is that of the expectation which cannot be checked."""
    seen = receipt(result=None, evidence={"result_omitted": 5_000_002}, runtime=None)
    verdict = evaluate(entry({"max_runtime": 1}), seen, attempt=1)
    assert verdict.verdict == "unknown"
    assert "max_runtime cannot be checked: the receipt has no such time" in verdict.sentence


def test_a_failure_stays_a_failure_when_it_ran_twice() -> None:
    """The state comes first, and the count is among the mismatches."""
    verdict = evaluate(entry(), receipt("failed", executions=2, error=error()), attempt=1)
    assert verdict.verdict == "failed"
    assert [m.path for m in verdict.mismatches] == ["state", "executions"]


def test_what_cannot_be_checked_is_unknown_not_failed() -> None:
    """A worker that reports no times: an error of the set-up, unless something is really wrong."""
    plain = receipt(source="backend", runtime=None, wait=None, result=1)
    limits = {"max_runtime": 1, "max_wait": 1}
    verdict = evaluate(entry(limits), plain, attempt=1)
    assert verdict.verdict == "unknown"
    assert "max_runtime and max_wait cannot be checked" in verdict.sentence
    assert "celery worker -I pytest_manifest.worker" in verdict.sentence
    assert evaluate(entry({**limits, "result": 2}), plain, attempt=1).verdict == "failed"


def test_a_schema_never_leads_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference to somewhere else is a flaw of the schema, and is told when it is read."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match=r"refers to 'http://127.0.0.1:9/x.json', which is not"):
        entry({"schema": {"$ref": "http://127.0.0.1:9/x.json"}})


def test_a_schema_may_refer_to_itself_and_to_the_standard() -> None:
    """References that lead somewhere are followed; a circle without end is told as a flaw."""
    tree = {"$defs": {"t": {"items": {"$ref": "#/$defs/t"}, "type": "array"}}, "$ref": "#/$defs/t"}
    assert (
        evaluate(entry({"schema": tree}), receipt(result=[[], [[]]]), attempt=1).verdict == "passed"
    )
    bad = evaluate(entry({"schema": tree}), receipt(result=[[], [[1]]]), attempt=1)
    assert [m.path for m in bad.mismatches] == ["result[1][0][0]"]
    standard = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert evaluate(entry({"schema": standard}), receipt(result={}), attempt=1).verdict == "passed"


@pytest.mark.parametrize(
    ("rule", "result", "expected"),
    [
        ({"const": 1}, 2, "const 1 (schema)"),
        ({"enum": [1, 3]}, 2, "enum [1, 3] (schema)"),
        ({"pattern": "^a"}, "b", "pattern '^a' (schema)"),
        ({"minimum": 3}, 2, "minimum 3 (schema)"),
        ({"maximum": 1}, 2, "maximum 1 (schema)"),
    ],
)
def test_a_simple_rule_of_a_schema_is_told_as_it_stands(
    rule: dict[str, Any], result: Any, expected: str
) -> None:
    """Others are told in a sentence."""
    verdict = evaluate(entry({"schema": rule}), receipt(result=result), attempt=1)
    assert [(m.path, m.expected, m.actual) for m in verdict.mismatches] == [
        ("result", expected, repr(result))
    ]


def test_a_flaw_of_a_schema_is_told_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long as a value, of its beginning and its end."""

    def flawed(*_: object) -> None:
        raise SchemaFlawError("is " + "x" * 500)

    monkeypatch.setattr(expectations, "violations", flawed)
    verdict = evaluate(entry({"schema": {}}), receipt(result=1), attempt=1)
    (mismatch,) = verdict.mismatches
    assert (mismatch.path, mismatch.expected) == ("expect.schema", "a schema to check by")
    assert mismatch.actual.startswith("is xxx")
    assert len(mismatch.actual) == 160


def test_what_only_shows_when_a_schema_is_applied_is_its_entrys_verdict() -> None:
    """Nothing is raised, and the sentence says where to look."""
    schema = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    result: dict[str, Any] = {}
    for _ in range(60):
        result = {"a": result}
    verdict = evaluate(entry({"schema": schema}), receipt(result=result), attempt=1)
    assert verdict.verdict == "failed"
    assert "checks of a value of this size" in verdict.sentence
    assert "correct the schema in the plan" in verdict.sentence


def test_a_pattern_that_takes_for_ever_elsewhere_is_searched_at_once() -> None:
    """Catastrophic backtracking is an affair of other engines."""
    expect = {"state": "failed", "error": {"match": "^(a+)+$"}}
    seen = receipt("failed", error=error(message="a" * 16_000 + "b"))
    assert evaluate(entry(expect), seen, attempt=1).verdict == "failed"


def test_violations_of_a_schema_are_counted_as_differences_are() -> None:
    """As many are told, and the sentence says where there are more."""
    judge = entry({"schema": {"items": {"type": "string"}}})
    few = evaluate(judge, receipt(result=list(range(20))), attempt=1)
    assert [m.path for m in few.mismatches] == [f"result[{i}]" for i in range(20)]
    assert "(and 19 more differences)" in few.sentence
    many = evaluate(judge, receipt(result=list(range(21))), attempt=1)
    assert many.mismatches == few.mismatches
    assert "(and at least 20 more differences)" in many.sentence


@pytest.mark.parametrize("kind", [kind for kind in get_args(VerdictStatus) if kind != "passed"])
def test_a_problem_stands_where_there_is_no_receipt(kind: VerdictStatus) -> None:
    """One sentence each, with the note in it, ending in what to do."""
    note = "the nearest name is 'tasks.crud.walk'."
    verdict = evaluate(entry(), None, attempt=2, problem=kind, why=noted(note))
    assert (verdict.verdict, verdict.entry, verdict.attempt) == (kind, "e-1", 2)
    assert "(the nearest name is 'tasks.crud.walk'); " in verdict.sentence
    assert re.fullmatch(r"[A-Z][^\n]*\.", verdict.sentence)
    assert ") (" not in verdict.sentence


def test_neither_receipt_nor_problem_is_unknown() -> None:
    """Nothing is made up."""
    verdict = evaluate(entry(), None, attempt=None)
    assert verdict.verdict == "unknown"
    assert verdict.sentence.startswith("What became of the job is not known; look at ")


def test_a_receipt_speaks_for_itself() -> None:
    """A late receipt wins over a suspicion, but not over a forged signature or a quarantine."""
    kinds: list[VerdictStatus] = ["lost", "pending", "timed_out", "unknown"]
    for kind in kinds:
        assert evaluate(entry(), receipt(), attempt=1, problem=kind).verdict == "passed"
    stronger: list[VerdictStatus] = ["forged", "quarantined", "skipped"]
    for kind in stronger:
        assert evaluate(entry(), receipt(), attempt=1, problem=kind).verdict == kind


def test_a_problem_may_be_what_is_expected() -> None:
    """An entry that expects its process to die, and had one that did, passes."""
    wanted = entry({"state": "crashed"})
    met = evaluate(wanted, None, attempt=2, problem="crashed", why=noted("status -9"), seen=True)
    assert (met.verdict, met.entry, met.attempt) == ("passed", "e-1", 2)
    assert met.sentence == "The job ended as 'crashed' (status -9), as expected."
    assert evaluate(wanted, None, attempt=None, problem="lost", seen=True).verdict == "lost"
    with_error = entry({"state": "crashed", "error": {"type": "WorkerLostError"}})
    assert evaluate(with_error, None, attempt=1, problem="crashed", seen=True).verdict == "crashed"


CODE = "py3.11:" + "a" * 64
OTHER = "py3.11:" + "b" * 64


@pytest.mark.parametrize(
    ("state", "fields", "kind", "paths"),
    [
        ("succeeded", {}, "failed", ["code"]),
        ("succeeded", {"result": 2}, "failed", ["code", "result"]),
        ("failed", {"error": error()}, "failed", ["code", "state"]),
        ("crashed", {}, "crashed", ["code", "state"]),
        ("succeeded", {"executions": 2}, "duplicated", ["executions", "code"]),
    ],
)
def test_a_worker_that_ran_other_code_fails_the_entry(
    state: str, fields: dict[str, Any], kind: str, paths: list[str]
) -> None:
    """Whatever came of it, also what was expected; a worse end keeps its own kind."""
    ran = receipt(state, **{"result": 1, "host": "w1", "code": OTHER, **fields})
    verdict = evaluate(entry({"result": 1}), ran, attempt=1, code=CODE)
    assert verdict.verdict == kind
    assert [m.path for m in verdict.mismatches] == paths
    (code,) = (m for m in verdict.mismatches if m.path == "code")
    assert (code.expected, code.actual) == (repr(CODE), repr(OTHER))
    if kind == "failed":
        assert verdict.sentence == (
            "The worker on w1 ran other code of 'tasks.crud.work' than is here, so its end "
            "says nothing of this code; deploy, or restart the worker, and run it again."
        )


@pytest.mark.parametrize(
    ("theirs", "ours", "fields"),
    [
        (CODE, CODE, {}),
        (OTHER.replace("3.11", "3.12"), CODE, {}),
        (None, CODE, {}),
        (OTHER, None, {}),
        (OTHER, CODE, {"replaced": True, "task": "tasks.other"}),
    ],
)
def test_code_that_is_the_same_or_cannot_be_compared_passes(
    theirs: str | None, ours: str | None, fields: dict[str, Any]
) -> None:
    """Another Python version, an older worker, no source here, a job that was handed on."""
    ran = receipt(code=theirs, **fields)
    assert evaluate(entry(), ran, attempt=1, code=ours).verdict == "passed"


@pytest.mark.parametrize(
    ("kind", "note", "before", "after"),
    [
        ("lost", "", "and the result store has no result of it", "look at the"),
        ("skipped", "the canary failed", "held back and never sent", "put right what held it"),
        ("revoked", "the run was interrupted", "revoked before it ended", "send it"),
        ("quarantined", "3 starts", "as it killed its worker again and again", "run the task"),
        ("crashed", "exit status -9", "died before the task ended", "look at the worker's log"),
        ("unknown", "the store was emptied", "What became of the job is not known", "look at"),
    ],
)
def test_a_note_and_its_sentence_say_one_thing(
    kind: VerdictStatus, note: str, before: str, after: str
) -> None:
    """What the harness found stands in brackets, and the words around it do not contradict it."""
    verdict = evaluate(entry(), None, attempt=1, problem=kind, why=noted(note))
    shown = f" ({note})" if note else ""
    assert f"{before}{shown}; {after}" in verdict.sentence


def test_a_receipt_of_another_entry_may_be_forged() -> None:
    """Where that is the finding, it is no mistake of the caller; nothing in it is compared."""
    swapped = receipt("failed", entry="e-2", executions=3)
    note = "it is of another entry: 'e-2', not 'e-1'"
    verdict = evaluate(entry(), swapped, attempt=1, problem="forged", why=noted(note))
    assert (verdict.verdict, verdict.entry, verdict.mismatches) == ("forged", "e-1", [])
    assert verdict.sentence.startswith(f"The receipt cannot be trusted ({note}); find out ")


def test_the_attempt_is_the_receipts_where_none_is_given() -> None:
    """And the caller's where one is."""
    assert evaluate(entry(), receipt(attempt=3), attempt=None).attempt == 3
    assert evaluate(entry(), receipt(attempt=3), attempt=4).attempt == 4


def test_outcomes_tell_errors_from_failures() -> None:
    """ERROR where it could not be told what became of the job, FAIL where it could."""
    by_outcome: dict[str, list[str]] = {}
    for kind in get_args(VerdictStatus):
        by_outcome.setdefault(outcome(kind), []).append(kind)
    assert by_outcome["passed"] == ["passed"]
    assert by_outcome["error"] == ["pending", "unknown", "lost"]
    assert by_outcome["skipped"] == ["withdrawn", "cancelled", "skipped"]
    assert len(by_outcome["failed"]) == len(get_args(VerdictStatus)) - 7
