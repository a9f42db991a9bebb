"""``manifest new --sql`` on a server's database."""

from __future__ import annotations

import psycopg
import pytest

from pytest_manifest.cli.new import sql_rows
from pytest_manifest.errors import PlanError

pytestmark = [pytest.mark.live, pytest.mark.postgres, pytest.mark.ring(1)]


def test_a_query_changes_nothing(postgres_url: str) -> None:
    """What it calls that would is refused by the database; what only reads is read."""
    address = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE SEQUENCE untouched")
        try:
            with (
                pytest.raises(PlanError, match=r"in a read-only transaction\); correct it"),
                sql_rows("SELECT nextval('untouched') AS n", address) as found,
            ):
                list(found.rows)
            with sql_rows("SELECT last_value, is_called FROM untouched", address) as found:
                rows = [row.values for row in found.rows]
        finally:
            database.execute("DROP SEQUENCE untouched")
    assert rows == [{"last_value": 1, "is_called": False}]
