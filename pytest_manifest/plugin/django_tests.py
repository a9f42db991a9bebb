"""Warn of tests that look for what jobs wrote where no job writes: in Django's test database."""

from __future__ import annotations

from typing import Final

import pytest

USERS: Final = frozenset({"db", "transactional_db", "django_db_reset_sequences"})
"""pytest-django's fixtures that open a database to a test; its mark is ``django_db``."""


def warn_of_test_database(item: pytest.Item) -> None:
    """Warn where the test of an entry has a database that is not the one that workers write to."""
    names: set[str] = set(getattr(item, "fixturenames", ()))
    if USERS.isdisjoint(names) and item.get_closest_marker("django_db") is None:
        return
    from pytest_manifest.results.django_results import test_databases

    for alias, (of_tests, of_workers) in test_databases().items():
        item.warn(
            pytest.PytestWarning(
                f"this test looks at Django's test database {of_tests!r}, and the jobs wrote to "
                f"{of_workers!r} (DATABASES[{alias!r}]): to see what they wrote, give the folder "
                "of this test a conftest.py with a session fixture 'django_db_setup' that does "
                "nothing"
            )
        )
