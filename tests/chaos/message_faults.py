"""Faults of the broker, its messages, and the way to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

from celery import Celery

from tests.chaos.scenario import Fault
from tests.chaos.stage import Stage
from tests.chaos.workload import QUEUE

REPLACE = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
for n = 2, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[n]) end
return 1
"""
HEADER_PARENT = b'"manifest_parent"'
Message = dict[str, Any]
Change = Callable[[Message], list[Message]]


def change_messages(change: Change, most: int = 3, *, descendants: bool = False) -> Fault:
    """Take some messages that wait, at a random moment, and put back what ``change`` gives.

    ``descendants``: only of jobs that other jobs have started.
    """

    def fault(stage: Stage) -> None:
        stage.moment(1, len(stage.members) // 4)
        wanted = stage.rng.randint(1, most)

        def enough() -> bool:
            return len(stage.aimed) >= wanted or not _change_one(stage, change, descendants)

        stage.until(enough, f"{wanted} messages are changed")
        assert stage.aimed, "no message waited any more"

    return fault


def _change_one(stage: Stage, change: Change, descendants: bool) -> bool:
    """Change one in the middle of what waits: there is time to do so, and for what follows.

    False where none waits.
    """
    with closing(stage.client()) as client:
        waiting: list[bytes] = client.lrange(QUEUE, 0, -1)  # type: ignore[assignment]  # not awaited
        fresh = [
            raw
            for raw in waiting
            if _entry_of(raw) not in stage.aimed and (not descendants or HEADER_PARENT in raw)
        ]
        if not fresh:
            return False
        raw = stage.rng.choice(fresh[len(fresh) // 4 : len(fresh) * 3 // 4 + 1])
        changed = [json.dumps(one) for one in change(json.loads(raw))]
        if client.eval(REPLACE, 1, QUEUE, raw, *changed):  # else a worker was quicker
            stage.aimed.add(_entry_of(raw))
    return True


def _entry_of(raw: bytes) -> str:
    return str(json.loads(raw)["headers"]["manifest_entry"])


def removed(_: Message) -> list[Message]:
    """It is gone."""
    return []


def doubled(message: Message) -> list[Message]:
    """It is there twice, under one delivery tag, as after a visibility timeout."""
    return [message, message]


def with_bad_eta(message: Message) -> list[Message]:
    """Its eta is no time."""
    return [message | {"headers": message["headers"] | {"eta": "at tea time"}}]


def with_refused_content(message: Message) -> list[Message]:
    """Its content type is one that no worker accepts."""
    return [message | {"content-type": "application/x-python-serialize"}]


def with_corrupt_body(message: Message) -> list[Message]:
    """Its body is not what its content type says."""
    return [message | {"body": base64.b64encode(b'[["cut sho').decode()}]


def revoke(stage: Stage) -> None:
    """Somebody else revokes jobs that wait."""
    stage.moment(1, len(stage.members) // 4)
    with closing(stage.client()) as client:
        waiting: list[bytes] = client.lrange(QUEUE, 0, -1)  # type: ignore[assignment]  # not awaited
    chosen = waiting[: max(1, stage.rng.randint(1, len(waiting) // 2))]
    stage.aimed |= {_entry_of(raw) for raw in chosen}
    app = Celery("somebody", broker=stage.stack.url(), set_as_current=False)
    with app.connection_for_write() as connection:
        ids = [json.loads(raw)["headers"]["id"] for raw in chosen]
        app.control.revoke(ids, connection=connection)


def disconnect_all(stage: Stage) -> None:
    """The broker ends every connection."""
    stage.moment()
    with closing(stage.client()) as client:
        ended = client.client_kill_filter(_type="normal", skipme=True)
    assert ended, "there was no connection to end"


def flush(stage: Stage) -> None:
    """Everything in the broker, and in the result store that is the same, is gone."""
    stage.moment(1, len(stage.members) // 2)
    with closing(stage.client()) as client:
        client.flushall()


def fill_store(stage: Stage) -> None:
    """The result store takes nothing more for a while."""
    stage.moment()
    with closing(stage.store()) as client:
        client.config_set("maxmemory", "1kb")
        try:
            stage.pause(3.0)
        finally:
            client.config_set("maxmemory", "0")


def cut_connections(stage: Stage) -> None:
    """Connections are reset at several moments, and slow in between."""
    proxies = stage.stack.proxies.values()
    stage.moment(1, len(stage.members) // 4)
    for _ in range(4):
        if stage.session.has_ended:
            return
        delay = stage.rng.choice([0.0, 0.0, 0.02, 0.05])
        for proxy in proxies:
            proxy.delay = delay
            proxy.cut()
        stage.pause(0.7)
    for proxy in proxies:
        proxy.delay = 0.0
