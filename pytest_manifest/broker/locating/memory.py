"""Jobs on kombu's in-memory broker: its queues are in this very process."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pytest_manifest.broker.locating.asking import WorkerLocator
from pytest_manifest.broker.locating.messages import task_id_of
from pytest_manifest.broker.locating.workers import stack_errors, unknown_queues
from pytest_manifest.broker.publisher import Publisher


class MemoryLocator(WorkerLocator):
    """Reads the queues, and asks the workers; what these had taken dies with the process."""

    def __init__(self, publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> None:
        super().__init__(publisher, nodes)
        self._queues = queues

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:
        """What waits in the queues; all of it can be seen."""
        found: dict[str, str] = {}
        with self.publisher.control.channel() as channel:
            for name in self._queues:
                waiting = channel.queues.get(name)
                if waiting is None:
                    continue
                with waiting.mutex:
                    messages = list(waiting.queue)
                for task_id in map(task_id_of, messages):
                    if task_id in wanted:
                        found[task_id] = name
        return found, unknown_queues(self._queues)

    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        """Remove what waits in the queues; see :class:`Locator`."""
        wanted, removed = frozenset(task_ids), []
        with stack_errors(self.publisher), self.publisher.control.channel() as channel:
            for name in self._queues:
                waiting = channel.queues.get(name)
                if waiting is None:
                    continue
                with waiting.mutex:
                    messages = [(task_id_of(message), message) for message in waiting.queue]
                    waiting.queue.clear()
                    waiting.queue.extend(m for task_id, m in messages if task_id not in wanted)
                removed += [task_id for task_id, _ in messages if task_id in wanted]
        return removed
