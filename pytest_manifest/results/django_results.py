"""Read results of django-celery-results from the databases that the workers use.

In a test session Django's connections are not what they are in a worker: pytest-django refuses
them outside of tests with a mark, and leads them to a test database within. So results are read by
connections of their own, made from the settings as they were before that.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_manifest.process_state import ProcessState

if TYPE_CHECKING:
    from celery.backends.base import Backend

PACKAGE: Final = "django_celery_results"


_before: Final = ProcessState(dict[str, dict[str, object]])
"""``settings.DATABASES`` before anything exchanged a database for one of tests."""


def remember_databases() -> None:
    """Keep Django's ``DATABASES`` as they are now, where Django is configured; later calls do not.

    Whoever makes a test database writes its name into the same dictionaries.
    """
    conf = sys.modules.get("django.conf")
    known = _before.now
    if not known and conf is not None and conf.settings.configured:
        known.update(copy.deepcopy(conf.settings.DATABASES))


def databases_before() -> dict[str, str]:
    """Map alias -> name of the database that workers use, as far as it was noted."""
    return {alias: str(one.get("NAME")) for alias, one in _before.now.items()}


def test_databases() -> dict[str, tuple[str, str]]:
    """Map alias -> (name of the test database in use now, name before), for those that differ."""
    conf = sys.modules.get("django.conf")
    if not _before.now or conf is None:
        return {}
    now: Mapping[str, Mapping[str, object]] = conf.settings.DATABASES
    names = {
        alias: (str(now.get(alias, {}).get("NAME")), str(old.get("NAME")))
        for alias, old in _before.now.items()
    }
    return {alias: both for alias, both in names.items() if both[0] != both[1]}


class WorkersDatabases:
    """A block in which this thread's Django connections lead where those of workers lead.

    The same object may be used for many blocks, whose connections stay open between them.
    """

    def __init__(self) -> None:
        self._ours: dict[str, Any] = {}
        self._thread = 0
        self._others: dict[str, Any] = {}

    def __enter__(self) -> None:
        from django.db import connections

        remember_databases()
        if self._thread != threading.get_ident():  # a connection is for the thread that made it
            self._ours, self._thread = _connections(), threading.get_ident()
        for alias, connection in self._ours.items():
            self._others[alias] = connections[alias]
            connections[alias] = connection

    def __exit__(self, *_: object) -> None:
        from django.db import connections

        for alias, connection in self._others.items():
            connections[alias] = connection
        self._others.clear()

    def close(self) -> None:
        """End the connections; call it in the thread that used them."""
        if self._thread == threading.get_ident():
            for connection in self._ours.values():
                connection.close()
        self._ours, self._thread = {}, 0


def _connections() -> dict[str, Any]:
    """Make a connection for each alias, not open yet."""
    from django.db.utils import ConnectionHandler, load_backend

    settings = ConnectionHandler(copy.deepcopy(_before.now)).settings
    return {
        alias: _allowed(load_backend(one["ENGINE"]).DatabaseWrapper)(one, alias)
        for alias, one in settings.items()
    }


def _allowed(engine: Any) -> Any:
    """Extend an engine, as third parties' engines do, so that it connects whenever it is to.

    pytest-django refuses connections in the method of all engines' base class.
    """

    def ensure_connection(self: Any) -> None:
        if self.connection is None:
            self.connect()

    return type("DatabaseWrapper", (engine,), {"ensure_connection": ensure_connection})


def is_of_django(backend: Backend) -> bool:
    """Tell whether a result backend keeps results by Django's models."""
    return type(backend).__module__.startswith(PACKAGE) and hasattr(backend, "TaskModel")
