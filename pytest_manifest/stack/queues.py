"""The queues of a stack's own broker: how long they are, and jobs of no manifest left in them.

A job may send others, and its entry say that these do not matter. Nobody waits for them, so they
are at least reported before their broker is removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import redis
from loguru import logger
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_manifest.broker.locating.redis import parse_json, unacked_message
from pytest_manifest.schema.wire import HEADER_PARENT, HEADER_RUN

LIMIT: Final = 20_000
"""Messages that are looked at: a number beyond is as good as any."""
CHUNK: Final = 500
TIMEOUT: Final = 2.0
NAMED: Final = 5
SEPARATOR: Final = "\x06\x16"
PRIORITY_STEPS: Final = ("", "3", "6", "9")
NOT_FOR_JOBS: Final = ("celeryev", "celery.pidbox", "reply.celery.pidbox")


def unfinished_children(url: str) -> Counter[str]:
    """Count, by task name, the jobs that wait in this broker or are with its workers.

    Those of a manifest's entries are not among them. Nothing where the broker is gone: then nobody
    can tell.
    """
    once = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(url, socket_timeout=TIMEOUT, retry=once) as client:
        try:
            return Counter(_tasks(islice(_messages(client), LIMIT)))
        except (redis.RedisError, OSError) as error:
            logger.debug("the private broker cannot be asked what it has left: {}", error)
            return Counter()


def unfinished_message(left: Counter[str], stack: str) -> str:
    """Say what is lost with this kind of stack, by names and number."""
    most = left.most_common(NAMED)
    names = ", ".join(f"{count} {task}" for task, count in most)
    others = f" and {len(left) - NAMED} other tasks" if len(left) > NAMED else ""
    total = left.total()
    number = f"{total} or more jobs" if total >= LIMIT else f"{total} job{'s'[: total != 1]}"
    return (
        f"{number} that jobs of this session had sent ({names}{others}) were not done yet, and "
        f"went with the {stack}: they were not waited for, and will not run"
    )


def _messages(client: redis.Redis) -> Iterator[object]:
    """Read all messages, whatever the app calls its queues and keys."""
    for key in client.scan_iter(_type="list"):
        start = 0
        while chunk := client.lrange(key, start, start + CHUNK - 1):
            yield from map(parse_json, chunk)
            start += len(chunk)
    for key in client.scan_iter("*unacked", _type="hash"):
        for _, taken in client.hscan_iter(key):
            yield unacked_message(taken)


def _tasks(messages: Iterable[object]) -> Iterator[str]:
    for message in messages:
        headers = message.get("headers") if isinstance(message, dict) else None
        if isinstance(headers, dict) and headers.get("task") and is_of_no_entry(headers):
            yield str(headers["task"])


def is_of_no_entry(headers: Mapping[str, object]) -> bool:
    """Return whether a message carries another task than an entry's own job."""
    return HEADER_RUN not in headers or HEADER_PARENT in headers


def broker_lines(url: str) -> list[str]:
    """Describe the broker: a line on whether it answers, and one for each queue."""
    try:
        lengths, unacked = broker_counts(url)
    except redis.RedisError as error:
        return [f"broker does not answer: {error}"]
    lines = [f"queue    {name}  {length} waiting" for name, length in lengths.items()]
    return [*lines, f"unacked  {unacked} with the workers"]


def broker_counts(url: str) -> tuple[dict[str, int], int]:
    """Count each queue's waiting messages, and those with workers. Raises redis.RedisError."""
    names, lengths = {"celery"}, {}
    with redis.Redis.from_url(url, socket_timeout=TIMEOUT, decode_responses=True) as client:
        for key in client.scan_iter("_kombu.binding.*"):
            if not str(key).endswith(NOT_FOR_JOBS):
                names |= {str(member).rpartition(SEPARATOR)[2] for member in client.smembers(key)}
        for name in sorted(names):  # of every queue that a worker has bound, over all priorities
            keys = [f"{name}{SEPARATOR}{step}" if step else name for step in PRIORITY_STEPS]
            lengths[name] = sum(int(client.llen(key)) for key in keys)
        return lengths, int(client.hlen("unacked"))
