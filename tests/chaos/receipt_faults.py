"""Faults and lies in the run's stream of receipts, edited while pytest is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from tests.chaos.scenario import Fault
from tests.chaos.stage import Stage
from tests.support import eventually

BLOCK_SECONDS = 0.3
"""Longer than the time that a read of the stream may be open when its reader is stopped."""
Receipt = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A receipt that nobody has read yet, and where it is."""

    place: str
    document: dict[str, Any]

    @property
    def receipt(self) -> Receipt:
        receipt: Receipt = self.document["receipt"]
        return receipt

    def saying(self, **fields: object) -> Finished:
        """The same, with other fields in the receipt."""
        return Finished(self.place, self.document | {"receipt": self.receipt | fields})


class Stream:
    """The receipts of the run, past any reader."""

    def __init__(self, client: redis.Redis, run: str) -> None:
        self._client = client
        self.key = f"manifest:{run[-8:]}:receipts"

    def last(self) -> str:
        """The place of the newest record."""
        newest: list[Any] = self._client.xrevrange(self.key, count=1)  # type: ignore[assignment]  # not awaited
        return str(newest[0][0].decode()) if newest else "0-0"

    def finished_after(self, place: str) -> list[Finished]:
        """The receipts behind this place."""
        rows: list[Any] = self._client.xrange(self.key, min=f"({place}")  # type: ignore[assignment]  # not awaited
        found = [Finished(at.decode(), json.loads(fields[b"r"])) for at, fields in rows]
        return [one for one in found if one.document.get("kind") == "finished"]

    def drop(self, one: Finished) -> None:
        self._client.xdel(self.key, one.place)

    def add(self, one: Finished) -> None:
        self.add_text(json.dumps(one.document))

    def add_text(self, text: str) -> None:
        self._client.xadd(self.key, {"r": text})

    def forget_result(self, one: Finished) -> None:
        """Remove Celery's own copy of the result."""
        self._client.delete(f"celery-task-meta-{one.receipt['task_id']}")


@contextmanager
def unread(stage: Stage, number: int) -> Iterator[tuple[Stream, list[Finished]]]:
    """Stop pytest at a random moment, and wait for so many receipts that it has not read."""
    stage.moment(1, max(1, len(stage.members) // 4))
    with closing(stage.store()) as client, stage.session.paused():
        time.sleep(BLOCK_SECONDS)
        stream = Stream(client, stage.run_id())
        before = stream.last()
        found = eventually(
            lambda: some if len(some := stream.finished_after(before)) >= number else [],
            within=30,
            what=f"{number} receipts are unread",
        )
        chosen = stage.rng.sample(found, number)
        stage.aimed |= {str(one.receipt["entry"]) for one in chosen}
        yield stream, chosen


Edit = Callable[[Stream, Sequence[Finished]], None]


def edit_receipts(edit: Edit, number: int = 1) -> Fault:
    """Have ``edit`` change so many receipts that nobody has read."""

    def fault(stage: Stage) -> None:
        with unread(stage, number) as (stream, chosen):
            edit(stream, chosen)

    return fault


def drop(stream: Stream, chosen: Sequence[Finished]) -> None:
    """The receipts are gone; Celery's own results are there."""
    for one in chosen:
        stream.drop(one)


def drop_everything(stream: Stream, chosen: Sequence[Finished]) -> None:
    """The receipts and the results are gone."""
    for one in chosen:
        stream.drop(one)
        stream.forget_result(one)


def double(stream: Stream, chosen: Sequence[Finished]) -> None:
    """The receipts are there twice."""
    for one in chosen:
        stream.add(one)


def truncate(stream: Stream, chosen: Sequence[Finished]) -> None:
    """The receipts break off in the middle."""
    for one in chosen:
        text = json.dumps(one.document)
        stream.drop(one)
        stream.add_text(text[: len(text) // 2])


def swap(stream: Stream, chosen: Sequence[Finished]) -> None:
    """Two receipts have each the other's names."""
    names = ("entry", "task_id", "attempt")
    for one, other in (chosen, reversed(chosen)):
        stream.drop(one)
        stream.add(one.saying(**{name: other.receipt[name] for name in names}))


def saying(change: Callable[[Receipt], dict[str, object]]) -> Edit:
    """The receipts say something else in the fields that ``change`` gives."""

    def edit(stream: Stream, chosen: Sequence[Finished]) -> None:
        for one in chosen:
            stream.drop(one)
            stream.add(one.saying(**change(one.receipt)))

    return edit
