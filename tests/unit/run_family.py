"""An attempt and the tasks that it starts, moved by hand in the simulated world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pydantic import JsonValue

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.wire import timestamp
from tests.unit.run_rig import RUN, Rig
from tests.unit.run_world import Delivery, Message, Worker, finished, receipt_of


def entry(name: str = "a", **fields: object) -> Entry:
    return Entry.model_validate({"id": name, "task": "t", "timeout": 30.0, **fields})


class Family:
    """One entry's job and what it starts, moved by hand."""

    def __init__(self, made: Rig, name: str = "a") -> None:
        self.made = made
        self.world = made.world
        self.name = name
        self.root = made.task_id(name)
        self.children: Counter[str] = Counter()

    @property
    def worker(self) -> Worker:
        return self.world.workers["w1@box"]

    def spawn(
        self,
        *names: str,
        parent: str = "",
        how: str = "call",
        fulfils: str | None = None,
        closes: str | None = None,
        chords: Sequence[str] | None = None,
        due: str | None = None,
        queue: str | None = None,
    ) -> None:
        """A running task tells what it is about to start; no ``chords``: as older workers."""
        more: dict[str, object] = {} if chords is None else {"chords": [*chords]}
        self.children[parent or self.root] += len(names)
        self.world.tell(
            {
                "kind": "spawned",
                "run": RUN,
                "entry": self.name,
                "attempt": 1,
                "root": self.root,
                "parent": parent or self.root,
                "execution": "x",
                "spawned_at": timestamp(self.world.clock.utc_now()),
                "closes": closes,
                "children": [
                    {
                        "task_id": one,
                        "task": f"task.{one}",
                        "how": how,
                        "due": due,
                        "queue": queue,
                        "fulfils": fulfils,
                        **more,
                    }
                    for one in names
                ],
            }
        )

    def send(self, *names: str) -> None:
        """Their messages come to the broker."""
        for one in names:
            attempt = Attempt(RUN, entry(self.name, task=f"task.{one}"), 1, one)
            self.world.queue.append(Message(attempt, self.world.clock.utc_now()))

    def begin(self) -> Delivery:
        """The next message is taken and begun."""
        self.world.take(self.worker)
        delivery = self.world.begin(self.worker)
        assert delivery is not None
        return delivery

    def end(
        self,
        delivery: Delivery,
        how: Literal["succeeded", "failed"] = "succeeded",
        facts: Mapping[str, JsonValue] = MappingProxyType({}),
    ) -> None:
        """A running task ends; ``facts`` are what its record says beside the receipt."""
        execution = delivery.execution
        assert execution is not None
        self.worker.running.remove(delivery)
        self.world.unacked.pop(delivery.tag, None)
        receipt = receipt_of(execution, how, self.world.clock.utc_now())
        number = self.children[receipt.task_id]
        counted = receipt.model_copy(update={"children": number})
        self.world.tell({**finished(execution.name, counted), **facts})

    def run(self, *hows: Literal["succeeded", "failed"]) -> None:
        """The next messages are run to these ends, one after the other."""
        for how in hows:
            self.end(self.begin(), how)

    def started_children(self, *names: str) -> Delivery:
        """The entry's job begins, and starts these; it runs still."""
        self.made.step()
        job = self.begin()
        self.spawn(*names)
        self.send(*names)
        return job

    def status(self) -> VerdictStatus | None:
        self.made.step(2)
        return self.made.kind(self.name)


def announced(key: str, *ids: str, is_off: bool = False) -> list[JsonValue]:
    return [
        {
            "key": key,
            "how": "chord_body",
            "task": "task.body",
            "count": 1,
            "task_ids": list(ids),
            "is_off": is_off,
        }
    ]


def chord(family: Family) -> tuple[Delivery, Delivery]:
    """A job that has started a chord of two and ended; both run."""
    job = family.started_children("h1", "h2")
    family.end(job)
    return family.begin(), family.begin()


def with_announced(family: Family, told: list[JsonValue]) -> dict[str, JsonValue]:
    return {"root": family.root, "parent": family.root, "announced": told}
