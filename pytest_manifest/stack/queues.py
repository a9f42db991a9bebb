"""What waits in the queues of a Redis broker of our own."""

from __future__ import annotations

from typing import Final

import redis

SEPARATOR: Final = "\x06\x16"
PRIORITY_STEPS: Final = ("", "3", "6", "9")
NOT_FOR_JOBS: Final = ("celeryev", "celery.pidbox", "reply.celery.pidbox")


def broker_lines(url: str) -> list[str]:
    """One line that says whether the broker answers, and one for each queue."""
    with redis.Redis.from_url(url, socket_timeout=2.0, decode_responses=True) as client:
        try:
            lengths = queue_lengths(client)
            unacked = int(client.hlen("unacked"))
        except redis.RedisError as error:
            return [f"broker does not answer: {error}"]
    lines = [f"queue    {name}  {length} waiting" for name, length in lengths.items()]
    return [*lines, f"unacked  {unacked} with the workers"]


def queue_lengths(client: redis.Redis) -> dict[str, int]:
    """Messages waiting by queue, over all priorities, for every queue that a worker has bound."""
    names = {"celery"}
    for key in client.scan_iter("_kombu.binding.*"):
        if str(key).removeprefix("_kombu.binding.").endswith(NOT_FOR_JOBS):
            continue
        names |= {str(member).rpartition(SEPARATOR)[2] for member in client.smembers(key)}
    lengths = {}
    for name in sorted(names):
        keys = [f"{name}{SEPARATOR}{step}" if step else name for step in PRIORITY_STEPS]
        lengths[name] = sum(int(client.llen(key)) for key in keys)
    return lengths
