"""Hold what commands print against the schemas that are published of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema_rs import Draft202012Validator

from pytest_manifest.schema.answers import Answers
from tests.house.conftest import ROOT

OWN: Final = {
    "status": "run-status",
    "doctor": "run-diagnosis",
    "why": "entry-why",
    "history": "runs-over-time",
}
"""Commands whose document is a format of its own, and the name of its schema."""
GROUPS: Final = ("stack",)
"""Groups whose commands print documents of their own; those of others print one."""


def known() -> set[str]:
    """The commands that a document is described of."""
    return {info.alias or name for name, info in Answers.model_fields.items()}


def key_of(words: Sequence[str]) -> str:
    """The name by which the schema has what a command prints."""
    return " ".join(words[:2]) if words[0] in GROUPS else words[0]


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(path_of(name).read_text("utf-8")))


def path_of(name: str) -> Path:
    """The file of a schema."""
    return ROOT / f"pytest_manifest/schema/{name}.schema.json"


def hold(words: Sequence[str], document: Any) -> None:
    """Fail where a command has printed another document than its schema says."""
    key = key_of(words)
    if "--runs" in words:
        key = "history"
    if key in OWN:
        _validator(OWN[key]).validate(document)
    else:
        _validator("command-answers").validate({key: document})
