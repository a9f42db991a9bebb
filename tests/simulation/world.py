"""The simulated world with what whole sessions meet in it: stacks that end, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from pytest_manifest.schema import State
from tests.simulation.program import UNKNOWN_TASK
from tests.unit.run_actions import WorldActions
from tests.unit.run_world import FIRST_PID, Delivery, Execution, Fate, How, Message, Worker, World

REFUSAL = "it is somebody else's"
CLOCK_SET = "the wall's clock is set"
LIMITS = (0.05, 100.0, 3.0)
"""Seconds that tasks may run by limits of their own; jobs say that they ran for longer than one."""
OUTAGES = (0.3, 1.2, 6.0, 20.0, 100.0)
"""Seconds that broker or store are away; a run gives up after a minute."""


class SimulatedWorld(World):
    """A world that outlives the processes that look at it. ``reached``: what happened how often."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: Counter[str] = Counter()
        self.has_deadline = False
        """Whether a session has one as a whole."""
        self.complain: Callable[[str], object] = lambda _sentence: None
        """Called with what a session does that it must not."""
        self.refuses = 0.0
        """Until when the broker refuses the queue."""
        self.own_limit: float | None = None
        """The limit (s) that tasks have of their own, as a session finds it when it begins."""
        self.least_limit = float("inf")
        self.lies = False
        """Whether the next end is told of an execution that nobody has begun."""
        self.turned_away: set[str] = set()
        """Task ids of messages that a worker took and did not run."""

    def position(self, text: str) -> int:
        """Give the number of the last record that is not after this position of the stream."""
        return int(text)

    # Workers

    def take(self, worker: Worker, *, vanishes: bool = False) -> None:
        before = len(self.meddled)
        super().take(worker, vanishes=vanishes)
        if vanishes and len(self.meddled) > before:
            self.reached["worker killed in the instant of taking a message"] += 1

    def begin(self, worker: Worker) -> Delivery | None:
        """A worker turns away what has expired, or what it does not know, and begins the rest."""
        state = self._turned_away(worker.reserved[0].message) if worker.reserved else None
        if state is None or not worker.works:
            return super().begin(worker)
        delivery, number = worker.reserved.popleft(), next(self._numbers)
        self.unacked.pop(delivery.tag, None)
        self.turned_away.add(delivery.message.task_id)
        name, pid = f"x{number}", FIRST_PID + number
        clock = self.clock
        one = Execution(
            delivery.message, worker.name, pid, name, clock.now, started_at=clock.utc_now()
        )
        self._store(one, state, "kept")
        return None

    def _turned_away(self, message: Message) -> State | None:
        if message.entry.task == UNKNOWN_TASK:
            return "unknown_task"
        expires = message.entry.expires
        if not isinstance(expires, float):
            return None
        age = (self.clock.utc_now() - message.sent_at).total_seconds()
        return "expired" if age > expires else None

    def end(self, worker: Worker, delivery: Delivery, how: How) -> None:
        was_running = delivery.execution is not None and delivery.execution.how == "running"
        super().end(worker, delivery, how)
        if how == "retried" and was_running and worker.works:
            self.reached["asked Celery for a retry"] += 1

    def kill_child(self, worker: Worker, delivery: Delivery) -> None:
        if delivery.execution is not None and delivery.execution.how == "running":
            late = ", acknowledged late" if delivery.message.is_late else ""
            self.reached[f"process of a job killed{late}"] += 1
        super().kill_child(worker, delivery)

    def kill_retrying(self, worker: Worker, delivery: Delivery, *, is_sent: bool) -> None:
        if delivery.execution is not None and delivery.execution.how == "running" and worker.works:
            self.reached["process killed as it had asked for a retry"] += is_sent
            self.reached["process killed as it asked for a retry"] += not is_sent
        super().kill_retrying(worker, delivery, is_sent=is_sent)

    def give_again(self, worker: Worker, delivery: Delivery) -> None:
        before = len(self.executions)
        super().give_again(worker, delivery)
        self.reached["job given to another process"] += len(self.executions) - before

    def kill(self, worker: Worker, *, restart: float | None) -> None:
        if worker.alive:
            running = [one for one in worker.running if one.execution is not None]
            self.reached["whole worker killed while it ran a job"] += bool(running)
            self.reached["worker killed that had taken and not begun"] += bool(worker.reserved)
        super().kill(worker, restart=restart)

    def give_back(self, tag: str) -> None:
        self.reached["message delivered again by the broker"] += tag in self.unacked
        super().give_back(tag)

    def _store(self, execution: Execution, state: State, fate: Fate) -> None:
        self.reached[f"receipt {fate}"] += 1
        if self.lies and state == "succeeded":
            self.lies = False
            self.forged.add(execution.message.task_id)
            self.reached["end told of what nobody had begun"] += 1
            execution = replace(execution, name=f"{execution.name}-unbegun")
        super()._store(execution, state, fate)

    # Processes and stacks

    def forget_process(self) -> None:
        """Nothing of a pytest that is over is left half done."""

    def end_stack(self, *, forget: bool) -> None:
        """A private stack ends with its pytest; what it held is kept, unless it is of no use."""
        for worker in self.workers.values():
            self.kill(worker, restart=None)
        if forget:
            self.flush(everything=True)

    def start_stack(self) -> None:
        """Another stack is started on what the last one has left."""
        for worker in self.workers.values():
            self.start(worker)


