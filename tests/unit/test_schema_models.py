"""The models: what they accept, what they refuse, and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any

import pytest
from pydantic import ValidationError

from pytest_manifest.schema import Entry, ErrorInfo, Expectations, Header, Receipt
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.json_values import MAX_DEPTH
from pytest_manifest.schema.problems import problems

ENTRY: Mapping[str, Any] = {"id": "a", "task": "t"}
RECEIPT: Mapping[str, Any] = {
    "run": "20261124T150000-0a1b2c3d",
    "entry": "a",
    "attempt": 1,
    "task_id": "0a1b2c3d-x",
    "task": "t",
    "state": "succeeded",
}


def refusal(document: object, model: type[Document] = Entry) -> list[str]:
    """What is wrong with the document; fails where nothing is."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return problems(caught.value, model)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"timeot": 3}, "unknown field 'timeot'; did you mean 'timeout'?"),
        ({"Timeout": 3}, "unknown field 'Timeout'; did you mean 'timeout'?"),
        ({"expect": {"maxruntime": 3}}, "'maxruntime' in 'expect'; did you mean 'max_runtime'?"),
        (
            {"expect": {"error": {"typ": "E"}}},
            "unknown field 'typ' in 'expect.error'; did you mean",
        ),
        ({"zzz": 3}, "unknown field 'zzz'; the known ones are id, task, args"),
        ({"z\x07": 3}, r"unknown field 'z\u0007'"),
        ({"timeout": "30"}, "'timeout' must be a number, not \"30\"; write it without quotes"),
        ({"timeout": "soon"}, "'timeout' must be a number, not \"soon\""),
        ({"timeout": True}, "'timeout' must be a number, not true"),
        ({"timeout": 0}, "'timeout' must be greater than 0, not 0"),
        ({"timeout": float("inf")}, "'timeout' must be a finite number, not Infinity"),
        ({"timeout": float("nan")}, "'timeout' must be"),
        ({"timeout": 10**400}, "'timeout' must be a number"),
        ({"retries": 1.0}, "'retries' must be a whole number, not 1.0"),
        ({"retries": True}, "'retries' must be a whole number, not true"),
        ({"retries": -1}, "'retries' must be 0 or more, not -1"),
        ({"priority": 256}, "'priority' must be 255 or less, not 256"),
        ({"idempotent": 1}, "'idempotent' must be true or false, not 1"),
        ({"idempotent": "true"}, "write it without quotes"),
        ({"countdown": -1}, "'countdown' must be 0 or more, not -1"),
        ({"id": ""}, "'id' must not be empty"),
        ({"id": 7}, "'id' must be text, not 7"),
        ({"id": "a" * 201}, "'id' must have at most 200 characters, not 201"),
        ({"id": "a\nb"}, "'id' must be printable text, but has the character U+000A; take it out"),
        ({"id": "a\u200bb"}, "U+200B"),
        ({"id": "\u200dab"}, "U+200D"),
        ({"id": "ab\u200c"}, "U+200C"),
        ({"id": "a\ud800"}, "'id' must be"),
        ({"task": "a\x00"}, "U+0000"),
        ({"queue": ""}, "'queue' must not be empty"),
        ({"key": "acme"}, "'key' must be an object, not \"acme\""),
        ({"key": {"a b": "x"}}, "'key' must have names of 1 to 60 ASCII letters, digits"),
        ({"key": {"tenant\n": "x"}}, "'key' must have names of 1 to 60 ASCII letters, digits"),
        ({"key": {"tenant": 5}}, "'key.tenant' must be text, not 5"),
        ({"key": {"tenant": ""}}, "'key.tenant' must not be empty"),
        ({"headers": {"id": "x"}}, "'headers' must have names of 1 to 60 ASCII letters"),
        ({"headers": {"manifest_run": "x"}}, "none of those that Celery or this plugin gives"),
        ({"headers": {"tenant": "a\n"}}, "'headers.tenant' must be printable text"),
        ({"headers": {"tenant": 1.5}}, "'headers.tenant' must be text of at most 500"),
        ({"headers": {"tenant": None}}, "'headers.tenant' must be text of at most 500"),
        ({"headers": {"tenant": "x" * 501}}, "at most 500 characters"),
        ({"headers": {f"h{n}": n for n in range(33)}}, "'headers' must have at most 32"),
        ({"tags": "slow"}, "'tags' must be an array, not \"slow\""),
        ({"tags": ["ok", "\t"]}, "'tags[1]' must be printable text"),
        ({"after": ["b", "a"]}, "'after' names the entry itself; take that id out"),
        ({"args": {}}, "'args' must be an array, not {}"),
        ({"kwargs": []}, "'kwargs' must be an object, not []"),
        ({"kwargs": None}, "'kwargs' must be an object, not null"),
        ({"meta": "x"}, "'meta' must be an object, not \"x\""),
        ({"expect": None}, "'expect' must be an object, not null"),
        ({"expect": {"state": "ok"}}, '\'expect.state\' must be one of "succeeded", "failed"'),
        ({"expect": {"executions": 0}}, "'expect.executions' must be 1 or more, not 0"),
        ({"expect": {"schema": 3}}, "'expect.schema' must be an object, not 3"),
        ({"expect": {"schema": {"type": "strin"}}}, "'expect.schema' is not a valid JSON Schema"),
        (
            {"expect": {"state": "failed", "error": {"match": "("}}},
            "'expect.error.match' is not a regular expression: it cannot be read",
        ),
        ({"expect": {"error": {"type": "E"}}}, 'add "state": "failed"'),
        ({"eta": 5}, "'eta' must be a time like \"2026-11-24T15:00:00Z\", not 5"),
        ({"eta": "1700000000"}, "'eta' must be a time like"),
        ({"eta": "2026-11-24"}, "'eta' must be a time like"),
        ({"eta": "2026-11-24T25:00:00Z"}, "'eta' must be a time like"),
        ({"eta": "2026-11-24T15:00:00"}, "'eta' must say its time zone"),
        ({"eta": datetime(2026, 11, 24)}, "'eta' must say its time zone"),  # noqa: DTZ001 (its point)
        ({"eta": "0001-01-01T00:00:00+10:00"}, "'eta' must be a time of the years 1970 to 9998"),
        (
            {"eta": "2026-11-24T15:00:00Z", "countdown": 1},
            "'countdown' and 'eta' exclude each other; keep one",
        ),
        ({"expires": True}, "'expires' must be seconds from the sending (a number), or a time"),
        ({"expires": []}, "'expires' must be seconds"),
        ({"expires": float("nan")}, "'expires' must be seconds"),
        ({"expires": 10**400}, "'expires' must be seconds"),
        ({"expires": -1}, "'expires' must not be negative, not -1"),
        ({"expires": "2026-11-24T15:00:00"}, "'expires' must say its time zone"),
    ],
)
def test_an_entry_refuses(fields: dict[str, Any], expected: str) -> None:
    """Each wrong field gives one problem that names it and says what to do."""
    (problem,) = refusal({**ENTRY, **fields})
    assert expected in problem


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "holds nan, which JSON does not have at x; use null or text"),
        ([0, float("-inf")], "holds -inf, which JSON does not have at x[1]"),
        ({"y": {1, 2}}, "holds a set, which JSON does not have at x.y"),
        (Decimal(1), "holds a Decimal"),
        (b"x", "holds a bytes"),
        (datetime.now(timezone.utc), "holds a datetime"),
        ({1: 2}, "holds the key 1, which is not text at x"),
        ("\ud800", "holds half of a surrogate pair at x"),
        ({"\udfff": 1}, "holds half of a surrogate pair at x"),
        pytest.param(10**5000, "holds an integer of more than 4,300 digits at x", id="digits"),
    ],
)
@pytest.mark.parametrize("field", ["kwargs", "meta"])
def test_arguments_must_be_json(field: str, value: object, expected: str) -> None:
    """What JSON cannot hold is refused at its place, in Python too."""
    (problem,) = refusal({**ENTRY, field: {"x": value}})
    assert expected in problem


