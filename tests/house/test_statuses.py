"""A status is a row of one table, and its rule: no other module says which statuses are alike."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from pytest_manifest.schema import statuses
from pytest_manifest.schema.statuses import STATUSES, Outcome, VerdictStatus
from tests.house.conftest import ROOT

PACKAGE = ROOT / "pytest_manifest"
TABLE = Path(statuses.__file__)
WITHOUT_VERDICTS = ("broker", "results", "stack", "worker")
"""They know the states of jobs, which share some names, and no verdict."""
WORDS = {*get_args(VerdictStatus)}
OWN_WORDS = WORDS - {*get_args(Outcome)}
"""What nothing else is called."""


def words(nodes: Iterable[ast.AST | None]) -> set[str]:
    texts = (one.value for one in nodes if isinstance(one, ast.Constant))
    return {text for text in texts if isinstance(text, str)} & WORDS


def sets_of_statuses(tree: ast.AST) -> Iterator[str]:
    """Yield each set, list, table and statement in SQL that spells several statuses."""
    for node in ast.walk(tree):
        found: set[str] = set()
        match node:
            case ast.Set(elts=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
                found = words(parts)
            case ast.Dict(keys=keys):
                found = words(keys)
            case ast.Constant(value=str(text)):
                found = set(re.findall(r"'(\w+)'", text)) & WORDS
        if len(found) > 1 and found & OWN_WORDS:
            yield f"{', '.join(sorted(found))}"


def test_no_other_module_has_a_set_of_statuses() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {one}"
        for path in PACKAGE.rglob("*.py")
        if path != TABLE and path.relative_to(PACKAGE).parts[0] not in WITHOUT_VERDICTS
        for one in sets_of_statuses(ast.parse(path.read_text("utf-8")))
    }
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "FINAL = frozenset({'lost', 'crashed'})",
        "if status in ('unknown', 'pending'): ...",
        "WORDS = {'lost': 'was lost', 'forged': 'is forged'}",
        "ORDER = [*('failed', 'timed_out')]",
        """QUERY = "SELECT entry FROM settled WHERE kind NOT IN ('pending', 'unknown')" """,
        """QUERY = f"SELECT entry FROM {table} WHERE kind IN ('passed', 'lost') AND {more}" """,
    ],
)
def test_a_new_set_is_found(code: str) -> None:
    assert list(sets_of_statuses(ast.parse(code)))


def test_a_status_is_a_row() -> None:
    """What a type checker reads, and what the table says, are the same."""
    assert set(STATUSES) == set(get_args(VerdictStatus))
    assert all(one.words for one in STATUSES.values())
    assert [name for name, one in STATUSES.items() if not one.title] == ["passed"]
