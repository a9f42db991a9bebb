"""Find where a result differs from the expected one: objects contain, arrays equal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from pytest_manifest.schema import Mismatch
from pytest_manifest.verdict.text import short

ABSENT = "absent"
_NAME = re.compile(r"[^\W\d][\w-]*")


def differences(expected: JsonValue, actual: JsonValue, path: str = "result") -> Iterator[Mismatch]:
    """Yield every path where ``actual`` is not as ``expected``; none: it is contained.

    An object must have the expected keys and may have others; an array must be equal, whole and
    in order, and so must be what is in it; 1 equals 1.0, but true does not equal 1.
    """
    return _differences(expected, actual, path, exact=False)


def _differences(
    expected: JsonValue, actual: JsonValue, path: str, *, exact: bool
) -> Iterator[Mismatch]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _in_object(expected, actual, path, exact=exact)
    elif isinstance(expected, list) and isinstance(actual, list):
        yield from _in_array(expected, actual, path)
    elif not _equal(expected, actual):
        yield Mismatch(path=path, expected=short(expected), actual=short(actual))


def _in_object(
    expected: dict[str, JsonValue], actual: dict[str, JsonValue], path: str, *, exact: bool
) -> Iterator[Mismatch]:
    for key, wanted in expected.items():
        location = f"{path}{_step(key)}"
        if key in actual:
            yield from _differences(wanted, actual[key], location, exact=exact)
        else:
            yield Mismatch(path=location, expected=short(wanted), actual=ABSENT)
    if exact:
        for key in actual.keys() - expected.keys():
            location = f"{path}{_step(key)}"
            yield Mismatch(path=location, expected=ABSENT, actual=short(actual[key]))


def _in_array(expected: list[JsonValue], actual: list[JsonValue], path: str) -> Iterator[Mismatch]:
    for i, (wanted, found) in enumerate(zip(expected, actual, strict=False)):
        yield from _differences(wanted, found, f"{path}[{i}]", exact=True)
    if len(expected) == len(actual):
        return
    shared = min(len(expected), len(actual))
    if abs(len(expected) - len(actual)) > 3:
        sizes = f"{len(expected)} items", f"{len(actual)} items"
        yield Mismatch(path=path, expected=sizes[0], actual=sizes[1])
        return
    for i, wanted in enumerate(expected[shared:], shared):
        yield Mismatch(path=f"{path}[{i}]", expected=short(wanted), actual=ABSENT)
    for i, found in enumerate(actual[shared:], shared):
        yield Mismatch(path=f"{path}[{i}]", expected=ABSENT, actual=short(found))


def _equal(expected: JsonValue, actual: JsonValue) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    return expected == actual


def _step(key: str) -> str:
    return f".{key}" if _NAME.fullmatch(key) else f"[{short(key)}]"
