"""Read the envelopes of kombu's virtual transports, and locate jobs on its in-memory one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from pytest_manifest.broker.locating.worker_replies import (
    WorkerLocator,
    stack_errors,
    unknown_queues,
)
from pytest_manifest.broker.publisher import Publisher


def parse_json(raw: object) -> object:
    """Parse bytes as JSON; None where they are none."""
    if not isinstance(raw, bytes):
        return None
    try:
        found: object = json.loads(raw)
    except ValueError:
        return None
    return found


def unacked_message(raw: object) -> object:
    """Take the message out of a value of the ``unacked`` hash (message, exchange, routing key)."""
    parts = parse_json(raw)
    return parts[0] if isinstance(parts, list) and parts else None


def task_id_of(message: object) -> str | None:
    """Read the task id of a message, under either version of Celery's message protocol."""
    if not isinstance(message, dict):
        return None
    for part, name in (("headers", "id"), ("properties", "correlation_id")):
        fields = message.get(part)
        if isinstance(fields, dict) and isinstance(fields.get(name), str):
            return str(fields[name])
    return None


class MemoryLocator(WorkerLocator):
    """Read the queues, and ask the workers; what these had taken dies with the process."""

    def __init__(self, publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> None:
        super().__init__(publisher, nodes)
        self._queues = list(queues)

    def add_queues(self, names: Iterable[str]) -> None:
        """Look into these queues, too; see :class:`Locator`."""
        self._queues += [name for name in names if name not in self._queues]

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:
        """Map task id -> queue for what waits; all of it can be seen."""
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
