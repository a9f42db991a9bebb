"""The real publisher, locator and collector on the simulated Redis, whose connections may break."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar
from unittest import mock

import redis
from fakeredis import FakeRedisConnection
from kombu.transport import redis as transport

from pytest_manifest.broker import bounded
from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.locating import redis as locating
from pytest_manifest.broker.locating import worker_replies
from pytest_manifest.broker.locating.base import DeliveryTags
from pytest_manifest.broker.locating.worker_replies import NONE_BEGUN
from pytest_manifest.broker.publisher import Publisher, PublishResult
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run import connections
from pytest_manifest.verdict.problems import Refused
from tests.simulation.redis_world import BROKER_DB, Cut, RedisWorld
from tests.simulation.stack import Moment, stand_ins, watched
from tests.simulation.world import REFUSAL

T = TypeVar("T")


class BreakingConnection(FakeRedisConnection):
    """A connection to the world's server, as far as that can be reached."""

    world: ClassVar[RedisWorld]
    moment: ClassVar[Moment]

    def __init__(self, *args: Any, **more: Any) -> None:  # as the base class has it
        super().__init__(*args, **{**more, "server": self.world.server})

    def connect(self) -> None:
        self._reach()
        super().connect()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self._reach()
        cut = self._cut
        if cut is not None:
            cut.sending()
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis-py's

    def read_response(self, *args: Any, **more: Any) -> Any:  # as the base class has it
        type(self).moment("reply")
        self._reach()
        cut = self._cut
        if cut is not None:
            cut.reading()
        return super().read_response(*args, **more)

    @property
    def _cut(self) -> Cut | None:
        return self.world.cut if self.db == BROKER_DB else None

    def _reach(self) -> None:
        world = self.world
        down = world.broker_down if self.db == BROKER_DB else world.store_down
        if world.clock.now < down:
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py's
            raise redis.ConnectionError("connection refused")


class VirtualStreamReader(StreamReader):
    """The stream's reader, which waits by the virtual clock."""

    world: ClassVar[RedisWorld]

    def read(self, block_ms: int = 0) -> list[Mapping[str, object]]:
        records = super().read(0)
        if not records and block_ms:
            self.world.clock.sleep(block_ms / 1000)
            records = super().read(0)
        return records


class WatchedPublisher(Publisher):
    """The publisher; the world knows what it sends, and hears what it revokes."""

    world: ClassVar[RedisWorld]
    moment: ClassVar[Moment]

    def __init__(self, *args: Any, **more: Any) -> None:  # as the base class has it
        super().__init__(*args, **more)
        watched(self, "publisher", ("publish", "revoke", "queue_lengths"), type(self).moment)

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        world = self.world
        if world.clock.now < world.refuses:
            return PublishResult(refused={one.task_id: Refused(error=REFUSAL) for one in attempts})
        world.reached["broker away at a sending"] += world.clock.now < world.broker_down
        world.on_publish(attempts)
        world.sends(attempts, sent_at)
        if world.uncertain:
            number = world.uncertain.popleft()
            world.cut = Cut(replies=None if number % 4 == 0 else number // 4 % 12)
            world.reached["a pipeline to Redis is cut"] += 1
        before = {one.task_id: _copies(world, one.task_id) for one in attempts}
        try:
            result = super().publish(attempts, sent_at)
        finally:
            world.cut = None
        for one in attempts:
            arrived = _copies(world, one.task_id) - before[one.task_id]
            world.landed[one.task_id] += max(0, arrived)
            if one.task_id in result.unsent and arrived > 0:
                world.complain(f"S1 {one.entry.id}: it arrived, and is called unsent")
            gone = world.of(one.task_id) or one.task_id in world.meddled | world.turned_away
            if one.task_id in result.certain and arrived <= 0 and not gone:
                world.complain(f"S1 {one.entry.id}: it is called sent, and did not arrive")
        world.published.update(i for i in before if i not in result.unsent)
        return result

    def revoke(self, task_ids: Sequence[str], terminate: bool = False) -> None:
        super().revoke(task_ids, terminate)
        for worker in self.world.workers.values():
            if worker.works:
                self.world.hear(worker, task_ids)
            elif worker.alive:
                worker.heard |= set(task_ids)


class WatchedLocator(locating.RedisLocator):
    """The locator; the world complains of what must not be moved."""

    world: ClassVar[RedisWorld]
    moment: ClassVar[Moment]

    def __init__(self, *args: Any) -> None:  # as the base class has it
        super().__init__(*args)
        names = ("snapshot", "restore", "discard", "withdraw")
        watched(self, "locator", names, type(self).moment)

    def restore(
        self, orphans: Mapping[str, DeliveryTags], begun: Mapping[str, int] = NONE_BEGUN
    ) -> list[str]:
        self._allowed(orphans)
        return super().restore(orphans, begun)

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        self._allowed(orphans)
        return super().discard(orphans)

    def _allowed(self, orphans: Mapping[str, DeliveryTags]) -> None:
        world = self.world
        free = set(world.orphaned_tags())
        for task_id, takings in orphans.items():
            tags = {taking.partition(" ")[0] for taking in takings} & set(world.unacked)
            if tags <= free:
                continue
            # A silent node whose pool process died of the job counts as gone with it.
            if any(run.how == "died" for run in world.of(task_id)):
                world.meddled.add(task_id)
            else:
                world.complain(f"S2 {task_id} was taken from a worker that has it")


def _copies(world: RedisWorld, task_id: str) -> int:
    waiting = sum(message.task_id == task_id for message in world.queue)
    return waiting + sum(message.task_id == task_id for message in world.unacked.values())


@contextmanager
def connected_to_redis(world: RedisWorld, moment: Moment) -> Iterator[None]:
    """Connect the runs that are made inside to this world's Redis, by their own connections."""
    own = {"world": world, "moment": staticmethod(moment)}
    breaking = type("Breaking", (BreakingConnection,), own)

    def make_connection(pool: redis.ConnectionPool) -> object:
        kind = pool.connection_class
        kind = kind if issubclass(kind, FakeRedisConnection) else breaking
        return kind(**pool.connection_kwargs)

    def direct(_caller: object, function: Callable[[], T], _seconds: float = 0.0) -> T:
        return function()

    def reader(*args: Any, **more: Any) -> StreamReader:
        made: StreamReader = type("Reader", (VirtualStreamReader,), {"world": world})(*args, **more)
        watched(made, "stream", ("begin", "trim", "is_intact", "read"), moment)
        return made

    clock = SimpleNamespace(time=world.timestamp)
    poller = SimpleNamespace(poll=world.poll)
    with ExitStack() as stack:
        for place, name, stand_in in (
            *stand_ins(world, moment),
            (redis.ConnectionPool, "make_connection", make_connection),
            (transport.Channel, "connection_class", breaking),
            (bounded.BoundedCaller, "call", direct),
            (connections, "Publisher", type("Sender", (WatchedPublisher,), own)),
            (connections, "StreamReader", reader),
            (locating, "RedisLocator", type("Locator", (WatchedLocator,), own)),
            (worker_replies, "WorkerPoller", lambda *_: poller),
            (locating, "time", clock),
        ):
            stack.enter_context(mock.patch.object(place, name, stand_in))
        yield
