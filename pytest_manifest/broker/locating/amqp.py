"""Locate jobs on RabbitMQ, which counts the messages of a queue but does not show them.

Where none waits and every consumer has answered, that is enough. Nothing is ever put back: the
broker itself gives to others what a consumer held whose connection has ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from pytest_manifest.broker.locating import worker_replies
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import QUESTIONS, workers_of
from pytest_manifest.compat.kombu import delaying_queues

Count = tuple[str, int, int]
"""A queue's name, and how many messages and consumers the broker counts."""
GREEN: Final = ("gevent", "eventlet")
"""Pools whose workers answer in a greenlet of its own, whatever keeps that which reads messages."""


class AmqpLocator(worker_replies.WorkerLocator):
    """Count what waits in the queues, and ask the workers."""

    def __init__(self, publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> None:
        super().__init__(publisher, queues, nodes)
        self._consumers: dict[str, int] = {}
        self._pools: dict[str, str] = {}

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:  # noqa: ARG002
        """Count the waiting messages: none can be seen, and nothing is hidden where none waits."""
        counts = [*self._counts(self.queues), *self._counts(delaying_queues(), all_or_none=True)]
        self._consumers = {name: consumers for name, _, consumers in counts}
        waiting = ", ".join(
            f"{messages} {'waits' if messages == 1 else 'wait'} in {name!r}"
            for name, messages, _ in counts
            if messages
        )
        if not waiting:
            return {}, worker_replies.unknown_queues(self.queues)
        return {}, f"RabbitMQ does not show which messages wait in a queue ({waiting})"

    def missing_consumers(self, answered: frozenset[str]) -> str:
        """Say where a queue has more consumers than nodes have answered, known or not."""
        for name, consumers in self._consumers.items():
            if consumers > len(answered):
                missing = consumers - len(answered)
                return f"{missing} of the {consumers} consumers of queue {name!r} did not answer"
        return ""

    def unread_messages(self, answered: frozenset[str]) -> str:
        """Say which workers of greenlets run or hold a job.

        Such a worker stops reading while its pool is full: what the broker has given it meanwhile
        lies unread, and it answers all the same. One that has nothing to do has read everything.
        """
        self._learn_pools(answered)
        for node in sorted(self._workers.busy):
            pool = self._pools.get(node)
            if pool is None:
                return f"worker {node!r} has not reported what pool it has"
            if pool in GREEN:
                return f"worker {node!r} may have messages that it reads later, as its pool is full"
        return ""

    def _learn_pools(self, nodes: Collection[str]) -> None:
        """Ask the nodes whose pool is not known, for a second at most."""
        unknown = [node for node in nodes if node not in self._pools]
        if not unknown:
            return
        answers = self.publisher.control.call(
            {"stats": QUESTIONS["stats"]},
            timeout=worker_replies.TIMEOUT,
            enough=lambda found, quiet: (
                found["stats"].keys() >= set(unknown)
                and (math.isinf(quiet) or quiet >= worker_replies.QUIET_TIME)
            ),
        )
        workers = workers_of({question: {} for question in QUESTIONS} | answers)
        self._pools |= {name: one.pool for name, one in workers.items() if one.has_stats}

    def _counts(self, names: Sequence[str], *, all_or_none: bool = False) -> Iterator[Count]:
        for name in names:
            found = self.publisher.control.count(name)
            if found is not None:
                yield name, *found
            elif all_or_none:
                return
