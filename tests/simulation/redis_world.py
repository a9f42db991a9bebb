"""The simulated world on a Redis that is simulated, too: what waits, is taken, told and stored.

Queue, ``unacked``, stream and results are keys of a server of fakeredis, in the form in which kombu
and Celery keep them; ``test_fake_redis.py`` holds that form, and the server, to a real Valkey.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol, cast

from fakeredis import FakeRedis, FakeServer
from redis import ConnectionError as BrokenError
from redis import Redis

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.broker.locating.redis import parse_json, task_id_of, unacked_message
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.schema.wire import stream_key
from tests.simulation.world import SimulatedWorld
from tests.unit.run_world import Message, Record

QUEUE = "celery"
BROKER_DB, STORE_DB = 0, 1
STATES = {"succeeded": "SUCCESS", "revoked": "REVOKED"}
"""What Celery calls final states; others are failures."""


class Cut:
    """Breaks a connection once: before a command is sent, or after so many replies."""

    def __init__(self, *, replies: int | None) -> None:
        self._replies = replies

    def sending(self) -> None:
        """Something is about to be sent; raises ConnectionError where that breaks off."""
        if self._replies is None:
            raise BrokenError("the connection broke")

    def reading(self) -> None:
        """A reply is about to be read; raises ConnectionError where none comes any more."""
        if self._replies is not None:
            self._replies -= 1
            if self._replies < 0:
                raise BrokenError("the connection broke")


@dataclass(eq=False)
class RawMessage(Message):
    """A message as the broker has it."""

    raw: bytes = b""


class Registry(Protocol):
    """Knows what was sent, and what time it is."""

    sent: dict[str, Message]

    def timestamp(self) -> float: ...


def message_of(registry: Registry, raw: bytes) -> RawMessage:
    """Read a message of the broker."""
    document = json.loads(raw)
    first = registry.sent[str(task_id_of(document))]
    headers, info = document["headers"], document["properties"]["delivery_info"]
    again = bool(headers.get("redelivered") or info.get("redelivered"))
    return RawMessage(first.attempt, first.sent_at, int(headers.get("retries") or 0), again, raw)


def raw_of(message: Message) -> bytes:
    """Write a message as its sender, a retry or a redelivery has changed it."""
    document = json.loads(cast("RawMessage", message).raw)
    document["headers"]["retries"] = message.retries
    if message.redelivered:
        document["headers"]["redelivered"] = True
        document["properties"]["delivery_info"]["redelivered"] = True
    return json.dumps(document).encode()


class Waiting:
    """The queue, the next message first: the right end of the list."""

    def __init__(self, client: Redis, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    def __iter__(self) -> Iterator[Message]:
        raws = cast("list[bytes]", self._client.lrange(QUEUE, 0, -1))
        return (message_of(self._registry, raw) for raw in reversed(raws))

    def __len__(self) -> int:
        return self._client.llen(QUEUE)

    def __getitem__(self, number: int) -> Message:
        return list(self)[number]

    def popleft(self) -> Message:
        return message_of(self._registry, cast("bytes", self._client.rpop(QUEUE)))

    def append(self, message: Message) -> None:
        self._client.lpush(QUEUE, raw_of(message))

    def appendleft(self, message: Message) -> None:
        self._client.rpush(QUEUE, raw_of(message))

    def remove(self, message: Message) -> None:
        self._client.lrem(QUEUE, 1, cast("str", cast("RawMessage", message).raw))

    def clear(self) -> None:
        self._client.flushdb()


class Taken(MutableMapping[str, Message]):
    """What the broker keeps for workers, by delivery tag."""

    def __init__(self, client: Redis, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    def __getitem__(self, tag: str) -> Message:
        value = cast("bytes | None", self._client.hget("unacked", tag))
        if value is None:
            raise KeyError(tag)
        return message_of(self._registry, json.dumps(unacked_message(value)).encode())

    def __setitem__(self, tag: str, message: Message) -> None:
        value = json.dumps([parse_json(raw_of(message)), "", QUEUE])
        self._client.hset("unacked", tag, value)
        self._client.zadd("unacked_index", {tag: self._registry.timestamp()})

    def __delitem__(self, tag: str) -> None:
        if not self._client.hdel("unacked", tag):
            raise KeyError(tag)
        self._client.zrem("unacked_index", tag)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(tag.decode() for tag in cast("Iterable[bytes]", self._keys())))

    def __len__(self) -> int:
        return self._client.hlen("unacked")

    def _keys(self) -> object:
        return self._client.hkeys("unacked")


class QuickWaiting(Waiting):
    """The queue of a fake server, whose length is read without a command.

    A fair world asks for it in each moment, which were half of all commands.
    """

    def __init__(self, server: FakeServer, client: Redis, registry: Registry) -> None:
        super().__init__(client, registry)
        self._keys = server.dbs[BROKER_DB]

    def __len__(self) -> int:
        item = self._keys.get(QUEUE.encode())
        return 0 if item is None else len(item.value)


class QuickTaken(Taken):
    """What a fake server keeps for workers, whose tags are read without a command."""

    def __init__(self, server: FakeServer, client: Redis, registry: Registry) -> None:
        super().__init__(client, registry)
        self._kept = server.dbs[BROKER_DB]

    def _keys(self) -> object:
        item = self._kept.get(b"unacked")
        return () if item is None else item.value.keys()


KINDS: Final = {"revoked": "TaskRevokedError", "crashed": "WorkerLostError"}
"""Exceptions by which Celery says what became of a job."""


class Stored(dict[str, BackendResult]):
    """The results that workers store; of each its document, too."""

    def __init__(self, client: Redis) -> None:
        super().__init__()
        self._client = client

    def __setitem__(self, task_id: str, result: BackendResult) -> None:
        super().__setitem__(task_id, result)
        value: object = result.result
        if result.state != "succeeded":
            kind = KINDS.get(result.state, "Boom")
            value = {"exc_type": kind, "exc_message": ["no"], "exc_module": "builtins"}
        document = {
            "status": STATES.get(result.state, "FAILURE"),
            "result": value,
            "task_id": task_id,
            "traceback": None,
            "children": [],
            "date_done": result.finished_at and result.finished_at.isoformat(),
        }
        self._client.set(f"celery-task-meta-{task_id}", json.dumps(document))


class RedisWorld(SimulatedWorld):
    """A world whose broker and store are databases of one fake server."""

    def __init__(self) -> None:
        super().__init__()
        self.server = FakeServer()
        self.broker = FakeRedis(server=self.server, db=BROKER_DB)
        self.store = FakeRedis(server=self.server, db=STORE_DB)
        self.sent: dict[str, Message] = {}
        """Task id -> its message, as it was sent first."""
        self.queue = cast("deque[Message]", QuickWaiting(self.server, self.broker, self))
        self.unacked = cast("dict[str, Message]", QuickTaken(self.server, self.broker, self))
        self.results = Stored(self.store)
        self.cut: Cut | None = None
        """What breaks the connection that is published over."""
        self._ids: dict[int, str] = {}

    def timestamp(self) -> float:
        """Give the time by the wall's clock, s since 1970."""
        return self.clock.utc_now().timestamp()

    def forget_process(self) -> None:
        self.cut = None

    def sends(self, attempts: Collection[Attempt], sent_at: datetime) -> None:
        """Know these messages again, should they arrive."""
        for one in attempts:
            self.sent[one.task_id] = Message(one, sent_at)

    def position(self, text: str) -> int:
        """Give the number of the last record that is not after this position of the stream."""
        until = _key(text)
        return max((number for number, one in self._ids.items() if _key(one) <= until), default=0)

    def flush(self, *, everything: bool) -> None:
        super().flush(everything=everything)
        self.store.flushdb()
        self._ids.clear()
        # Ids are times of the wall's clock: none that comes is below what was read before.
        emptied = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == emptied:
            pass

    def _append(self, record: Record) -> None:
        record = replace(record, number=next(self._numbers))
        self.stream.append(record)
        run = record.raw.get("run") or self.sent[record.task_id].attempt.run
        identity = self.store.xadd(stream_key(str(run)), {STREAM_FIELD: json.dumps(record.raw)})
        self._ids[record.number] = cast("bytes", identity).decode()

    def poll(self, wanted: Collection[str]) -> BrokerSnapshot:
        """Answer as the workers would that can."""
        nodes = [worker for worker in self.workers.values() if worker.works]
        reserved = {d.message.task_id: one.name for one in nodes for d in one.reserved}
        running = {d.message.task_id: one.name for one in nodes for d in one.running}
        answered = frozenset(worker.name for worker in nodes)
        return BrokerSnapshot(
            reserved={i: name for i, name in reserved.items() if i in wanted},
            running={i: name for i, name in running.items() if i in wanted},
            unresponsive=frozenset(self.workers) - answered,
            answered=answered,
        )


def _key(identity: str) -> tuple[int, int]:
    moment, _, number = identity.partition("-")
    return int(moment), int(number or 0)
