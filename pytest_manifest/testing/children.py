"""Count the jobs that jobs have sent and that an in-memory stack ends with: no run awaits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from celery.worker import state
from kombu.transport.memory import Channel

from pytest_manifest.schema.wire import HEADER_RUN


def children_left() -> Counter[str]:
    """Count unfinished jobs, by task, in this process's queues and in its worker's hands.

    Jobs of a manifest's entries are left out.
    """
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
    """Yield the headers of jobs that the worker holds, also those that wait for their ETA.

    The worker takes a job with an ETA out of its queue at once.
    """
    for request in list(state.requests.values()):
        yield getattr(request, "request_dict", None)
