"""What an engine sees of a simulated world: publisher, locator, receipts stream and results."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.broker.locating.worker_replies import NONE_BEGUN
from pytest_manifest.broker.publisher import PublishResult
from pytest_manifest.broker.transports import transport_of
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.urls import StackAddress
from tests.unit.run_world import How, Message, Record, World


class FakePublisher:
    """The engine's way to send. It may be told that a batch ends uncertain, and what arrives."""

    result_expires = 24 * 3600.0
    address = StackAddress("amqp://box//", "redis://box/1", None, is_private=True)
    transport = transport_of(address.broker_url)

    def __init__(self, world: World) -> None:
        self.world = world

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        world = self.world
        world.asked()
        ids = [attempt.task_id for attempt in attempts]
        if world.clock.now < world.broker_down:
            return PublishResult(unsent=ids, error="publishing failed: no connection")
        world.on_publish(attempts)
        if not world.uncertain:
            self._arrive(attempts, sent_at)
            world.published.update(ids)
            return PublishResult(certain=ids)
        # The number says how the batch is cut in three, and which of the uncertain ones arrive.
        number = world.uncertain.popleft()
        sure = number % 2 if len(ids) > 1 else 0
        unsent = 1 if number % 3 == 2 and len(ids) > sure + 1 else 0
        doubtful = attempts[sure : len(ids) - unsent]
        self._arrive(attempts[:sure], sent_at)
        self._arrive([a for n, a in enumerate(doubtful) if number >> (n + 2) & 1], sent_at)
        world.published.update(ids[: len(ids) - unsent])
        return PublishResult(
            certain=ids[:sure],
            uncertain=[attempt.task_id for attempt in doubtful],
            unsent=ids[len(ids) - unsent :],
            error="publishing failed: the connection broke",
        )

    def _arrive(self, attempts: Sequence[Attempt], sent_at: datetime) -> None:
        for attempt in attempts:
            self.world.landed[attempt.task_id] += 1
            self.world.queue.append(Message(attempt, sent_at))

    def revoke(self, task_ids: Sequence[str], terminate: bool = False) -> None:
        self.world.asked()
        self._reach()
        for worker in self.world.workers.values():
            if worker.works:
                self.world.hear(worker, task_ids)
            elif worker.alive:
                worker.heard |= set(task_ids)

    def queue_lengths(self, names: Sequence[str]) -> dict[str, int]:
        self.world.asked()
        self._reach()
        return {name: len(self.world.queue) for name in names}

    def _reach(self) -> None:
        if self.world.clock.now < self.world.broker_down:
            raise StackError("the broker cannot be reached")


class FakeLocator:
    """Looks into all places of the world; complains of what must not be done to a message."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.discarded: list[str] = []
        self.restored: list[str] = []

    def add_queues(self, names: Iterable[str]) -> None:
        """Change nothing: all places are looked into."""

    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        world = self.world
        world.asked()
        self._reach()
        taken: dict[str, frozenset[str]] = {}
        for tag, message in world.unacked.items():
            if message.task_id in task_ids:
                taken[message.task_id] = taken.get(message.task_id, frozenset()) | {tag}
        nodes = {worker.name for worker in world.workers.values() if worker.works}
        return BrokerSnapshot(
            queued={m.task_id: "celery" for m in world.queue if m.task_id in task_ids},
            unacked=taken,
            reserved={
                d.message.task_id: node
                for node in sorted(nodes)
                for d in world.workers[node].reserved
                if d.message.task_id in task_ids
            },
            running={
                d.message.task_id: node
                for node in sorted(nodes)
                for d in world.workers[node].running
                if d.message.task_id in task_ids
            },
            unresponsive=frozenset(world.workers) - nodes,
            answered=frozenset(nodes),
        )

    def kept(self) -> Mapping[str, frozenset[str]]:
        self.world.asked()
        self._reach()
        found: dict[str, frozenset[str]] = {}
        for tag, message in self.world.unacked.items():
            found[message.task_id] = found.get(message.task_id, frozenset()) | {tag}
        return found

    def restore(
        self, orphans: Mapping[str, Collection[str]], begun: Mapping[str, int] = NONE_BEGUN
    ) -> list[str]:
        done = []
        for task_id, tag, message in self._orphans(orphans):
            del self.world.unacked[tag]
            if message.retries <= begun.get(task_id, -1):
                continue
            if task_id not in done:
                done.append(task_id)
                self.world.queue.appendleft(replace(message, redelivered=True))
        self.restored += done
        return done

    def discard(self, orphans: Mapping[str, Collection[str]]) -> list[str]:
        done = []
        for task_id, tag, _ in self._orphans(orphans, gone=("died", "succeeded", "failed")):
            del self.world.unacked[tag]
            done.append(task_id)
        self.discarded += done
        return done

    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        self.world.asked()
        self._reach()
        found = [message for message in self.world.queue if message.task_id in task_ids]
        for message in found:
            self.world.queue.remove(message)
        return [message.task_id for message in found]

    def listeners(self) -> int | None:
        """Count the workers that are connected."""
        self.world.asked()
        self._reach()
        return sum(worker.alive for worker in self.world.workers.values())

    def close(self) -> None:
        pass

    def _orphans(
        self, orphans: Mapping[str, Collection[str]], gone: Sequence[How] = ("died",)
    ) -> Iterator[tuple[str, str, Message]]:
        self.world.asked()
        self._reach()
        free = set(self.world.orphaned_tags())
        for task_id, tags in orphans.items():
            for tag in sorted(tags):
                message = self.world.unacked.get(tag)
                if message is not None:
                    # A silent node whose pool process died of the job counts as gone with it.
                    died = any(run.how in gone for run in self.world.of(task_id))
                    assert tag in free or died, f"{task_id} was taken from a worker that has it"
                    if tag not in free:
                        self.world.meddled.add(task_id)
                    yield task_id, tag, message

    def _reach(self) -> None:
        if self.world.clock.now < self.world.broker_down:
            raise StackError("the broker cannot be reached")


class FakeStream:
    """The receipts stream, to the real gatherer. Who waits for a record lets the clock go on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.position = "0"

    def begin(self, ttl: int) -> None:
        self.world.began_stream = True

    def trim(self) -> None: ...

    is_overtaken = False

    def announce(self) -> None: ...

    def was_read_on(self) -> bool:
        return False

    def is_intact(self) -> bool:
        self.world.asked()
        self._reach()
        return self.world.began_stream

    def read(self, block_ms: int = 0) -> list[Mapping[str, object]]:
        self.world.asked()
        self._reach()
        records = self._new()
        if not records and block_ms:
            self.world.clock.sleep(block_ms / 1000)
            records = self._new()
        for record in records:
            self.position = str(record.number)
        self.world.read += records
        return [record.raw for record in records]

    def _new(self) -> list[Record]:
        return [one for one in self.world.stream if one.number > int(self.position)]

    def close(self) -> None:
        pass

    def _reach(self) -> None:
        if self.world.clock.now < self.world.store_down:
            raise StackError("the result store cannot be reached")


class FakeResults:
    """The plain results."""

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, task_ids: Sequence[str]) -> dict[str, BackendResult]:
        self.world.asked()
        if self.world.clock.now < self.world.store_down:
            raise StackError("the result store cannot be reached")
        return {i: self.world.results[i] for i in task_ids if i in self.world.results}

    def retried(self, tasks: Mapping[str, str]) -> frozenset[str]:
        return frozenset(tasks) & self.world.retried - self.read(list(tasks)).keys()

    def discard(self, task_ids: Iterable[str]) -> None:
        pass

    def close(self) -> None:
        pass
