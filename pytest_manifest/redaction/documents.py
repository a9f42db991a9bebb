"""Hide secrets in JSON values, and leave a salted digest of each, by which they can be compared."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pytest_manifest.redaction.names import current_salt, is_on, is_secret_name
from pytest_manifest.redaction.texts import HIDDEN, redact, without

if TYPE_CHECKING:
    from pydantic import JsonValue

DIFFERS: Final = " (differs)"
"""What follows a hidden value that is not the expected one."""
_DIGEST_BYTES: Final = 4
_MARKED: Final = re.compile(r"\*\*\*[0-9a-f]{8}")
_NAME_KEYS: Final = ("name", "key", "header")
"""Keys whose value names what stands under ``value`` beside them."""
_SCHEMA_VALUES: Final = ("const", "enum", "default", "examples", "pattern")
"""Keywords of a JSON Schema whose values are, or show, values of the property."""
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[\"((?:[^\"\\]|\\.)*)\"?|\['((?:[^'\\]|\\.)*)'?")
"""The steps of a path like ``result.user["pass word"]``."""
_SHORTEST_LITERAL: Final = 4
_SHOWN_ITEMS: Final = 13
"""One more than ``text.short`` shows of a list or an object."""
_SHOWN_DEPTH: Final = 8


def digest(secret: str) -> str:
    """Return ``***`` and a digest of the secret that the session's salt goes into."""
    found = hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), key=current_salt(), digest_size=_DIGEST_BYTES
    )
    return HIDDEN + found.hexdigest()


def unsalted(text: str) -> str:
    """Return a text in which hidden values are hidden alike, whatever a session's salt was."""
    return _MARKED.sub(HIDDEN, text)


def is_marked(value: object) -> bool:
    """Return whether a value is what is shown instead of a secret."""
    return isinstance(value, str) and (value == HIDDEN or _MARKED.fullmatch(value) is not None)


def agree(hidden: object, other: object) -> bool:
    """Return whether two JSON values are the same but for what is hidden in the first one.

    Another session has another salt, and may know fewer secrets.
    """
    if hidden == other:
        return True
    if isinstance(hidden, str) and isinstance(other, str):
        parts = _MARKED.sub(HIDDEN, hidden).split(HIDDEN)
        form = fnmatch.translate("*".join(map(glob.escape, parts)))
        return HIDDEN in hidden and re.match(form, _MARKED.sub(HIDDEN, other)) is not None
    if isinstance(hidden, list) and isinstance(other, list):
        return len(hidden) == len(other) and all(map(agree, hidden, other))
    if isinstance(hidden, dict) and isinstance(other, dict):
        return hidden.keys() == other.keys() and all(
            agree(value, other[name]) for name, value in hidden.items()
        )
    return False


def redacted(value: JsonValue, secrets: Sequence[str] = ()) -> JsonValue:
    """Return a JSON value without secrets, and without these texts; itself, where the user wants
    to see all.

    Under the name of a secret all but null, booleans and empty text becomes ``***`` with a digest.
    In other texts secrets are hidden as :func:`redact` does.
    """
    return _redacted(value, secrets) if is_on() else value


def redacted_schema(
    schema: dict[str, JsonValue], secrets: Sequence[str] = ()
) -> dict[str, JsonValue]:
    """Return a JSON Schema without the values that it names of secret properties, or in text."""
    if not is_on():
        return schema
    return {key: _of_schema(item, key, secrets, is_secret=False) for key, item in schema.items()}


def marked(value: JsonValue) -> JsonValue:
    """Return what is shown instead of a secret; itself, if it tells nothing."""
    if value is None or isinstance(value, bool) or value in ("", [], {}) or is_marked(value):
        return value
    return digest(value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def differ(
    path: str, expected: JsonValue, actual: JsonValue, secrets: Sequence[str] = ()
) -> tuple[JsonValue, JsonValue, str]:
    """Return two values that are not equal as they are shown, and what follows the second one.

    They are without ``secrets``, and with no more of what is large than a message has room for.
    What follows is ``(differs)`` where a part of them that is not equal is hidden.
    """
    if not is_on():
        return expected, actual, ""
    if any(is_secret_name(step) for found in _STEP.findall(path) for step in found if step):
        return marked(expected), marked(actual), DIFFERS
    expected, actual = _bounded(expected), _bounded(actual)
    wanted, found = _redacted(expected, secrets), _redacted(actual, secrets)
    hides = wanted != expected or found != actual
    return wanted, found, DIFFERS if hides and (wanted == found or is_marked(found)) else ""


def _bounded(value: JsonValue, depth: int = 0) -> JsonValue:
    """Return a value with the few items of each list and object that a short text shows."""
    if depth == _SHOWN_DEPTH:
        return value if isinstance(value, str | int | float) else None
    if isinstance(value, list):
        return [_bounded(item, depth + 1) for item in value[:_SHOWN_ITEMS]]
    if isinstance(value, dict):
        names = sorted(value)[:_SHOWN_ITEMS]
        return {name: _bounded(value[name], depth + 1) for name in names}
    return value


def secrets_in(value: JsonValue) -> Iterator[str]:
    """Yield the texts that stand under names of secrets, and are long enough to be told apart."""
    if isinstance(value, dict):
        for key, item in value.items():
            if is_secret_name(key):
                yield from _texts(item)
            else:
                yield from secrets_in(item)
        if (named := _named_value(value)) is not None:
            yield from _texts(value[named])
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in(item)


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) >= _SHORTEST_LITERAL and not is_marked(text):
            yield text


def _redacted(value: JsonValue, secrets: Sequence[str] = ()) -> JsonValue:
    if isinstance(value, str):
        return _text(value, secrets)
    if isinstance(value, list):
        return [_redacted(item, secrets) for item in value]
    if not isinstance(value, dict):
        return value
    named = _named_value(value)
    return {
        _text(key, secrets): marked(item)
        if key == named or is_secret_name(key)
        else _redacted(item, secrets)
        for key, item in value.items()
    }


def _text(text: str, secrets: Sequence[str]) -> str:
    return redact(without(text, secrets, digest), digest)


def _named_value(value: dict[str, JsonValue]) -> str | None:
    """Return the key of a secret in an object like ``{"name": "password", "value": ...}``."""
    if "value" not in value:
        return None
    names = (value.get(key) for key in _NAME_KEYS)
    secret = any(isinstance(name, str) and is_secret_name(name) for name in names)
    return "value" if secret else None


def _of_schema(value: JsonValue, key: str, secrets: Sequence[str], *, is_secret: bool) -> JsonValue:
    if isinstance(value, dict):
        return {
            name: _of_schema(item, name, secrets, is_secret=is_secret or is_secret_name(name))
            for name, item in value.items()
        }
    if is_secret and key in _SCHEMA_VALUES:
        return [marked(item) for item in value] if isinstance(value, list) else marked(value)
    if isinstance(value, list):
        return [_of_schema(item, key, secrets, is_secret=is_secret) for item in value]
    return _text(value, secrets) if isinstance(value, str) else value
