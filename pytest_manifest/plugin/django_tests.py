"""Keep Django's databases apart: the one that jobs write to, and the one of tests.

Warn of tests that look for what jobs wrote in the test database, where no job writes, and refuse
those that would empty the other.
"""

from __future__ import annotations

from typing import Final

import pytest

USERS: Final = frozenset({"db", "transactional_db", "django_db_reset_sequences"})
"""pytest-django's fixtures that open a database to a test; its mark is ``django_db``."""
_WARNED: Final = pytest.StashKey[set[str]]()
EMPTYING: Final = frozenset({"transactional_db", "live_server", "django_db_reset_sequences"})
"""Those of them after which Django empties every table."""


def refuse_to_empty(request: pytest.FixtureRequest) -> None:
    """Fail a test that ends with emptied tables, where these are those that workers write to.

    Call it when the session's databases are set up, and before the test's own.
    """
    marker = request.node.get_closest_marker("django_db")
    named = {} if marker is None else marker.kwargs
    asks = any(named.get(name) for name in ("transaction", "reset_sequences"))
    by_place = marker is not None and any(marker.args[:2])
    if not (asks or by_place) and EMPTYING.isdisjoint(request.fixturenames):
        return
    from pytest_manifest.results.django_results import databases_before, test_databases

    of_tests = test_databases()
    chosen = named.get("databases") or ["default"]
    known = databases_before()
    for alias in known if chosen == "__all__" else [one for one in chosen if one in known]:
        if alias not in of_tests:
            pytest.fail(
                f"refused: Django empties all tables of {known[alias]!r} (DATABASES[{alias!r}]) "
                "after this test, and jobs write there; leave out transaction=True, "
                "transactional_db and live_server, or have the test use a test database",
                pytrace=False,
            )


def warn_of_test_database(item: pytest.Item) -> None:
    """Warn where the test of an entry has a database that is not the one that workers write to.

    Once for each function, which may be the test of a million entries.
    """
    names: set[str] = set(getattr(item, "fixturenames", ()))
    if USERS.isdisjoint(names) and item.get_closest_marker("django_db") is None:
        return
    from pytest_manifest.results.django_results import test_databases

    warned = item.config.stash.setdefault(_WARNED, set())
    function = item.nodeid.partition("[")[0]
    if function in warned:
        return
    warned.add(function)
    for alias, (of_tests, of_workers) in test_databases().items():
        item.warn(
            pytest.PytestWarning(
                f"this test looks at Django's test database {of_tests!r}, and the jobs wrote to "
                f"{of_workers!r} (DATABASES[{alias!r}]): give its folder a conftest.py with a "
                "session fixture 'django_db_setup' that does nothing"
            )
        )
