"""The views of a ledger for other people's SQL: what the page says of them, and its queries."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.house.conftest import ROOT
from tests.unit.record_support import write_record

PAGE = (ROOT / "docs" / "reference" / "ledger.md").read_text("utf-8")
QUERIES = re.findall(r"^```sql [^\n]*\n(.*?);\n```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("views"))


def documented(view: str) -> list[str]:
    """The columns of a view, as its table of the page has them."""
    section = PAGE.split(f"## {view}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def asked(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


@pytest.mark.parametrize("view", ["v_entries", "v_attempts", "v_causes"])
def test_each_column_is_documented_in_its_order(path: Path, view: str) -> None:
    found = [row[1] for row in asked(path, f"PRAGMA table_info({view})")]
    assert documented(view) == found


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_of_the_page_find_something(path: Path, query: str) -> None:
    assert asked(path, query)


def test_there_is_a_query_of_what_did_not_pass() -> None:
    assert len(QUERIES) == 2


def test_each_table_is_named(path: Path) -> None:
    tables = asked(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    named = re.findall(r"^\| `(\w+)` \|", PAGE.split("## The tables")[1], re.MULTILINE)
    assert [row[0] for row in tables] == sorted(named)


def test_an_entry_is_there_with_its_last_verdict(path: Path) -> None:
    query = "SELECT status, attempt, attempts FROM v_entries WHERE entry = 'once'"
    assert asked(path, query) == [("failed", 2, 2)]


def test_each_attempt_is_there_with_its_own(path: Path) -> None:
    query = """
        SELECT attempt, state, status, asked_for, starts FROM v_attempts WHERE entry = 'once'
        ORDER BY attempt
    """
    assert asked(path, query) == [(1, "sent", "failed", 0, 1), (2, "sent", "failed", 1, 1)]