def test_arguments_may_be_nested_but_not_without_end() -> None:
    """A hundred levels pass, one more does not, and a list that holds itself is no crash."""
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert Entry(id="a", task="t", args=deep).args == deep
    endless: list[Any] = []
    endless.append(endless)
    branching: list[Any] = []
    branching.extend([branching, {"x": branching}])
    for value in ([deep], endless, branching):
        (problem,) = refusal({**ENTRY, "args": value})
        assert "more than 100 levels of nesting" in problem


def test_arguments_are_copied() -> None:
    """Changing a dict after it went into an entry does not change the entry; tuples are arrays."""
    data = {"n": 1, "t": (1, (2,))}
    entry = Entry.model_validate({**ENTRY, "args": (data,)})
    data["n"] = 2
    assert entry.args == [{"n": 1, "t": [1, [2]]}]


def test_what_stands_for_a_json_value_becomes_one() -> None:
    """Members of enums and the like go in as what they stand for, with or without a tuple."""

    class Kind(str, Enum):
        A = "a"

    class Level(IntEnum):
        LOW = 1

    value = {Kind.A: [Kind.A, Level.LOW, True]}
    for given in ([value], (value,)):
        (found,) = Entry.model_validate({**ENTRY, "args": given}).args
        assert repr(found) == "{'a': ['a', 1, True]}"


def test_several_problems_are_all_named() -> None:
    """One look at the message is enough to repair an entry."""
    found = refusal({"timeot": 3, "retries": "1"})
    assert [problem.split()[0] for problem in found] == ["'id'", "'task'", "'retries'", "unknown"]


@pytest.mark.parametrize("version", [2, "1", True, 1.0, None])
@pytest.mark.parametrize(("model", "field"), [(Header, "manifest"), (Receipt, "receipt")])
def test_other_versions_are_refused(model: type[Document], field: str, version: object) -> None:
    """A file of a later release is not guessed at."""
    document = {**(RECEIPT if model is Receipt else {}), field: version}
    (problem,) = refusal(document, model)
    assert f"'{field}' names a version of the format that this release does not know" in problem
    assert "upgrade" in problem


