"""A broker, a result store, workers and their clock, all in memory and all at the test's mercy.

:class:`World` knows what truly happened; ``run_fakes`` are the engine's windows into it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Literal

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema import Entry, ErrorInfo, Receipt, State
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.schema.wire import arguments_sha256, json_sha256, timestamp

HOST = "box"
EPOCH = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
NOTICED = 2.4
"""Seconds until a worker notices that a process of its pool is gone."""
RUNTIME = 0.1
"""Seconds for which every job says that it ran; the clock need not have moved meanwhile."""
PREFETCH = 2
FIRST_PID = 10_000_000
"""Beyond what any system gives, so that no real process is asked for."""
Fate = Literal["kept", "dropped", "unsaid", "doubled", "delayed", "swapped", "tampered"]
"""Of a receipt: ``dropped``: from stream and results, ``unsaid``: from the stream alone."""
How = Literal["running", "succeeded", "failed", "retried", "died"]


class Clock:
    """Both clocks: the monotonic one, and the wall's, which may jump."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.jumped = timedelta()
        self.turned_back = False
        self.turned_forth = False  # after it was turned back: who looked since saw neither
        self.passed: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def utc_now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now) + self.jumped

    def jump(self, hours: int) -> None:
        """The wall's clock is set; the monotonic one is not."""
        self.jumped += timedelta(hours=hours)
        self.turned_forth = self.turned_forth or (self.turned_back and hours > 0)
        self.turned_back = self.turned_back or hours < 0

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
        self.passed()


