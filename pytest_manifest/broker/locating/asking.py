"""Jobs on a broker that shows no messages: only the workers can be asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pytest_manifest.broker.locating.base import BrokerSnapshot, DeliveryTags
from pytest_manifest.broker.locating.workers import WorkerPoller, stack_errors
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.urls import scheme_of


class WorkerLocator:
    """Asks the workers, for any transport. Nothing is put back or removed."""

    def __init__(self, publisher: Publisher, nodes: Collection[str]) -> None:
        self.publisher = publisher
        self._workers = WorkerPoller(publisher, nodes)

    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        """Look at the queues, as far as they can be seen, before and after the workers."""
        wanted = frozenset(task_ids)
        with stack_errors(self.publisher):
            queued, unseen = self.snapshot_queues(wanted)
            said = self._workers.poll(wanted)
            # And again, for one that went back meanwhile: a retry.
            after, still_unseen = self.snapshot_queues(wanted)
        return BrokerSnapshot(
            queued={**queued, **after},
            reserved=said.reserved,
            running=said.running,
            unresponsive=said.unresponsive,
            answered=said.answered,
            blind_spot=still_unseen or unseen or self.missing_consumers(said.answered),
        )

    def restore(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:  # noqa: ARG002
        """Nothing can be put back here."""
        return []

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:  # noqa: ARG002
        """Nothing can be removed here."""
        return []

    def withdraw(self, task_ids: Collection[str]) -> list[str]:  # noqa: ARG002
        """Nothing can be removed here."""
        return []

    def close(self) -> None:
        """Nothing is open but the publisher's connection."""

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:  # noqa: ARG002
        """Task id -> queue for what can be seen, and a phrase for what cannot."""
        scheme = scheme_of(self.publisher.address.broker_url)
        return {}, f"a broker reached by {scheme}:// does not show which messages wait in a queue"

    def missing_consumers(self, answered: frozenset[str]) -> str:  # noqa: ARG002
        """A phrase for consumers that the broker knows of and that have not answered."""
        return ""
