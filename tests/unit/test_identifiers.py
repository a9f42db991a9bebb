"""One rule for every name that becomes part of a path."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from pytest_manifest.errors import LedgerError, PlanError
from pytest_manifest.ledger import Ledger
from pytest_manifest.planning import plan_spec
from pytest_manifest.schema.fields import Identifier
from tests.unit.ledger_support import INFO

GOOD = ("20261127T072033-ccc62ee2", "gap_fill", "a.b", "für alle", "x" * 60, "a..b")
BAD = ("", ".", "..", ".x", "a/b", "/a", "a\\b", "c:x", "a\0b", "a\nb", "x" * 61)


def test_only_a_plain_name_is_an_identifier() -> None:
    """By the model and by its JSON Schema alike."""
    adapter: TypeAdapter[str] = TypeAdapter(Identifier)
    schema = Draft202012Validator(adapter.json_schema())
    for name in GOOD:
        assert adapter.validate_python(name) == name
        assert schema.is_valid(name)
    for name in BAD:
        with pytest.raises(ValidationError):
            adapter.validate_python(name)
        assert not schema.is_valid(name)


@pytest.mark.parametrize("name", ["..:a", "a:..", ".a:b", "a/b:c", "a:b\n", f"{'x' * 61}:a"])
def test_a_plan_has_such_a_name(name: str) -> None:
    """As its files and its workflow's folder are named by it."""
    with pytest.raises(PlanError, match="name it WORKFLOW:MODE"):
        plan_spec(name, lambda plan: None)


@pytest.mark.parametrize("key", ["run", "workflow", "mode"])
def test_a_ledger_that_leads_elsewhere_is_refused(tmp_path: Path, key: str) -> None:
    """Whoever wrote it: a run's papers are named by what its ledger says."""
    path = tmp_path / f"{INFO.run}.sqlite"
    Ledger.create(path, INFO).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE run SET {'id' if key == 'run' else key} = '../../elsewhere'")
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match=f"its {key} .*plain name"):
        ledger.info.read()
