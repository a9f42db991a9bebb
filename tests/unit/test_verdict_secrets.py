"""No verdict tells a secret of an entry or of its receipt, wherever in them that stands again."""

from __future__ import annotations

import re

import pytest
from pydantic import JsonValue

from pytest_manifest.redaction import names as in_force
from pytest_manifest.schema import Entry, Mismatch, Receipt, Verdict
from pytest_manifest.verdict.expectations import differences
from tests.verdicts import evaluate

SECRET = "hunter2 and more"
HIDDEN = "***"


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_force.settings, "now", in_force._Settings(salt=b"salt of this test"))


def verdict(
    expect: dict[str, JsonValue], told: dict[str, JsonValue], **fields: JsonValue
) -> Verdict:
    """The verdict on a receipt with what it tells; ``fields``: of its entry."""
    entry = Entry.model_validate({"id": "e", "task": "t", "expect": expect, **fields})
    base = {"run": "r", "entry": "e", "attempt": 3, "task_id": "x", "task": "t", "executions": 1}
    found = evaluate(entry, Receipt.model_validate({**base, **told}), attempt=3)
    assert SECRET not in found.model_dump_json()
    assert found.attempt == 3
    return found


def bare(one: Mismatch) -> Mismatch:
    """A mismatch without the digests of what it hides."""
    return Mismatch.model_validate_json(re.sub(r"\*{3}[0-9a-f]{8}", HIDDEN, one.model_dump_json()))


def failure(message: str, **told: JsonValue) -> dict[str, JsonValue]:
    return {"state": "failed", "error": {"type": "ValueError", "message": message}, **told}


def success(result: JsonValue) -> dict[str, JsonValue]:
    return {"state": "succeeded", "result": result}


def test_an_error_that_is_not_expected_tells_none_of_the_receipts() -> None:
    """Which the task put into its evidence by name, and into the error's message without one."""
    told = failure(f"no user {SECRET}", evidence={"password": SECRET})
    assert f"ValueError: no user {HIDDEN}" in verdict({}, told).sentence


@pytest.mark.parametrize("expect", [{}, {"state": "failed"}])
def test_an_end_that_its_store_refused_is_unknown_and_tells_none(
    expect: dict[str, JsonValue],
) -> None:
    """Also where a failure is expected: how the task ended was not stored."""
    told = failure("", source="backend")
    told["error"] = {"type": "BackendStoreError", "message": f"failed to store result {SECRET}"}
    of_arguments = verdict(expect, told, kwargs={"password": SECRET})
    of_evidence = verdict(expect, {**told, "evidence": {"password": SECRET}})
    for found in (of_arguments, of_evidence):
        assert (found.verdict, found.entry) == ("unknown", "e")
        assert f"(BackendStoreError: failed to store result {HIDDEN})" in found.sentence


def test_an_expected_error_tells_none_where_its_message_differs() -> None:
    """Neither the arguments' nor the receipt's."""
    expect: dict[str, JsonValue] = {"state": "failed", "error": {"match": "no film"}}
    of_arguments = verdict(expect, failure(f"no user {SECRET}"), kwargs={"password": SECRET})
    of_evidence = verdict(expect, failure(f"no user {SECRET}", evidence={"password": SECRET}))
    for found in (of_arguments, of_evidence):
        assert found.mismatches == [
            Mismatch(
                path="error.message",
                expected="a match of 'no film'",
                actual=f"'no user {HIDDEN}'",
            )
        ]


def test_an_expected_error_passes_for_nothing_that_lacks_what_workers_say() -> None:
    """Also where its message is as expected, and the attempt is another than the first."""
    entry = Entry.model_validate(
        {"id": "e", "task": "t", "expect": {"state": "failed", "error": {"match": "no"}}}
    )
    base = {"run": "r", "entry": "e", "attempt": 2, "task_id": "x", "task": "t"}
    receipt = Receipt.model_validate({**base, **failure("no user")})
    assert evaluate(entry, receipt, attempt=2).verdict == "passed"
    found = evaluate(entry, receipt, attempt=2, missing=["wait"])
    assert (found.verdict, found.attempt) == ("unknown", 2)


def test_an_error_of_any_kind_is_still_an_error() -> None:
    """A failure without one has not met the expectation."""
    expect: dict[str, JsonValue] = {"state": "failed", "error": {}}
    (found,) = verdict(expect, {"state": "failed"}).mismatches
    assert found == Mismatch(path="error", expected="a message that matches ''", actual="no error")


@pytest.mark.parametrize(
    ("expected", "result", "path", "wanted", "found"),
    [
        ("ok", f"a {SECRET} b", "result.note", "'ok'", f"'a {HIDDEN} b'"),
        ({"a": "ok"}, {"a": f"a {SECRET}"}, "result.note.a", "'ok'", f"'a {HIDDEN}'"),
        ({"a": [{"b": "ok"}]}, {"a": [{"b": f"a {SECRET}"}]}, "result.note.a[0].b", "'ok'",
         f"'a {HIDDEN}'"),
        (["ok"], [f"a {SECRET}"], "result.note[0]", "'ok'", f"'a {HIDDEN}'"),
        ([], [f"a {SECRET}"], "result.note[0]", "absent", f"'a {HIDDEN}'"),
        ([f"a {SECRET}"], [], "result.note[0]", f"'a {HIDDEN}'", "absent"),
        ([{}], [{"b": f"a {SECRET}"}], "result.note[0].b", "absent", f"'a {HIDDEN}'"),
        ({"b": f"a {SECRET}"}, {}, "result.note.b", f"'a {HIDDEN}'", "absent"),
    ],
)  # fmt: skip
def test_a_result_that_differs_tells_none(
    expected: JsonValue, result: JsonValue, path: str, wanted: str, found: str
) -> None:
    """Which the result has by name, and elsewhere without one; in objects, arrays and both."""
    told = success({"password": SECRET, "note": result})
    (only,) = verdict({"result": {"note": expected}}, told).mismatches
    assert bare(only) == Mismatch(path=path, expected=wanted, actual=found)
    assert list(differences(expected, result, "result.note", secrets=[SECRET])) == [only]


@pytest.mark.parametrize(
    ("schema", "note", "rule", "found"),
    [
        ({"maxLength": 3}, f"a {SECRET}", "maxLength", f"'a {HIDDEN}'"),
        ({"const": "ok"}, f"a {SECRET}", "const", f"'a {HIDDEN}'"),
        ({"required": ["b"]}, {"a": f"a {SECRET}"}, "required", f"{{'a': 'a {HIDDEN}'}}"),
    ],
)
def test_a_result_that_breaks_its_schema_tells_none(
    schema: JsonValue, note: JsonValue, rule: str, found: str
) -> None:
    """Nor does the rule, whose words may have been made of the value."""
    told = success({"password": SECRET, "note": note})
    (only,) = verdict({"schema": {"properties": {"note": schema}}}, told).mismatches
    assert bare(only) == Mismatch(path="result.note", expected=f"{rule} (schema)", actual=found)


def test_what_stands_under_the_name_of_a_secret_breaks_a_schema_untold() -> None:
    """Of a value that is hidden whole there is a digest."""
    told = success({"password": SECRET})
    schema: JsonValue = {"properties": {"password": {"maxLength": 3}}}
    (only,) = verdict({"schema": schema}, told).mismatches
    assert (only.path, only.expected) == ("result.password", "maxLength (schema)")
    assert only.actual.startswith(f"'{HIDDEN}")
