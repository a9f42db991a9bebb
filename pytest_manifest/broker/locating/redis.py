"""Locate jobs on a Redis broker, where all can be seen, and restore what dead workers had.

kombu keeps a queue in one list for each priority step, and what a worker has taken and not
acknowledged in the ``unacked`` hash, by delivery tag. A dead worker does not come back for it;
others get it when the visibility timeout is over, an hour by default.

Read the envelopes of kombu's virtual transports, and locate jobs on its in-memory one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from loguru import logger
from redis import Redis, ResponseError

from pytest_manifest.broker.locating.base import BrokerSnapshot, DeliveryTags
from pytest_manifest.broker.locating.worker_replies import (
    NONE_BEGUN,
    WorkerLocator,
    bounded,
    may_be_alive,
    unknown_queues,
    unresponsive_nodes,
)
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.transports import REDIS_VISIBILITY
from pytest_manifest.compat.kombu import is_bound, restore_unacked

if TYPE_CHECKING:
    from queue import Queue

    from kombu.transport.redis import Channel
    from redis.client import Pipeline


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

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:
        """Map task id -> queue for what waits; all of it can be seen."""
        found: dict[str, str] = {}
        for name, waiting in self._waiting():
            with waiting.mutex:
                messages = list(waiting.queue)
            for task_id in map(task_id_of, messages):
                if task_id in wanted:
                    found[task_id] = name
        return found, unknown_queues(self.queues)

    def _waiting(self) -> Iterator[tuple[str, Queue[object]]]:
        """Yield the queues that there are."""
        with self.publisher.control.channel() as channel:
            for name in self.queues:
                if (waiting := channel.queues.get(name)) is not None:
                    yield name, waiting

    @bounded
    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        """Remove what waits in the queues; see :class:`WorkerLocator`."""
        wanted, removed = frozenset(task_ids), []
        for _, waiting in self._waiting():
            with waiting.mutex:
                messages = [(task_id_of(message), message) for message in waiting.queue]
                waiting.queue.clear()
                waiting.queue.extend(m for task_id, m in messages if task_id not in wanted)
            removed += [task_id for task_id, _ in messages if task_id in wanted]
        return removed


FIRST_CHUNK: Final = 4
LARGEST_CHUNK: Final = 200
SCAN: Final = 64
CHUNK_BYTES: Final = 4 << 20
"""What one round trip should bring at most: a queue may hold gigabytes."""


class RedisLocator(WorkerLocator):
    """Read the queues' lists and the ``unacked`` hash, and ask the workers."""

    @bounded
    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        """Take a snapshot in the order in which a job moves, so that none slips by."""
        wanted = frozenset(task_ids)
        with self._broker() as broker:
            queued, taken = broker.queued(self.queues, wanted), broker.unacked(wanted)
        said = self._workers.poll(wanted)
        missing = wanted - queued.keys() - taken.keys() - said.reserved.keys() - said.running.keys()
        if missing:
            # And again, for one that went back meanwhile (retried, or restored elsewhere); and
            # in all other queues of the app, for one that its task has sent elsewhere.
            everywhere = dict.fromkeys([*self.queues, *self.publisher.app.amqp.queues])
            with self._broker() as broker:
                queued |= broker.queued(list(everywhere), missing)
                taken |= broker.unacked(missing)
        since = {one: moment for one, tags in taken.items() if (moment := _last_delivery(tags))}
        had = queued.keys() | said.reserved.keys() | said.running.keys()
        is_asked = bool(wanted - had)
        unheard = frozenset[str]()
        if is_asked:
            silent = unresponsive_nodes(self.publisher, said.answered)
            longest = time.time() - min(since.values(), default=time.time())
            if may_be_alive(self.publisher, silent, said.answered, longest):
                unheard = silent
        options = self.publisher.app.conf.broker_transport_options or {}
        return replace(
            said,
            queued=queued,
            unacked=taken,
            unresponsive=said.unresponsive | unheard,
            blind_spot=unknown_queues(self.queues),
            delivered_at=since,
            maybe_alive=unheard,
            absent=said.unresponsive if is_asked and not unheard else frozenset(),
            visibility_timeout=float(options.get("visibility_timeout") or REDIS_VISIBILITY),
        )

    @bounded
    def kept(self) -> Mapping[str, DeliveryTags]:
        """Return what is in the ``unacked`` hash; see :class:`WorkerLocator`."""
        with self._broker() as broker:
            return broker.unacked()

    def restore(
        self, orphans: Mapping[str, DeliveryTags], begun: Mapping[str, int] = NONE_BEGUN
    ) -> list[str]:
        """Put back what is still there under these tags; see :class:`WorkerLocator`."""

        def act(broker: _RedisBroker, task_id: str, takings: DeliveryTags) -> bool:
            return broker.restore_one(task_id, takings, begun.get(task_id))

        return self._each(orphans, act, "a worker had {}; it is back in its queue")

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        """Remove what is still there under these tags; see :class:`WorkerLocator`."""
        return self._each(
            orphans, _RedisBroker.discard_all, "a worker had {}; the message was removed"
        )

    @bounded
    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        """Remove what waits in a queue; see :class:`WorkerLocator`."""
        everywhere = dict.fromkeys([*self.queues, *self.publisher.app.amqp.queues])
        with self._broker() as broker:
            return broker.withdraw(list(everywhere), frozenset(task_ids))

    @bounded
    def _each(
        self,
        orphans: Mapping[str, DeliveryTags],
        act: Callable[[_RedisBroker, str, DeliveryTags], bool],
        words: str,
    ) -> list[str]:
        done = []
        with self._broker() as broker:
            for task_id, tags in orphans.items():
                if tags and act(broker, task_id, tags):
                    done.append(task_id)
                    logger.bind(task_id=task_id).info(words, task_id)
        return done

    @contextmanager
    def _broker(self) -> Iterator[_RedisBroker]:
        with (
            self.publisher.control.channel() as channel,
            channel.conn_or_acquire() as client,
            # kombu's own client puts the app's key prefix before some commands and not others.
            Redis(connection_pool=client.connection_pool) as plain,
        ):
            yield _RedisBroker(self.publisher, channel, plain)


