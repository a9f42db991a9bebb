"""Messages that a dead worker had taken and not begun: found, and put back into their queue.

A Redis broker keeps what a worker has taken in its ``unacked`` hash, and gives it to others only
when the visibility timeout is over, an hour by default. A dead worker does not come back for it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from loguru import logger

from pytest_manifest.dispatch.control import Answers
from pytest_manifest.dispatch.publisher import Publisher

if TYPE_CHECKING:
    from kombu.transport.base import StdChannel as Channel

QUESTIONS: Final[Mapping[str, Mapping[str, object]]] = {
    "active": {},
    "reserved": {},
    "scheduled": {},
}
TIMEOUT: Final = 1.0  # s


class OrphanSearch:
    """What became of messages on a stack of our own that nobody speaks of.

    Two looks with a gap: what no living worker holds, under one tag both times, is nobody's.

    Use it from one thread, on a Redis broker of our own with this many workers.
    """

    def __init__(self, publisher: Publisher, workers: int) -> None:
        self._publisher = publisher
        self._workers = workers
        self._suspects: dict[str, str] = {}

    def look(self, waiting: Container[str]) -> None:
        """The first look: ``waiting`` are the task ids that have been sent and not started."""
        self._suspects = self._nobodys(waiting)

    def restore(self, waiting: Container[str]) -> list[str]:
        """The second look: put back what was nobody's both times; returns its task ids."""
        again = self._nobodys(waiting)
        restored: list[str] = []
        if not any(self._suspects.get(tag) for tag in again):
            return restored
        with self._publisher.control.channel() as channel:
            for tag, task_id in again.items():
                if self._suspects.get(tag) == task_id:
                    channel.qos.restore_by_tag(tag)
                    restored.append(task_id)
                    logger.bind(task_id=task_id).warning(
                        "a worker died before it began {}; it is back in its queue", task_id
                    )
        return restored

    def nowhere(self, waiting: Container[str], queues: Sequence[str]) -> bool:
        """Whether none of ``waiting`` is in a queue, taken, or held by a worker.

        Certain only when said twice with a gap: a message on its way is in none of these places.
        """
        answers = self._ask()
        if not _complete(answers, self._workers) or any(i in waiting for i in _held(answers)):
            return False
        if any(self._publisher.queue_lengths(queues).values()):
            return False
        with self._publisher.control.channel() as channel:
            return not any(i in waiting for i in _unacknowledged(channel).values())

    def _ask(self) -> Answers:
        return self._publisher.control.ask(
            QUESTIONS, timeout=TIMEOUT, enough=lambda a, _quiet: _complete(a, self._workers)
        )

    def _nobodys(self, waiting: Container[str]) -> dict[str, str]:
        """Delivery tag -> task id of what is taken, waited for, and held by no living worker."""
        answers = self._ask()
        if not _complete(answers, self._workers):
            return {}  # a worker that is silent may hold anything
        held = set(_held(answers))
        with self._publisher.control.channel() as channel:
            taken = _unacknowledged(channel)
        return {
            tag: task_id
            for tag, task_id in taken.items()
            if task_id in waiting and task_id not in held
        }


def _complete(answers: Answers, workers: int) -> bool:
    return all(len(answers.get(method, {})) >= workers for method in QUESTIONS)


def _held(answers: Answers) -> Iterator[str]:
    """The task ids that workers say they run, hold or wait with."""
    for replies in answers.values():
        for reply in replies.values():
            for row in reply if isinstance(reply, list) else ():
                request = row.get("request", row) if isinstance(row, dict) else {}
                if isinstance(request, dict) and isinstance(request.get("id"), str):
                    yield request["id"]


def _unacknowledged(channel: Channel) -> dict[str, str]:
    """Delivery tag -> task id of every message that some worker has taken."""
    found: dict[str, str] = {}
    # kombu adds a project's key prefix to the commands that it uses itself; this one it does not.
    key = f"{channel.global_keyprefix or ''}{channel.unacked_key}"
    with channel.conn_or_acquire() as client:
        for tag, raw in client.hgetall(key).items():
            message = json.loads(raw)[0]
            task_id = message.get("headers", {}).get("id")
            if isinstance(task_id, str):
                found[tag.decode()] = task_id
    return found
