"""What may happen to a simulated world, each as an action of a worker and a number."""

from __future__ import annotations

from tests.unit.run_world import Fate, How, Worker, World

SECONDS = (0.3, 1.2, 6.0, 20.0)
HOWS: tuple[How, ...] = ("succeeded", "failed", "retried")
FATES: tuple[Fate, ...] = ("dropped", "unsaid", "doubled", "delayed", "swapped", "tampered", "kept")
HOURS = (-5, 3, 8)
PAUSE = 50.0


class WorldActions:
    """Does to a world what its methods are called."""

    def __init__(self, world: World) -> None:
        self.world = world

    def take(self, worker: Worker, number: int) -> None:
        self.world.take(worker)

    def begin(self, worker: Worker, number: int) -> None:
        self.world.begin(worker)

    def end(self, worker: Worker, number: int) -> None:
        if worker.running:
            delivery = worker.running[number // 7 % len(worker.running)]
            self.world.end(worker, delivery, HOWS[number % len(HOWS)])

    def work(self, worker: Worker, number: int) -> None:
        """Take one and run it to its end."""
        self.take(worker, 0)
        self.begin(worker, 0)
        self.end(worker, number)

    def kill_child(self, worker: Worker, number: int) -> None:
        if worker.running:
            self.world.kill_child(worker, worker.running[number % len(worker.running)])

    def kill_retrying(self, worker: Worker, number: int) -> None:
        if not worker.running:
            self.take(worker, 0)
            self.begin(worker, 0)
        if worker.running:
            delivery = worker.running[number // 2 % len(worker.running)]
            self.world.kill_retrying(worker, delivery, is_sent=number % 2 == 0)

    def again(self, worker: Worker, number: int) -> None:
        if worker.running:
            self.world.give_again(worker, worker.running[number % len(worker.running)])

    def kill(self, worker: Worker, number: int) -> None:
        self.world.kill(worker, restart=(None, 0.2, 3.0)[number % 3])

    def vanish(self, worker: Worker, number: int) -> None:
        self.world.take(worker, vanishes=True)

    def pause(self, worker: Worker, number: int) -> None:
        """It neither works nor answers, for a while that nobody takes for its death."""
        if worker.works:
            worker.paused = True
            self.world.later(PAUSE, lambda: self.world.go_on(worker))

    def go_on(self, worker: Worker, number: int) -> None:
        if worker.alive:
            self.world.go_on(worker)
        else:
            self.world.start(worker)

    def double(self, worker: Worker, number: int) -> None:
        """Somebody sends a message once more."""
        if self.world.queue:
            message = self.world.queue[number % len(self.world.queue)]
            self.world.meddled.add(message.task_id)
            self.world.queue.append(message)

    def give_back(self, worker: Worker, number: int) -> None:
        """A visibility timeout that is too short."""
        if self.world.unacked:
            self.world.give_back(sorted(self.world.unacked)[number % len(self.world.unacked)])

    def uncertain(self, worker: Worker, number: int) -> None:
        self.world.uncertain.append(number)

    def broker(self, worker: Worker, number: int) -> None:
        self.world.broker_down = self.world.clock.now + SECONDS[number % len(SECONDS)]

    def store(self, worker: Worker, number: int) -> None:
        self.world.store_down = self.world.clock.now + SECONDS[number % len(SECONDS)]

    def fate(self, worker: Worker, number: int) -> None:
        self.world.fates.append(FATES[number % len(FATES)])

    def flush(self, worker: Worker, number: int) -> None:
        self.world.flush(everything=number % 2 == 1)

    def jump(self, worker: Worker, number: int) -> None:
        self.world.clock.jump(HOURS[number % len(HOURS)])
