"""A look that ends, also where the broker has stopped to answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pytest_manifest.broker.locating.base import BrokerSnapshot, DeliveryTags, Locator
from pytest_manifest.broker.publisher import Publisher


class BoundedLocator:
    """Another locator, whose calls wait only as long as the publisher's do."""

    def __init__(self, publisher: Publisher, inner: Locator) -> None:
        self._publisher = publisher
        self._inner = inner

    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        """See :class:`Locator`, as for the others."""
        wanted = frozenset(task_ids)
        return self._publisher.call(lambda: self._inner.snapshot(wanted))

    def restore(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        return self._publisher.call(lambda: self._inner.restore(orphans))

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        return self._publisher.call(lambda: self._inner.discard(orphans))

    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        wanted = frozenset(task_ids)
        return self._publisher.call(lambda: self._inner.withdraw(wanted))

    def close(self) -> None:
        self._inner.close()
