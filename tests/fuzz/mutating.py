"""Mutations of lines of JSON: a fuzzer's bytes seldom pass the parser, these do.

A value is replaced by a hostile one, a key is added, renamed or doubled, a line is copied,
swapped or cut. What comes out is mostly JSON, and sometimes not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from pytest_manifest.schema import Entry, Header, Receipt, Verdict
from pytest_manifest.schema.models import Expectations, ExpectedDescendants, ExpectedError
from pytest_manifest.schema.receipts import ErrorInfo, ExportedDescendant, Retried
from tests.fuzz.json_kinds import KINDS

MODELS = (Entry, Header, Expectations, ExpectedError, ExpectedDescendants, Receipt, Retried)
MODELS_OF_OUTPUT = (ErrorInfo, Verdict, ExportedDescendant)
NAMES = sorted(
    {
        info.alias or name
        for model in (*MODELS, *MODELS_OF_OUTPUT)
        for name, info in model.model_fields.items()
    }
    | {"kind", "execution", "start", "spawned", "children", "root", "parent", "chords", "due"}
    | {"announced", "key", "count", "task_ids", "is_off", "closes", "fulfils", "elsewhere"}
    | {"unsent", "next_at", "ended_at", "redelivered", "hop", "boot", "pid_namespace"}
    | {"status", "traceback", "date_done", "exc_type", "exc_message", "exc_module"}
    | {"manifest_receipt", "manifest_result", "__type__", "__value__", "$ref", "$defs", "pattern"}
    | {"type", "properties", "items", "allOf", "anyOf", "not", "const", "enum", "multipleOf"}
)
TEXTS = (
    "", "a", "x" * 201, "\x00", "\ud800", "\u202e", "\x1b[31m", "a\nb", "é", "\U0001f600", "..",
    "../../etc/passwd", "a/b", "-1", "1e400", "NaN", "succeeded", "failed", "passed", "revoked",
    "started", "finished", "spawned", "handed_on", "SUCCESS", "FAILURE", "(a+)+$", "(?=a)", "[",
    "(" * 200, r"\u0041", "#", "#/$defs/a", "2026-11-24T15:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2026-11-24T15:00:00", "0" * 64, "tasks.add", "celery.starmap",
    "\n-- manifest receipt --\n{}", "https://json-schema.org/draft/2020-12/schema",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 255, 256, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.1,
    1e-400, 5e-324, 1e15, 1e16, 1e22, 1e300, 1.7976931348623157e308, 3155760000, 3155760001,
)  # fmt: skip
DEEP = json.loads("[" * 120 + "]" * 120)
Spot = tuple[Any, Any]
"""A container, and the key or the position of a value in it."""


def mutated(data: bytes, seed: int, most: int) -> bytes:
    """Return another input of at most so many bytes; the same seed gives the same."""
    rng = Random(seed)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines))
        try:
            value = json.loads(lines[place])
        except (ValueError, RecursionError):
            value = None
        if value is None or rng.random() < 0.15:
            _change_lines(rng, lines, place)
            continue
        box = [value]
        spot = rng.choice(list(_spots(box)))
        rng.choice(_CHANGES)(rng, *spot)
        lines[place] = _dumped(rng, box[0])
    return b"\n".join(lines)[:most]


def _spots(value: Any) -> Iterator[Spot]:
    nodes = [value]
    for node in nodes[:2_000]:  # the loop appends to it
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in items:
            yield node, key
            if isinstance(inner, (dict, list)) and inner and len(nodes) < 2_000:
                nodes.append(inner)


def _dumped(rng: Random, value: Any) -> bytes:
    spaces = rng.choice(((",", ":"), (", ", ": ")))
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=spaces)
    return text.encode("utf-8", "surrogatepass")


def _replace(rng: Random, node: Any, key: Any) -> None:
    node[key] = rng.choice(_VALUES)(rng)


def _add(rng: Random, node: Any, key: Any) -> None:
    inner = node[key]
    if isinstance(inner, dict):
        name = rng.choice(NAMES) if rng.random() < 0.9 else rng.choice(TEXTS)
        inner[name] = rng.choice(_VALUES)(rng)
    elif isinstance(inner, list):
        inner.insert(rng.randrange(len(inner) + 1), rng.choice(_VALUES)(rng))
    else:
        node[key] = {rng.choice(NAMES): inner}


def _rename(rng: Random, node: Any, key: Any) -> None:
    if isinstance(node, dict):
        node[rng.choice(NAMES)] = node.pop(key)
    else:
        node[key] = [node[key]]


def _remove(_rng: Random, node: Any, key: Any) -> None:
    if len(node) > 1:
        del node[key]


def _copy(rng: Random, node: Any, key: Any) -> None:
    other = rng.choice(list(_spots(node)))
    node[key] = json.loads(json.dumps(other[0][other[1]]))


def _nudge(rng: Random, node: Any, key: Any) -> None:
    value = node[key]
    if isinstance(value, bool) or value is None:
        node[key] = not value
    elif isinstance(value, (int, float)):
        node[key] = rng.choice((value + 1, -value, value * 10, float(value % 1_000_003)))
    elif isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        node[key] = value[:at] + rng.choice(TEXTS) + value[at:]
    else:
        node[key] = rng.choice(_VALUES)(rng)


_VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda rng: rng.choice(NUMBERS),
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice((True, False, None, [], {}, [[]], [None], {"a": 1}, DEEP)),
    lambda rng: {rng.choice(NAMES): rng.choice(TEXTS)},
    lambda rng: [rng.choice(TEXTS), rng.choice(NUMBERS)],
    lambda rng: {"$" + rng.choice(("bytes", "float", "time", "tuple", "error")): rng.choice(TEXTS)},
)
_CHANGES = (_replace, _replace, _add, _add, _rename, _remove, _copy, _nudge, _nudge)


def _change_lines(rng: Random, lines: list[bytes], place: int) -> None:
    """Copy, swap, cut or break a line, or put the text of a kind of JSON there."""
    what = rng.randrange(6)
    if what == 0 and len(lines) < 100:
        lines.insert(place, lines[rng.randrange(len(lines))])
    elif what == 1:
        other = rng.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    elif what == 2 and len(lines) > 1:
        del lines[place]
    elif what == 3:
        lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
    elif what == 4:
        at = rng.randrange(len(lines[place]) + 1)
        lines[place] = lines[place][:at] + rng.randbytes(rng.choice((1, 2))) + lines[place][at:]
    else:
        lines[place] = rng.choice(KINDS).text
