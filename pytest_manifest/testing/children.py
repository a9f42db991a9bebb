"""Jobs of jobs that an in-memory stack ends with: nobody waits for them, so they are told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from celery.worker import state
from kombu.transport.memory import Channel

from pytest_manifest.schema.wire import HEADER_RUN


def children_left() -> Counter[str]:
    """By the names of their tasks: what waits in a queue of this process's memory, and what its
    worker holds and has not done. Those of a manifest's entries are not among them."""
    return Counter(
        str(headers["task"])
        for headers in (*_queued(), *_held())
        if isinstance(headers, dict) and headers.get("task") and HEADER_RUN not in headers
    )


def _queued() -> Iterator[object]:
    for queue in list(Channel.queues.values()):
        for message in list(queue.queue):
            yield message.get("headers") if isinstance(message, dict) else None


def _held() -> Iterator[object]:
    """Also what waits for its time: the worker took it out of its queue as soon as it was there."""
    for request in list(state.requests.values()):
        yield getattr(request, "request_dict", None)