class Actions(WorldActions):
    """What may happen to it."""

    world: SimulatedWorld

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self.world = world

    def refuse(self, worker: Worker, number: int) -> None:
        """The broker will not have the queue for a while."""
        self.world.refuses = self.world.clock.now + OUTAGES[number % len(OUTAGES)]
        self.world.reached["broker refuses the queue"] += 1

    def limit(self, worker: Worker, number: int) -> None:
        """Tasks get another limit, for sessions that begin from now on."""
        self.world.own_limit = LIMITS[number % len(LIMITS)]
        self.world.least_limit = min(self.world.least_limit, self.world.own_limit)
        self.world.reached["a task's own limit is changed"] += 1

    def lie(self, worker: Worker, number: int) -> None:
        """The end of a job that runs is told of an execution that nobody has begun."""
        self.world.lies = True
        self.end(worker, 0)

    def broker(self, worker: Worker, number: int) -> None:
        self.world.broker_down = self.world.clock.now + OUTAGES[number % len(OUTAGES)]
        self.world.reached["broker away"] += 1

    def store(self, worker: Worker, number: int) -> None:
        self.world.store_down = self.world.clock.now + OUTAGES[number % len(OUTAGES)]
        self.world.reached["result store away"] += 1

    def flush(self, worker: Worker, number: int) -> None:
        super().flush(worker, number)
        self.world.reached["broker or result store emptied"] += 1

    def pause(self, worker: Worker, number: int) -> None:
        self.world.reached["worker paused"] += worker.works
        super().pause(worker, number)

    def double(self, worker: Worker, number: int) -> None:
        self.world.reached["message delivered twice"] += bool(self.world.queue)
        super().double(worker, number)

    def jump(self, worker: Worker, number: int) -> None:
        self.world.reached[CLOCK_SET] += 1
        super().jump(worker, number)

    def remove(self, worker: Worker, number: int) -> None:
        """Somebody removes a message from the queue."""
        if self.world.queue:
            message = self.world.queue[number % len(self.world.queue)]
            self.world.queue.remove(message)
            self.world.meddled.add(message.task_id)
            self.world.reached["message removed from the queue"] += 1

    def revoke(self, worker: Worker, number: int) -> None:
        """Somebody has a waiting job revoked."""
        if self.world.queue:
            task_id = self.world.queue[number % len(self.world.queue)].task_id
            for one in self.world.workers.values():
                if one.works:
                    self.world.hear(one, [task_id])
            self.world.meddled.add(task_id)
            self.world.reached["revoked by somebody"] += 1