class _RedisBroker:
    """One channel, and a client of its connection pool that is given whole keys."""

    def __init__(self, publisher: Publisher, channel: Channel, client: Redis) -> None:
        self._app = publisher.app
        self._channel = channel
        self._client = client
        self._unacked = self._key(channel.unacked_key)
        self._index = self._key(channel.unacked_index_key)

    def queued(self, queues: Sequence[str], task_ids: Container[str]) -> dict[str, str]:
        """Map task id -> queue in which it waits, at any priority."""
        found = {}
        for queue, key in self._lists(queues):
            for raw in self._items(key):
                task_id = task_id_of(parse_json(raw))
                if task_id is not None and task_id in task_ids:
                    found[task_id] = queue
        return found

    def _lists(self, queues: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield queues with the keys of the lists in which their messages wait, by priority."""
        for queue in queues:
            for step in self._channel.priority_steps:
                yield queue, self._key(f"{queue}{self._channel.sep}{step}" if step else queue)

    def withdraw(self, queues: Sequence[str], task_ids: Container[str]) -> list[str]:
        """Remove what waits in these queues; the task ids of what was there and is no more."""
        removed = []
        for _, key in self._lists(queues):
            start, size = 0, FIRST_CHUNK
            while chunk := self._range(key, start, start + size - 1):
                # From the head: so each is found where the search begins.
                found = {raw: i for raw in chunk if (i := task_id_of(parse_json(raw))) in task_ids}
                for raw, task_id in found.items():
                    if task_id and self._client.lrem(key, 1, raw):  # type: ignore[arg-type]  # bytes are taken, too
                        removed.append(task_id)
                start, size = start + len(chunk) - len(found), _next_size(size, chunk)
        return removed

    def unacked(self, task_ids: Container[str] | None = None) -> dict[str, DeliveryTags]:
        """Map task id -> deliveries: the tag, and the time at which a worker took the message.

        Of these tasks, of all for None.

        A message that was put back keeps its tag, so the next worker takes it under the same one.
        """
        found: dict[str, DeliveryTags] = {}
        for raw_tag, raw in self._client.hscan_iter(self._unacked, count=SCAN):
            task_id = task_id_of(unacked_message(raw))
            if task_id is not None and (task_ids is None or task_id in task_ids):
                taking = self._delivery(raw_tag.decode())
                found[task_id] = found.get(task_id, DeliveryTags()) | {taking}
        return found

    def restore_one(self, task_id: str, takings: DeliveryTags, begun: int | None) -> bool:
        """Put the message back, to be taken next; whether this was done now, and by us.

        Each taking is a copy of it: only the first goes back, so that it runs once. Not what has
        ``begun`` before.
        """
        done = frozenset(one for one in takings if self._has_begun(one, task_id, begun))
        self.discard_all(task_id, done)
        if done == takings:
            return False
        first, *copies = sorted(takings - done)
        tag = _tag_of(first)
        raw = self._message(first, task_id)
        if raw is None:
            return False
        if not self._is_bound(raw):
            # kombu would remove it, and put it nowhere.
            logger.error("{} stays unacknowledged: no queue is bound to where it was sent", task_id)
            return False
        with self._channel.conn_or_acquire() as client:
            guarded = _ConditionalTransaction(
                client, lambda: self._message(first, task_id) is not None
            )
            restore_unacked(self._channel, tag, guarded)
        if guarded.done:
            self.discard_all(task_id, frozenset(copies))
        return guarded.done

    def _has_begun(self, taking: str, task_id: str, begun: int | None) -> bool:
        message = None if begun is None else unacked_message(self._message(taking, task_id))
        headers = message.get("headers") if isinstance(message, dict) else None
        retries = headers.get("retries") if isinstance(headers, dict) else None
        return isinstance(retries, int) and begun is not None and retries <= begun

    def discard_all(self, task_id: str, takings: DeliveryTags) -> bool:
        """Remove the message and its copies; whether any was there."""
        done = [self._discard(taking, task_id) for taking in sorted(takings)]
        return any(done)

    def _discard(self, taking: str, task_id: str) -> bool:
        def remove(pipe: Pipeline) -> None:
            pipe.multi()
            pipe.zrem(self._index, _tag_of(taking))
            pipe.hdel(self._unacked, _tag_of(taking))

        guarded = _ConditionalTransaction(
            self._client, lambda: self._message(taking, task_id) is not None
        )
        guarded.transaction(remove, self._unacked)
        return guarded.done

    def _message(self, taking: str, task_id: str) -> bytes | None:
        """Read the message kept since this delivery, if it is still there and of this task."""
        tag = _tag_of(taking)
        raw = self._client.hget(self._unacked, tag)
        same = task_id_of(unacked_message(raw)) == task_id and self._delivery(tag) == taking
        return raw if isinstance(raw, bytes) and same else None

    def _delivery(self, tag: str) -> str:
        return f"{tag} {self._client.zscore(self._index, tag)}"

    def _key(self, name: str) -> str:
        return f"{self._channel.global_keyprefix or ''}{name}"

    def _items(self, key: str) -> Iterator[bytes]:
        """Read all messages of a list, a chunk at a time.

        From the left, where new ones come in and none is taken: what shifts is seen twice, never
        missed.
        """
        start, size = 0, FIRST_CHUNK
        while chunk := self._range(key, start, start + size - 1):
            yield from chunk
            start, size = start + len(chunk), _next_size(size, chunk)

    def _range(self, key: str, first: int, last: int) -> list[bytes]:
        try:
            return cast("list[bytes]", self._client.lrange(key, first, last))
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                return []  # a key of the broker's own, that an entry named: no message is in it
            raise

    def _is_bound(self, raw: bytes) -> bool:
        """Tell whether kombu will find the queue; it must know the exchange's type for that."""
        _, exchange, routing_key = json.loads(raw)
        if not exchange:
            return True
        for queue in self._app.amqp.queues.values():
            if queue.exchange.name == exchange:
                queue.exchange(self._channel).declare()
        return bool(is_bound(self._channel, exchange, routing_key))


class _ConditionalTransaction:
    """A client for one transaction, which is carried out only while ``holds`` does.

    It watches what kombu's own watches. ``done``: whether it was carried out.
    """

    def __init__(self, client: Redis, holds: Callable[[], bool]) -> None:
        self._client = client
        self._holds = holds
        self.done = False

    def transaction(self, act: Callable[[Pipeline], object], *watched: str) -> None:
        """Run a transaction as redis-py does: again until no client changed a watched key."""

        def guarded(pipe: Pipeline) -> None:
            self.done = self._holds()
            if self.done:
                act(pipe)
            else:
                pipe.multi()  # of nothing

        self._client.transaction(guarded, *watched)


def _last_delivery(takings: DeliveryTags) -> float | None:
    """Give the time of the last delivery (s since the epoch); None where it is not kept."""
    moments = [taking.partition(" ")[2] for taking in takings]
    return max((float(one) for one in moments if one != "None"), default=None)


def _tag_of(taking: str) -> str:
    return taking.partition(" ")[0]


def _next_size(size: int, chunk: Sequence[bytes]) -> int:
    """Choose how many messages to read next, by the size of the last."""
    mean = max(1, sum(map(len, chunk)) // len(chunk))
    return max(1, min(LARGEST_CHUNK, 2 * size, CHUNK_BYTES // mean))