class VirtualEvent(threading.Event):
    """An event; who waits for it lets the clock go on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._clock.sleep(timeout or 0.0)
        return self.is_set()


@dataclass(eq=False)
class Message:
    """``copies``: whether the world, not the engine, has made another one of it."""

    attempt: Attempt
    sent_at: datetime
    retries: int = 0
    redelivered: bool = False

    @property
    def task_id(self) -> str:
        return self.attempt.task_id

    @property
    def entry(self) -> Entry:
        return self.attempt.entry

    @property
    def is_late(self) -> bool:
        """Whether it is acknowledged after the job, and given back when its process dies."""
        return bool(self.entry.meta.get("late"))


@dataclass(eq=False)
class Execution:
    """What truly happened, ``how`` as it stands; times of the monotonic clock."""

    message: Message
    worker: str
    pid: int
    name: str
    began: float
    started_at: datetime
    how: How = "running"


@dataclass(eq=False)
class Delivery:
    """A message that a worker has; ``tag`` while the broker keeps it for the worker."""

    message: Message
    tag: str
    execution: Execution | None = None
    ends: float = 0.0


@dataclass(eq=False)
class Worker:
    """A node; ``heard``: revocations that wait until it goes on."""

    name: str
    alive: bool = True
    paused: bool = False
    reserved: deque[Delivery] = field(default_factory=deque)
    running: list[Delivery] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)

    @property
    def works(self) -> bool:
        return self.alive and not self.paused

    @property
    def deliveries(self) -> list[Delivery]:
        return [*self.reserved, *self.running]


@dataclass(frozen=True)
class Record:
    """A record of the stream, and what it is about."""

    number: int
    raw: Mapping[str, object]
    task_id: str
    started: bool


class World:
    """See the module. ``fair``: workers take, begin and end jobs by themselves."""

    def __init__(self, nodes: int = 2) -> None:
        self.clock = Clock()
        self.clock.passed = self.tick
        self.workers = {f"w{n}@{HOST}": Worker(f"w{n}@{HOST}") for n in range(1, nodes + 1)}
        self.queue: deque[Message] = deque()
        self.unacked: dict[str, Message] = {}
        self.stream: list[Record] = []
        self.results: dict[str, BackendResult] = {}
        self.retried: set[str] = set()
        """Task ids of which the store has that they asked for a retry."""
        self.began_stream = False
        self.executions: list[Execution] = []
        self.published: Counter[str] = Counter()
        self.landed: Counter[str] = Counter()
        """Task id -> how many of its messages reached the broker by the engine's doing."""
        self.read: list[Record] = []
        self.forged: set[str] = set()
        self.meddled: set[str] = set()
        """Task ids whose message the world itself has doubled, given back or lost."""
        self.dropped: set[str] = set()
        """Task ids of which the world has taken a receipt away."""
        self.dead: set[int] = set()
        """Processes that are gone; each is of one execution, and outlives it."""
        self.losses: list[WorkerLoss] = []
        self.fates: deque[Fate] = deque()
        self.uncertain: deque[int] = deque()
        self.flushed = False
        self.broker_down = self.store_down = 0.0
        self.fair = False
        self.gives_back_after: float | None = None
        self.violations: list[str] = []
        self.on_publish: Callable[[Sequence[Attempt]], object] = lambda _attempts: None
        self._numbers = count(1)
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._between: list[tuple[int, Callable[[], object]]] = []
        self._swap: Record | None = None
        self._orphaned_at: dict[str, float] = {}

    # Time

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        self._due.append((self.clock.now + seconds, next(self._numbers), do))

    def between(self, calls: int, do: Callable[[], object]) -> None:
        """Do this when the engine has asked so many times more for something."""
        self._between.append((calls, do))

    def tick(self) -> None:
        """What happens by itself as time goes on."""
        for due in sorted(due for due in self._due if due[0] <= self.clock.now):
            if due in self._due:
                self._due.remove(due)
                due[2]()
        if self.fair:
            self._work()

    def asked(self) -> None:
        """The engine asks for something: what was to happen meanwhile happens first."""
        waiting, self._between = self._between, []
        for calls, do in waiting:
            if calls:
                self._between.append((calls - 1, do))
            else:
                do()
        self.tick()

    def become_fair(self) -> None:
        """From now on nothing breaks any more."""
        self.fates.clear()
        self.uncertain.clear()
        self._between.clear()
        self.broker_down = self.store_down = 0.0
        if self._swap is not None:
            self._append(self._swap)
            self._swap = None
        for worker in self.workers.values():
            self.start(worker)
            self.go_on(worker)
        self.fair = True

    def _work(self) -> None:
        for worker in self.workers.values():
            for delivery in list(worker.running):
                if delivery.ends and delivery.ends <= self.clock.now:
                    self.end(worker, delivery, "succeeded")
            for _ in range(PREFETCH - len(worker.deliveries)):
                self.take(worker)
            while worker.works and worker.reserved and not worker.running:
                begun = self.begin(worker)
                if begun is not None:
                    begun.ends = begun.ends or self.clock.now + 0.7
            for delivery in worker.running:
                if worker.works and not delivery.ends:
                    delivery.ends = self.clock.now + 0.7
        if self.gives_back_after is not None:
            self._give_back(self.gives_back_after)

    def _give_back(self, after: float) -> None:
        """The visibility timeout, for what nobody has any more."""
        for tag in self.orphaned_tags():
            since = self._orphaned_at.setdefault(tag, self.clock.now)
            if self.clock.now - since > after:
                self.give_back(tag)

    # Workers

    def take(self, worker: Worker, *, vanishes: bool = False) -> None:
        """A worker takes the next message; it ``vanishes`` if the worker dies right then."""
        if not (worker.works and self.queue) or self.clock.now < self.broker_down:
            return
        message = self.queue.popleft()
        if vanishes:
            self.meddled.add(message.task_id)
            return
        tag = f"tag-{next(self._numbers)}"
        self.unacked[tag] = message
        worker.reserved.append(Delivery(message, tag))

    def begin(self, worker: Worker) -> Delivery | None:
        """A worker begins what it took first; None where that had been revoked."""
        if not (worker.works and worker.reserved):
            return None
        delivery = worker.reserved.popleft()
        message = delivery.message
        number = next(self._numbers)
        execution = Execution(
            message,
            worker.name,
            FIRST_PID + number,
            f"x{number}",
            self.clock.now,
            self.clock.utc_now(),
        )
        if message.task_id in worker.revoked:
            self.unacked.pop(delivery.tag, None)
            self._store(execution, "revoked", "kept")
            return None
        delivery.execution = execution
        self.executions.append(execution)
        if not message.is_late:
            self.unacked.pop(delivery.tag, None)
        worker.running.append(delivery)
        self._append(self._record(message, _started(execution), started=True))
        poison = message.entry.meta.get("poison")
        if poison == "child":
            self.kill_child(worker, delivery)
        elif poison == "worker":
            self.kill(worker, restart=1.0)
        return delivery

    def end(self, worker: Worker, delivery: Delivery, how: How) -> None:
        """A running job ends, and its worker says so."""
        execution = delivery.execution
        if execution is None or execution.how != "running" or not worker.works:
            return
        worker.running.remove(delivery)
        execution.how = how
        if how == "retried":
            again = replace(delivery.message, retries=delivery.message.retries + 1)
            raw = _handed_on(execution, self.clock.utc_now())
            self._append(self._record(delivery.message, raw, started=False))
            self.retried.add(again.task_id)
            self.queue.append(again)
        else:
            state: State = "succeeded" if how == "succeeded" else "failed"
            self._store(execution, state, self.fates.popleft() if self.fates else "kept")
        self.unacked.pop(delivery.tag, None)

    def kill_child(self, worker: Worker, delivery: Delivery) -> None:
        """The process that runs a job dies; its worker notices after a while."""
        execution = delivery.execution
        if execution is None or execution.how != "running":
            return
        execution.how = "died"
        self.dead.add(execution.pid)
        self.later(NOTICED, lambda: self._notice(worker, delivery, execution))

    def kill_retrying(self, worker: Worker, delivery: Delivery, *, is_sent: bool) -> None:
        """The process of a job dies as it asks for a retry: its message is sent, or not any more.

        Its worker notices, and reports the death.
        """
        execution = delivery.execution
        if execution is None or execution.how != "running" or not worker.works:
            return
        raw = _handed_on(execution, self.clock.utc_now())
        self._append(self._record(delivery.message, raw, started=False))
        self.kill_child(worker, delivery)
        if is_sent:
            execution.how = "retried"
            self.queue.append(replace(delivery.message, retries=delivery.message.retries + 1))
            if delivery.message.is_late:  # and the broker delivers the first one again
                self.meddled.add(delivery.message.task_id)

    def give_again(self, worker: Worker, delivery: Delivery) -> None:
        """The process that runs a job dies before its worker heard that it began; another gets it.

        To the worker it is the same execution.
        """
        died = delivery.execution
        if died is None or died.how != "running" or not worker.works:
            return
        died.how = "died"
        self.dead.add(died.pid)
        self.meddled.add(delivery.message.task_id)
        again = replace(
            died,
            pid=FIRST_PID + next(self._numbers),
            began=self.clock.now,
            started_at=self.clock.utc_now(),
            how="running",
        )
        delivery.execution = again
        self.executions.append(again)
        self._append(self._record(delivery.message, _started(again), started=True))

    def _notice(self, worker: Worker, delivery: Delivery, execution: Execution) -> None:
        if delivery not in worker.running or not worker.alive:
            return
        if worker.paused:
            self.later(NOTICED, lambda: self._notice(worker, delivery, execution))
            return
        worker.running.remove(delivery)
        if delivery.message.is_late:
            self.give_back(delivery.tag)
        else:
            self._store(execution, "crashed", self.fates.popleft() if self.fates else "kept")

    def kill(self, worker: Worker, *, restart: float | None) -> None:
        """All processes of a worker die; a new one has its name, after so many seconds."""
        if not worker.alive:
            return
        for delivery in worker.running:
            if delivery.execution is not None and delivery.execution.how == "running":
                delivery.execution.how = "died"
        self.dead |= {one.pid for one in self.executions if one.worker == worker.name}
        worker.alive, worker.paused = False, False
        worker.running.clear()
        worker.reserved.clear()
        worker.revoked.clear()
        worker.heard.clear()
        self.losses.append(WorkerLoss(worker.name.partition("@")[0], -9))
        if restart is not None:
            self.later(restart, lambda: self.start(worker))

    def start(self, worker: Worker) -> None:
        worker.alive = True

    def go_on(self, worker: Worker) -> None:
        """A paused worker hears what was said meanwhile."""
        worker.paused = False
        self.hear(worker, worker.heard)
        worker.heard = set()

    def hear(self, worker: Worker, task_ids: Collection[str]) -> None:
        """Celery 5.7: a worker that does not run the job stores that it was revoked."""
        worker.revoked |= set(task_ids)
        runs = {delivery.message.task_id for delivery in worker.running}
        for task_id in task_ids:
            if task_id not in runs and task_id not in self.results:
                self.results[task_id] = BackendResult("revoked")

    # Messages

    def give_back(self, tag: str) -> None:
        """What a worker took goes back to its queue, whoever has it."""
        message = self.unacked.pop(tag, None)
        if message is not None:
            self.meddled.add(message.task_id)
            self.queue.appendleft(replace(message, redelivered=True))

    def orphaned_tags(self) -> list[str]:
        held = {delivery.tag for delivery in self._held()}
        return [tag for tag in self.unacked if tag not in held]

    def has(self, task_id: str, *, orphans: bool = True) -> bool:
        """Whether the message is anywhere, or a live process runs the job."""
        held = any(delivery.message.task_id == task_id for delivery in self._held())
        taken = orphans and any(m.task_id == task_id for m in self.unacked.values())
        return held or taken or any(message.task_id == task_id for message in self.queue)

    def _held(self) -> Iterator[Delivery]:
        """What live processes have, or will take from their own hands."""
        for worker in self._alive():
            for delivery in worker.deliveries:
                if delivery.execution is None or delivery.execution.how == "running":
                    yield delivery

    def is_alive(self, pid: int) -> bool:
        return pid not in self.dead

    def of(self, task_id: str) -> list[Execution]:
        return [one for one in self.executions if one.message.task_id == task_id]

    def flush(self, *, everything: bool) -> None:
        """The store is emptied; the broker too, where both are one server."""
        self.flushed = True
        self.began_stream = False
        self.stream.clear()
        self.results.clear()
        self.retried.clear()
        if everything:
            self.meddled |= {m.task_id for m in [*self.queue, *self.unacked.values()]}
            self.queue.clear()
            self.unacked.clear()

    def _alive(self) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.alive)

    # Receipts

    def _store(self, execution: Execution, state: State, fate: Fate) -> None:
        receipt = receipt_of(execution, state, self.clock.utc_now())
        task_id = receipt.task_id
        if fate == "tampered" and state == "succeeded":
            self.forged.add(task_id)
            receipt = receipt.model_copy(update={"result": "another"})
        if fate == "delayed":
            self.dropped.add(task_id)  # until it comes, which may be too late
            self.later(7.0, lambda: self._keep(execution, receipt, state, "kept"))
        else:
            self._keep(execution, receipt, state, fate)

    def _keep(self, execution: Execution, receipt: Receipt, state: State, fate: Fate) -> None:
        if fate == "dropped":
            self.dropped.add(receipt.task_id)
            return
        stored = self.results.get(receipt.task_id)
        if stored is None or stored.state != "succeeded":
            result = receipt.result if state == "succeeded" else None
            self.results[receipt.task_id] = BackendResult(
                state, result, receipt.error, receipt.finished_at
            )
        record = self._record(execution.message, finished(execution.name, receipt), started=False)
        if fate == "swapped":
            self._exchange(record, receipt)
        elif fate != "unsaid":
            self._append(record)
            if fate == "doubled":
                self._append(replace(record, number=next(self._numbers)))

    def _exchange(self, record: Record, receipt: Receipt) -> None:
        """Hold one receipt back until there is another one; then each has the other's task id."""
        other, self._swap = self._swap, None
        if other is None or other.task_id == record.task_id:
            self._append(record) if other is not None else None
            self._swap = other or record
            return
        self.forged |= {other.task_id, record.task_id}
        for mine, task_id in ((other, record.task_id), (record, other.task_id)):
            raw = mine.raw["receipt"]
            assert isinstance(raw, dict)
            changed = {**mine.raw, "receipt": {**raw, "task_id": task_id}}
            self._append(Record(next(self._numbers), changed, task_id, started=False))

    def _record(self, message: Message, raw: Mapping[str, object], *, started: bool) -> Record:
        return Record(next(self._numbers), raw, message.task_id, started)

    def tell(self, raw: Mapping[str, object]) -> None:
        """Somebody writes this into the stream."""
        self._append(Record(0, raw, "", started=False))

    def _append(self, record: Record) -> None:
        self.stream.append(replace(record, number=next(self._numbers)))


