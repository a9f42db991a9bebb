"""Reading stored results, from stores that need no server."""

from __future__ import annotations

from celery import Celery
from celery.backends.base import KeyValueStoreBackend

from pytest_manifest.results.backend_results import KeyValueSource
from pytest_manifest.results.records import ReadErrors


class OneByOne(KeyValueStoreBackend):  # type: ignore[misc]  # Celery has no types
    """A store that gives one value at a time, as that of S3 and that of Django's cache do."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app=app)
        self.kept: dict[object, object] = {}

    def get(self, key: object) -> object:
        return self.kept.get(key)

    def set(self, key: object, value: object) -> None:
        self.kept[key] = value


def test_a_store_that_cannot_give_several_is_asked_for_each() -> None:
    """Celery's base class refuses to; what is not there is left out."""
    backend = OneByOne(Celery(set_as_current=False))
    backend.store_result("here", 5, "SUCCESS")
    found = KeyValueSource(backend, ReadErrors()).read(["here", "not here"])
    assert {task_id: meta["result"] for task_id, meta in found.items()} == {"here": 5}
