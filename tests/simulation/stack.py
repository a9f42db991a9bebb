"""What a simulated pytest is connected to: the fakes, each call of which is a moment to die at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TypeVar, cast
from unittest import mock

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.checks import Demand
from pytest_manifest.broker.locating import Locator
from pytest_manifest.broker.locating import redis as locating
from pytest_manifest.broker.locating.worker_replies import WorkerPresence
from pytest_manifest.broker.preflight import Preflight
from pytest_manifest.broker.publisher import Publisher, PublishResult
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run import audit, strategy
from pytest_manifest.run import connections as workers
from pytest_manifest.run import dispatch as admission
from pytest_manifest.run.connections import RunConnections, RunState
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.problems import Refused
from tests.simulation.program import UNKNOWN_TASK
from tests.simulation.world import REFUSAL, SimulatedWorld
from tests.unit.run_fakes import FakeLocator, FakePublisher, FakeResults, FakeStream

T = TypeVar("T")
Moment = Callable[[str], None]
"""Called with what has just been done, or is about to be."""
BROKER, STORE = "redis://box/0", "redis://box/1"


def address(*, is_private: bool) -> StackAddress:
    """Name the stack of the simulated world."""
    return StackAddress(BROKER, STORE, None, is_private=is_private)


def watched(part: object, kind: str, names: Iterable[str], moment: Moment) -> None:
    """Make the begin and the end of each call of these methods a moment."""

    def watch(name: str) -> None:
        method: Callable[..., object] = getattr(part, name)

        def call(*args: object, **more: object) -> object:
            moment(kind)
            answer = method(*args, **more)
            moment(kind)
            return answer

        setattr(part, name, call)

    for name in names:
        watch(name)


class SessionPublisher(FakePublisher):
    """The publisher, with as much more of it as whole sessions ask for."""

    def __init__(self, world: SimulatedWorld, at: StackAddress) -> None:
        super().__init__(world)
        self.address = at
        self.app = None
        self.tasks: dict[str, object] = {}
        self._world = world

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        """Send, or be refused the queue."""
        self._world.reached["broker away at a sending"] += (
            self._world.clock.now < self._world.broker_down
        )
        if self._world.clock.now < self._world.refuses:
            return PublishResult(refused={one.task_id: Refused(error=REFUSAL) for one in attempts})
        return super().publish(attempts, sent_at)

    def own_limit(self, entry: Entry) -> float | None:
        """Return the limit that tasks have of their own now."""
        return self._world.own_limit

    def call(self, function: Callable[[], T]) -> T:
        return function()

    def close(self) -> None:
        pass


class SessionConnections(RunConnections):
    """A run's connections to the simulated world."""

    def __init__(
        self,
        state: RunState,
        *,
        keeps_stream: bool = False,
        world: SimulatedWorld,
        moment: Moment,
    ) -> None:
        super().__init__(state, keeps_stream=keeps_stream)
        self._world = world
        self._moment = moment

    def open_publisher(self) -> Publisher:
        fake = SessionPublisher(self._world, self._state.address)
        watched(fake, "publisher", ("publish", "revoke", "queue_lengths"), self._moment)
        self.publisher = cast("Publisher", fake)
        return self.publisher

    def add_queues(self, entries: Iterable[Entry]) -> None:
        self.queues = ["celery"]

    def serve_queues(self) -> None:
        """Do nothing: the workers serve the only queue."""

    def open_locator(self, publisher: Publisher, entries: Iterable[Entry]) -> Locator:
        fake = FakeLocator(self._world)
        watched(fake, "locator", ("snapshot", "restore", "discard", "withdraw"), self._moment)
        self.locator = cast("Locator", fake)
        return self.locator

    def open_collector(self, position: str) -> ReceiptCollector:
        stream, results = FakeStream(self._world), FakeResults(self._world)
        stream.position = position
        watched(stream, "stream", ("begin", "trim", "is_intact", "read"), self._moment)
        watched(results, "stream", ("read",), self._moment)
        return ReceiptCollector(cast("StreamReader", stream), cast("ResultReader", results))


def stand_ins(world: SimulatedWorld, moment: Moment) -> Sequence[tuple[object, str, object]]:
    """List what stands in for asking the world's workers: place, name, and what stands there."""

    def preflight(publisher: Publisher, demand: Demand, **_more: object) -> Preflight:
        moment("publisher")
        if world.clock.now < world.broker_down:
            raise StackError("the broker cannot be reached")
        nodes = _nodes(world)
        unknown = [task for task in demand.tasks if task == UNKNOWN_TASK and nodes]
        return Preflight(
            unknown_tasks={task: ["t"] for task in unknown},
            answered=bool(nodes),
            workers=sorted(nodes),
            slots=len(nodes),
            queues=["celery"],
        )

    def find_workers(_publisher: Publisher) -> WorkerPresence:
        if world.clock.now < world.broker_down:
            raise StackError("the broker cannot be reached")
        nodes = _nodes(world)
        silent = frozenset(one.name for one in world.workers.values() if one.alive) - nodes
        return WorkerPresence(nodes, frozenset(), silent)

    def unresponsive(_publisher: Publisher, answered: Iterable[str]) -> frozenset[str]:
        return frozenset(world.workers) - frozenset(answered)

    def may_be_alive(_publisher: Publisher, silent: Iterable[str], *_more: object) -> bool:
        return any(world.workers[name].alive for name in silent)

    return (
        (admission, "preflight", preflight),
        (admission, "other_store", lambda *_: None),
        *((place, "unresponsive_nodes", unresponsive) for place in (workers, locating)),
        *((place, "may_be_alive", may_be_alive) for place in (workers, locating)),
        (workers, "find_workers", find_workers),
    )


@contextmanager
def connected(world: SimulatedWorld, moment: Moment) -> Iterator[None]:
    """Connect the runs that are made inside to this world, and nothing else."""
    made = functools.partial(SessionConnections, world=world, moment=moment)
    with ExitStack() as stack:
        for place, name, stand_in in (
            *stand_ins(world, moment),
            (strategy, "RunConnections", made),
            (audit, "RunConnections", made),
        ):
            stack.enter_context(mock.patch.object(place, name, stand_in))
        yield


def _nodes(world: SimulatedWorld) -> frozenset[str]:
    """Name the workers that answer."""
    return frozenset(one.name for one in world.workers.values() if one.works)
