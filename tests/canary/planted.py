"""Twelve kinds of secret in fifteen places, each with a text of its own to look for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

KINDS: Final[Mapping[str, Callable[[str], str]]] = {
    "AWS key id": lambda core: f"AKIA{core.upper()[:16]}",
    "JSON Web Token": lambda core: f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIi{core}.{core}",
    "private key (PEM)": lambda core: (
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{core}\n{core}==\n-----END RSA PRIVATE KEY-----"
    ),
    "cookie header": lambda core: f"Cookie: sid={core}; Path=/{core}",
    "GitHub token": lambda core: f"ghp_{core}{core[:12]}",
    "Slack token": lambda core: f"xoxb-123456789012-{core}",
    "Google API key": lambda core: f"AIza{core}{core[:11]}",
    "bearer header": lambda core: f"Authorization: Bearer {core}",
    "basic header": lambda core: f"Authorization: Basic {core}==",
    "password in a URL": lambda core: f"postgresql://app:{core}@db.example/shop",
    "JSON in a text": lambda core: json.dumps({"password": core, "user": "me"}),
    "registered value": lambda core: f"plain {core} words",
}
PLACES: Final = (
    "kwarg named password",
    "positional argument",
    "meta",
    "header of the manifest",
    "result",
    "nested result",
    "exception",
    "log line",
    "evidence",
    "expectation",
    "environment variable",
    "broker's URL",
    "tag",
    "argument of a child",
    "schema failure",
)
_BY_TASK: Final = {
    "result": "give",
    "nested result": "nest",
    "exception": "fail",
    "log line": "log",
    "evidence": "evidence",
    "environment variable": "environment",
    "argument of a child": "parent",
    "schema failure": "nest",
}
"""The task that brings the secret of a place about; it reads it from a file."""


def core(kind: str, place: str) -> str:
    """Return the 24 characters that are looked for."""
    return "c" + hashlib.sha256(f"{kind} {place}".encode()).hexdigest()[:23]


def secret(kind: str, place: str) -> str:
    return KINDS[kind](core(kind, place))


def marks(kind: str, place: str) -> Sequence[str]:
    """Return texts one of which is in each spelling of the secret, also in one that was cut."""
    own = core(kind, place)
    return (own[:12], own[12:], own.upper()[:12])


def variable(kind: str) -> str:
    """Return the name of the environment's variable with the secret of this kind."""
    return "CANARY_" + kind.upper().replace(" ", "_").translate({ord(c): None for c in "()'"})


def environment() -> dict[str, str]:
    """Return variables with a secret each; that of the registered value is found by its name."""
    place = "environment variable"
    found = {variable(kind): secret(kind, place) for kind in KINDS}
    registered = found.pop(variable("registered value"))
    return {**found, "CANARY_SECRET": registered}


def registered() -> list[str]:
    """Return the values that the project registers."""
    return [core("registered value", place) for place in PLACES]


def broker_url() -> str:
    """Return the URL of no broker; its password, which is not escaped, has all kinds in it."""
    place = "broker's URL"
    parts = (quote(secret(kind, place), safe="/#?@:=+") for kind in KINDS)
    return f"redis://:{'/#'.join(parts)}@127.0.0.1:1/0"


def entries() -> list[dict[str, object]]:
    """Return an entry for each secret; most of them fail, so that all is shown of them."""
    return [
        _entry(f"{place_number:02}-{kind_number:02}", kind, place)
        for place_number, place in enumerate(PLACES)
        for kind_number, kind in enumerate(KINDS)
        if place not in ("broker's URL", "header of the manifest")
    ]


def header() -> dict[str, object]:
    """Return the manifest's header, whose parameters hold a secret of each kind."""
    place = "header of the manifest"
    return {"manifest": 1, "params": {f"note {n}": secret(k, place) for n, k in enumerate(KINDS)}}


def _entry(name: str, kind: str, place: str) -> dict[str, object]:
    value = secret(kind, place)
    passes = place in ("kwarg named password", "meta", "evidence")
    entry: dict[str, object] = {
        "id": name,
        "task": f"jobs.{_BY_TASK.get(place, 'take')}",
        # Of one that passes a test of the user's fails, and shows what it compares.
        "expect": {} if passes else {"result": {"wanted": True}},
    }
    if place in _BY_TASK:
        entry["kwargs"] = {"kind": kind, "place": place}
    elif place == "kwarg named password":
        entry["kwargs"] = {"password": value}
    elif place == "positional argument":
        entry["args"] = [value]
    elif place == "meta":
        entry["meta"] = {"note": value}
    elif place == "tag":
        entry["tags"] = [f"note:{value}".replace("\n", " ")[:200]]
    elif place == "expectation":
        entry["expect"] = {"result": {"note": value}}
    if place == "schema failure":
        entry["expect"] = {"schema": {"properties": {"deep": {"items": {"maxProperties": 0}}}}}
    return entry
