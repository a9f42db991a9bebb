"""The pages about security: each promise names tests that there are, and its figures are whole."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import pytest

from tests.forgeries.kinds import KINDS
from tests.page_tables import SECURITY, rows, taken

pytestmark = pytest.mark.ring(1)

ROOT = Path(__file__).resolve().parents[2]
WHO = ROOT / "docs" / "explanation" / "security.md"


def names_in(path: Path) -> set[str]:
    """The names of a module's tests."""
    tree = ast.parse(path.read_text("utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_each_promise_names_tests_that_there_are() -> None:
    """In the last column of its row; a promise without one would be held by nobody."""
    with (SECURITY.parent / "tables" / "security.csv").open(encoding="utf-8", newline="") as file:
        promises = list(csv.DictReader(file))
    assert len(promises) > 20
    for one in promises:
        named = [node.split("::") for node in one["tests"].split()]
        assert named, one
        for path, name in named:
            assert name in names_in(ROOT / path), f"{path}::{name}"


def test_the_table_of_forgeries_has_all_kinds_and_no_green_one() -> None:
    """`python -m tests.forgeries` makes it."""
    *each, last = rows(SECURITY, "forgeries")
    head = f"{len(KINDS)} forgeries"
    assert [row[head] for row in each] == [kind.name for kind in KINDS]
    assert "green" not in {row["with"].strip("*") for row in each}
    green = sum(row["without signatures"] == "**green**" for row in each)
    assert (last["without signatures"], last["with"]) == (f"**{green}**", "**0**")
    assert f"**{green}** of 54 ways turn green" in SECURITY.read_text("utf-8")
    assert f"{green} of the [54 ways]" in WHO.read_text("utf-8")
    assert taken(SECURITY, "forgeries").count("\n") == len(KINDS) + 2
