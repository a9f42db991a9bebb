"""What a broker still holds when nobody works any more: each message is taken out and named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeAlias

import redis
from kombu import Connection

from tests.support import eventually

UNACKED, INDEX = "unacked", "unacked_index"
MAIL = ".pidbox"
"""How keys of remote control end: what is in them is no job."""
RETURN_SECONDS = 30.0
Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Message:
    """A job's message; ``place``: the queue that it waits in, or the hash that keeps it."""

    task_id: str
    place: str


@dataclass
class Remains:
    """What was left in one broker; ``odd``: a sentence for each thing there that is no message, or
    that no worker would ever come to."""

    messages: list[Message] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def add(self, text: object, place: str) -> None:
        """Count a message as kombu's virtual transports write it."""
        task_id = _task_id(_parsed(text))
        if task_id:
            self.messages.append(Message(task_id, place))
        else:
            self.odd.append(f"{place} holds what is no message of a job: {text!r:.200}")


def drain_redis(url: str, *, look_only: bool = False) -> Remains:
    """Take all messages out of a Redis database: of each queue, and what is kept for workers.

    Each list is a queue, whatever its name; nothing that may hold a message is left uncounted.
    """
    remains = Remains()
    with closing(redis.Redis.from_url(url)) as client:
        kinds = {key: client.type(key) for key in client.scan_iter(count=1000)}
        hashes = [key for key, kind in kinds.items() if kind == b"hash"]
        for key in hashes:
            name = key.decode()
            if name.endswith(UNACKED):
                _take_unacked(client, name, remains)
            elif not name.startswith("manifest:"):
                remains.odd.append(f"{name} is a hash, and no broker's")
        for key, kind in kinds.items():
            name = key.decode()
            if kind == b"list" and not name.endswith(MAIL):
                waiting: list[bytes] = client.lrange(key, 0, -1)  # type: ignore[assignment]  # not awaited
                for text in waiting:
                    remains.add(text, name)
            elif kind == b"zset" and name.endswith(INDEX):
                hash_name = name.removesuffix(INDEX) + UNACKED
                tags: list[bytes] = client.zrange(name, 0, -1)  # type: ignore[assignment]  # not awaited
                remains.odd += [
                    f"{name} has {tag!r}, and {hash_name} does not"
                    for tag in tags
                    if not client.hexists(hash_name, tag)
                ]
        if not look_only:
            client.flushdb()
    return remains


def _take_unacked(client: redis.Redis, name: str, remains: Remains) -> None:
    """Count what is kept for workers; without its time in the index nobody gives it back, ever."""
    index = name.removesuffix(UNACKED) + INDEX
    kept: Mapping[bytes, bytes] = client.hgetall(name)  # type: ignore[assignment]  # not awaited
    for tag, text in kept.items():
        parts = _parsed(text)
        remains.add(parts[0] if isinstance(parts, list) and parts else text, name)
        if client.zscore(index, tag) is None:
            remains.odd.append(f"{name} has {tag!r}, and {index} does not")


def drain_amqp(url: str, queue: str) -> Remains:
    """Take all messages out of a queue of RabbitMQ, and delete it.

    What a worker had not acknowledged is back when its connection is closed.
    """
    remains = Remains()
    with Connection(url) as connection, closing(connection.channel()) as channel:

        def consumers() -> int:
            return int(channel.queue_declare(queue, passive=True).consumer_count)

        eventually(
            lambda: consumers() == 0, within=RETURN_SECONDS, what=f"{queue} has no consumers"
        )
        while (one := channel.basic_get(queue, no_ack=True)) is not None:
            task_id = one.headers.get("id")
            if isinstance(task_id, str):
                remains.messages.append(Message(task_id, queue))
            else:
                remains.odd.append(f"{queue} holds what is no message of a job: {one.body!r:.200}")
        channel.queue_delete(queue)
    return remains


def count_amqp(url: str, queue: str) -> int:
    """How many messages wait in a queue of RabbitMQ."""
    with Connection(url) as connection, closing(connection.channel()) as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


def _parsed(text: object) -> object:
    if not isinstance(text, str | bytes):
        return text
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return found


def _task_id(message: object) -> str:
    headers = message.get("headers") if isinstance(message, dict) else None
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return task_id if isinstance(task_id, str) else ""