def _started(execution: Execution) -> dict[str, object]:
    message = execution.message
    return {
        "kind": "started",
        "run": message.attempt.run,
        "entry": message.entry.id,
        "attempt": message.attempt.number,
        "task_id": message.task_id,
        "task": message.entry.task,
        "execution": execution.name,
        "worker": execution.worker,
        "host": HOST,
        "pid": execution.pid,
        "started_at": timestamp(execution.started_at),
        "redelivered": message.redelivered,
        "retries": message.retries,
    }


def _handed_on(execution: Execution, now: datetime) -> dict[str, object]:
    return {
        "kind": "handed_on",
        "task_id": execution.message.task_id,
        "execution": execution.name,
        "how": "retry",
        "ended_at": timestamp(now),
        "next_at": None,
    }


def finished(execution: str, receipt: Receipt) -> dict[str, object]:
    """The stream's record of this receipt."""
    return {
        "kind": "finished",
        "execution": execution,
        "receipt": receipt.model_dump(mode="json"),
    }


def result_of(entry: Entry) -> str:
    """What the entry's task returns."""
    return f"result of {entry.id}"


def receipt_of(execution: Execution, state: State, now: datetime) -> Receipt:
    """What an instrumented worker says of an execution that ended."""
    message = execution.message
    entry = message.entry
    result = result_of(entry) if state == "succeeded" else None
    began = state not in NEVER_STARTED_STATES
    ran = began and state != "crashed"
    costs = {"cost": entry.meta["costs"]} if ran and "costs" in entry.meta else {}
    error = ErrorInfo(type="Boom", message="no") if state in ("failed", "crashed") else None
    return Receipt(
        run=message.attempt.run,
        entry=entry.id,
        attempt=message.attempt.number,
        task_id=message.task_id,
        task=entry.task,
        state=state,
        result=result,
        error=error,
        worker=execution.worker,
        host=HOST,
        pid=execution.pid if began else None,
        sent_at=message.sent_at,
        started_at=execution.started_at if began else None,
        finished_at=now,
        children=0,
        runtime=RUNTIME if began else None,
        evidence=costs,
        executions=1,
        redelivered=message.redelivered,
        retries=message.retries,
        args_sha256=arguments_sha256(entry.args, entry.kwargs),
        result_sha256=json_sha256(result) if state == "succeeded" else None,
    )