@pytest.mark.parametrize("entry_id", ["crud-0001", "a/b[c]::d é", "日本語", "🎬", " ", "a" * 200])
def test_ids_may_be_any_printable_text(entry_id: str) -> None:
    """Object keys are ids, in any script."""
    assert Entry(id=entry_id, task="t").id == entry_id


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-24T15:00:00Z",
        "2026-11-24t15:00:00z",
        "2026-11-24 16:00:00+01:00",
        "2026-11-24T15:00:00.000000Z",
        datetime(2026, 11, 24, 20, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
@pytest.mark.parametrize("field", ["eta", "expires"])
def test_times_are_normalised_to_utc(field: str, value: object) -> None:
    """Whatever the offset, the entry holds UTC."""
    moment = getattr(Entry.model_validate({**ENTRY, field: value}), field)
    assert moment == datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
    assert moment.tzinfo is timezone.utc


def test_whole_numbers_are_accepted_for_seconds() -> None:
    """30 is 30.0 where seconds are meant."""
    entry = Entry.model_validate({**ENTRY, "timeout": 30, "expires": 5, "countdown": 0})
    assert (entry.timeout, entry.expires, entry.countdown) == (30.0, 5.0, 0.0)
    assert isinstance(entry.timeout, float)


def test_the_defaults_are_those_of_the_format() -> None:
    """Timeout 300 s, no deadline, no retries, not idempotent, one execution, success."""
    entry = Entry(id="a", task="t")
    assert (entry.timeout, entry.deadline, entry.retries, entry.idempotent) == (300, None, 0, False)
    assert (entry.expect.state, entry.expect.executions) == ("succeeded", 1)


def test_a_null_result_is_more_than_no_result() -> None:
    """Expecting null can be told from expecting nothing in particular."""
    assert "result" in Expectations.model_validate({"result": None}).model_fields_set
    assert "result" not in Expectations.model_validate({}).model_fields_set


def test_schema_is_its_name_on_the_wire() -> None:
    """Python says result_schema, JSON says schema, also when dumped without asking for it."""
    expect = Expectations(schema={"type": "object"})
    assert json.loads(expect.model_dump_json(by_alias=True))["schema"] == {"type": "object"}


def test_documents_are_frozen() -> None:
    """What was checked stays what it was."""
    with pytest.raises(ValidationError):
        Entry(id="a", task="t").task = "u"  # type: ignore[misc]  # the point of the test


def test_a_receipt_survives_broken_text() -> None:
    """Half a surrogate pair in a traceback or a log line costs that character, not the receipt."""
    receipt = Receipt.model_validate(
        {
            **RECEIPT,
            "state": "failed",
            "error": ErrorInfo(type="E", message="bad \ud800", traceback="é \udfff"),
            "log": ["fine", "\ud800"],
            "wait": -0.001,
        }
    )
    assert receipt.error == ErrorInfo(type="E", message="bad ?", traceback="é ?")
    assert receipt.log == ["fine", "?"]
    assert Receipt.model_validate_json(receipt.model_dump_json()) == receipt


def test_a_receipt_takes_its_times_from_text() -> None:
    """What a worker put into JSON is read from the parsed document too."""
    receipt = Receipt.model_validate({**RECEIPT, "sent_at": "2026-11-24T15:00:00.123456+00:00"})
    assert receipt.sent_at == datetime(2026, 11, 24, 15, 0, 0, 123456, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "a\nb", "task": "t"},
        {"id": "", "task": "t"},
        {"id": "a" * 201, "task": 1, "unknown": 2},
        {"id": "a", "task": "t", "eta": "tomorrow", "timeout": -1.0},
        {"id": "a", "task": "t", "tags": ["x", "\x00", 3]},
        {"id": "a", "task": "t", "expect": {"error": {"match": "("}}},
        {"task": "t", "expect": {"descendants": {"count": {"min": -1}}}},
    ],
    ids=["printable", "empty", "long", "time", "tags", "error", "count"],
)
@pytest.mark.parametrize("make", [lambda fields: Entry(**fields), Entry.model_validate])
def test_a_fault_is_raised_once_by_who_makes_one_in_python(
    make: Callable[[dict[str, Any]], Entry], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as raised:
        make(fields)
    with pytest.raises(ValidationError) as of_text:
        Entry.model_validate_json(json.dumps(fields))
    assert "(usual)" not in str(raised.value)
    assert "(whole)" not in str(raised.value)
    assert raised.value.title == "Entry"
    assert problems(raised.value, Entry) == problems(of_text.value, Entry)
    assert len({one["loc"] for one in raised.value.errors()}) == raised.value.error_count()


def test_of_an_array_the_first_fault_is_named() -> None:
    fields = {"id": "", "task": "t", "tags": ["x", "", ""], "after": ["", "b"]}
    with pytest.raises(ValidationError) as of_python:
        Entry.model_validate(fields)
    with pytest.raises(ValidationError) as of_text:
        Entry.model_validate_json(json.dumps(fields))
    for raised in (of_python, of_text):
        places = [one.split()[0] for one in problems(raised.value, Entry)]
        assert places == ["'id'", "'after[0]'", "'tags[1]'"]
