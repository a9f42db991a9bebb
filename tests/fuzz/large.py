"""Large hostile inputs, made by their size: what they may cost grows with it, and no faster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.fuzz.made_run import ENTRIES, RUN, TASK_ID, receipt_document

Maker = Callable[[int], bytes]
Records = Callable[[int], list[bytes]]


def _line(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "task": "t", **fields}).encode() + b"\n"


def _lines(count: int, **fields: Any) -> bytes:
    return b"".join(
        json.dumps({"id": f"e{n}", "task": "t", **fields}).encode() + b"\n" for n in range(count)
    )


def _ring(count: int) -> bytes:
    return b"".join(
        json.dumps({"id": f"e{n}", "task": "t", "after": [f"e{n ^ 1}"]}).encode() + b"\n"
        for n in range(count)
    )


MANIFESTS: Final[Mapping[str, Maker]] = {
    "a long key": lambda n: _line(**{"k" * 50 * n: 1}),
    "a long key of control characters": lambda n: _line(**{"\x1b" * 10 * n: 1}),
    "a long key twice": lambda n: b'{"%s":1,"%s":2}\n' % (b"k" * 50 * n, b"k" * 50 * n),
    "many unknown fields": lambda n: _line(**{f"k{i}": 1 for i in range(n)}),
    "many unknown fields in expect": lambda n: _line(expect={f"k{i}": 1 for i in range(n)}),
    "many items that are no names": lambda n: _line(after=[1] * n),
    "many empty tags": lambda n: _line(tags=[""] * n),
    "many tasks that are no names": lambda n: _line(expect={"descendants": {"tasks": [1] * n}}),
    "many bad lines": lambda n: b"{\n" * n,
    "many blank lines": lambda n: b"\n" * n,
    "many bytes that are not UTF-8": lambda n: b"\xff\n" * n,
    "many ids twice": lambda n: _line() * n,
    "many that wait for none": lambda n: _lines(n, after=["nobody"]),
    "one that waits for many that are none": lambda n: _line(after=[f"x{i}" for i in range(n)]),
    "many circles": _ring,
    "many brackets": lambda n: b"[" * 50 * n + b"\n",
    "many braces": lambda n: b'{"a":' * 10 * n + b"\n",
    "many digits": lambda n: b'{"id":"a","task":"t","args":[' + b"9" * 20 * n + b"]}\n",
    "many digits of an exponent": lambda n: b'{"cost":1e' + b"9" * 20 * n + b"}\n",
    "many escapes": lambda n: b'{"id":"' + rb"\u0061" * 10 * n + b'"}\n',
    "many keys twice": lambda n: b'{"a":[' + b'{"b":1,"b":2},' * n + b"1]}\n",
    "a long pattern": lambda n: _line(expect={"schema": {"pattern": "(" * 20 * n}}),
    "a long reference": lambda n: _line(expect={"schema": {"$ref": "#/" + "a/" * 10 * n}}),
    "a long type": lambda n: _line(expect={"schema": {"type": "x" * 20 * n}}),
    "many schemas": lambda n: _line(expect={"schema": {"allOf": [{"type": "object"}] * n}}),
    "many bad schemas": lambda n: _line(expect={"schema": {"allOf": [{"type": 1}] * n}}),
    "a value of many in an enum": lambda n: _line(expect={"schema": {"enum": list(range(n))}}),
}
"""Manifests, each of which is refused, or taken, in work that its size allows."""
ONE_LINE: Final = [
    name
    for name, maker in MANIFESTS.items()
    if maker(9).count(b"\n") == 1 and not name.endswith("schemas")
]
"""Those of one line, but for schemas: to check each part of a megabyte of them takes its time."""

_STARTED: Final[dict[str, Any]] = {
    "kind": "started",
    "run": RUN,
    "entry": "a",
    "attempt": 1,
    "task_id": TASK_ID,
    "task": "tasks.add",
    "execution": "x",
    "worker": "w@h",
    "started_at": "2026-11-24T15:00:02+00:00",
}
_SPAWNED: Final[dict[str, Any]] = {
    "kind": "spawned",
    "run": RUN,
    "entry": "a",
    "attempt": 1,
    "root": TASK_ID,
    "parent": TASK_ID,
    "execution": "x",
    "spawned_at": "2026-11-24T15:00:02+00:00",
}


def _each(make: Callable[[int], object]) -> Records:
    return lambda count: [json.dumps(make(number)).encode() for number in range(count)]


def finished(number: int, **fields: Any) -> dict[str, Any]:
    """Make the record of an end of the first entry's job, but for these fields of its receipt."""
    receipt = receipt_document(ENTRIES[0]) | fields
    return {"kind": "finished", "execution": f"x{number}", "receipt": receipt}


def _child(number: int, **fields: Any) -> dict[str, Any]:
    return {"task_id": f"c{number}", "task": f"t{number}", "how": "call", **fields}


def _announced(number: int) -> dict[str, Any]:
    one = {"key": f"k{number}", "how": "chord_body", "task": "t", "count": 10**9}
    return finished(number) | {"announced": [one]}


STREAMS: Final[Mapping[str, Records]] = {
    "no JSON": lambda count: [b"\xff"] * count,
    "no objects": lambda count: [b"[]"] * count,
    "of unknown kinds": _each(lambda n: {"kind": f"k{n}"}),
    "starts without a job": _each(lambda n: {"kind": "started", "entry": n}),
    "starts of a stranger": _each(lambda n: _STARTED | {"task_id": "s", "execution": f"x{n}"}),
    "starts of strangers": _each(lambda n: _STARTED | {"task_id": f"s{n}"}),
    "starts of one job": _each(lambda n: _STARTED | {"execution": f"x{n}"}),
    "starts that differ": _each(lambda n: _STARTED | {"pid": n}),
    "ends of strangers": _each(lambda n: finished(n, task_id=f"s{n}", entry=f"e{n}")),
    "ends of a stranger": _each(lambda n: finished(n, task_id="s", entry="s")),
    "ends of one job": _each(finished),
    "ends that are no receipts": _each(lambda n: finished(n, state=f"s{n}")),
    "children of strangers": _each(
        lambda n: _SPAWNED | {"root": f"{n}" * 500, "children": [_child(n)]}
    ),
    "children of one job": _each(
        lambda n: (
            _SPAWNED | {"children": [_child(n, due="2036-11-24T15:00:02+00:00", queue=f"q{n % 5}")]}
        )
    ),
    "announcements": _each(_announced),
    "tries": _each(
        lambda n: {"kind": "handed_on", "task_id": f"s{n}", "execution": "x", "how": "retry"}
    ),
}
"""Records that somebody may write into a run's stream without end."""
