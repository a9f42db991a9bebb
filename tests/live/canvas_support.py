"""Whole runs of ``apps.canvas``: a worker of some pool, a run, and what the tasks noted of it."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Connection, Exchange, Queue

from pytest_manifest.ledger import Descendant, EntryVerdict, Ledger
from pytest_manifest.manifest import write_manifest
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.facts import Started
from pytest_manifest.urls import StackAddress
from tests import processes
from tests.live.apps import canvas
from tests.support import eventually

ROOT = Path(__file__).parents[2]
MODULE = "tests.live.apps.canvas"
DEADLINE = 300.0
"""Seconds after which a run ends whatever; far more than any needs, on a busy machine, too."""
SLOTS: Mapping[str, int] = {"prefork": 32, "threads": 64, "solo": 1}
"""How many jobs the worker of each pool runs at once; so many can wait at the gate together."""


class Bench:
    """A broker with a queue of our own, a result store, and a worker of one pool."""

    def __init__(self, broker: str, backend: str, pool: str, folder: Path) -> None:
        self.pool = pool
        self.queue = f"canvas-{secrets.token_hex(4)}"
        self.address = StackAddress(broker, backend, None, is_private=False)
        self.truth, self.gate, self.log = folder / "truth", folder / "gate", folder / "worker.log"
        self.folder = folder
        self._stack = ExitStack()
        self._node = f"{self.queue}@localhost"
        self._process: psutil.Process | None = None
        self._queues: set[str] = set()

    def start_worker(self) -> None:
        """Start one, in the place of the last; it answers on return."""
        command = [*(sys.executable, "-m", "celery", "-A", MODULE, "worker", "-l", "info")]
        command += [*("-I", "pytest_manifest.worker", "-Q", self.queue, "-n", self._node)]
        command += [*("-P", self.pool, "-c", str(SLOTS[self.pool]))]
        command += [*("--without-gossip", "--without-mingle")]
        child = processes.child(command, log=self.log, cwd=ROOT, env=self._environment())
        process = self._stack.enter_context(child)
        self._await([self._node], process)
        self._process = psutil.Process(process.pid)

    def queues_for(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return a queue for each of these, for a worker that has it for itself."""
        return {name: f"{canvas.ALONE}{self.queue}-{n}" for n, name in enumerate(names)}

    @contextmanager
    def solo_workers(self, queues: Collection[str], name: str = "worker") -> Iterator[None]:
        """Run a solo worker for each queue while the block runs; no queue is left behind."""
        command = [sys.executable, "-m", "tests.live.apps.canvas_workers", name, *queues]
        child = processes.child(command, log=self.log, cwd=ROOT, env=self._environment())
        self._queues.update(queues)
        with child as process:
            self._await([f"{queue}-{name}@localhost" for queue in queues], process)
            yield

    def _environment(self) -> Mapping[str, str]:
        return {n: v for n, v in os.environ.items() if not n.startswith("MANIFEST_")} | {
            "CELERY_BROKER_URL": self.address.broker_url,
            "CELERY_RESULT_BACKEND": self.address.backend_url,
            canvas.QUEUE: self.queue,
            canvas.TRUTH: str(self.truth),
            canvas.GATE: str(self.gate),
        }

    def _await(self, nodes: list[str], process: Popen[bytes]) -> None:
        """Wait until workers answer, each of them."""
        silent = set(nodes)

        def all_answer() -> bool:
            with (
                suppress(Exception),
                Celery(broker=self.address.broker_url, set_as_current=False) as app,
                app.connection_for_write() as connection,
            ):
                limit = len(silent)
                answers = app.control.ping(list(silent), 0.5, limit=limit, connection=connection)
                silent.difference_update(*answers)
            return not silent

        processes.wait_until(all_answer, process, log=self.log, name="the worker")

    def kill_worker(self) -> None:
        """kill -9 of the worker and of its pool, at once."""
        assert self._process is not None
        family = [self._process, *self._process.children(recursive=True)]
        for one in family:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family[1:], timeout=10)

    def close(self) -> None:
        """End the worker, and leave no queue on the broker."""
        self.gate.touch()
        self._stack.close()
        with Connection(self.address.broker_url) as connection:
            aside = {canvas.queue_of(self.queue, fate) for fate in canvas.ASIDE}
            for name in {self.queue, *aside, *self._queues}:
                connection.default_channel.queue_delete(name)

    def noted(self) -> list[tuple[str, ...]]:
        """Every line that tasks have written so far."""
        if not self.truth.exists():
            return []
        return [tuple(line.split("\t")) for line in self.truth.read_text().splitlines()]

    def waiting(self) -> int:
        """How many tasks have come to the gate so far."""
        return sum(line[0] == canvas.WAITS for line in self.noted())

    def open_gate(self) -> None:
        """Let all go on that wait there, and return when they have."""
        self.gate.touch()
        eventually(self._is_empty, within=30, what="nobody waits at the gate")

    def _is_empty(self) -> bool:
        return sum(line[0] == canvas.GOES_ON for line in self.noted()) == self.waiting()

    def runs_only_what_waits(self) -> bool:
        """Whether nothing is left but tasks at the gate; a solo worker that runs one says nothing.

        What starts others has published all of it when the last of these has been run.
        """
        if self.pool == "solo":
            return True
        with (
            Celery(broker=self.address.broker_url, set_as_current=False) as app,
            app.connection_for_write() as connection,
        ):
            ask = app.control.inspect([self._node], timeout=2.0, connection=connection, limit=1)
            channel, left = connection.default_channel, 0
            with suppress(ChannelError):  # Redis has no empty queues
                left = channel.queue_declare(self.queue, passive=True).message_count
            active, reserved = ask.active(), ask.reserved()
        if not active or not reserved or left or any(reserved.values()):
            return False
        return "leaf" not in {task["name"] for tasks in active.values() for task in tasks}


@contextmanager
def bench(broker: str, backend: str, pool: str) -> Iterator[Bench]:
    """Give one whose worker answers."""
    with processes.temporary_directory() as folder:
        made = Bench(broker, backend, pool, folder)
        try:
            made.start_worker()
            yield made
        finally:
            made.close()


@dataclass
class Played:
    """What a run made of its entries: verdicts and trees by entry id, by the ledger, and the truth.

    ``told`` and ``noted`` are the numbers of executions by task id: those that are in the ledger,
    and those that the tasks noted themselves.
    """

    entries: Mapping[str, Entry]
    verdicts: Mapping[str, EntryVerdict]
    trees: Mapping[str, Mapping[str, Descendant]]
    roots: Mapping[str, str]
    told: Counter[str]
    noted: Counter[str]

    def statuses(self) -> dict[str, str]:
        return {name: one.verdict.verdict for name, one in self.verdicts.items()}

    def sentence(self, name: str) -> str:
        return self.verdicts[name].verdict.sentence


def play(
    where: Bench, entries: list[Entry], meanwhile: Callable[[], None] = lambda: None
) -> Played:
    """Run these entries to their verdicts; ``meanwhile`` is called once the run has begun.

    What waits at the gate goes on when the run has ended.
    """
    where.gate.unlink(missing_ok=True)
    before = len(where.noted())
    folder = where.folder / secrets.token_hex(4)
    folder.mkdir()
    manifest = write_manifest(folder / "canvas.jsonl", Header(), entries)
    settings = RunSettings(folder=folder / "runs", deadline=DEADLINE)
    run = dispatch_run(manifest, manifest.ids, where.address, settings)
    run.prepare(expected_workers=1)
    try:
        run.start()
        meanwhile()
        run.ended.wait()
        lines = where.noted()[before:]
    finally:
        run.stop()
        where.gate.touch()
    assert run.error is None, run.error
    with run.read() as ledger:
        return _played({one.id: one for one in entries}, ledger, lines)


def _played(entries: Mapping[str, Entry], ledger: Ledger, lines: list[tuple[str, ...]]) -> Played:
    verdicts = {one.verdict.entry: one for one in ledger.queries.all_verdicts()}
    roots = {one.entry: one.task_id for one in ledger.attempts.all()}
    trees = {
        name: {one.task_id: one for one in ledger.descendants.of_root(root)}
        for name, root in roots.items()
    }
    ids = {*roots.values(), *(task_id for tree in trees.values() for task_id in tree)}
    told = Counter({i: len(some) for i, some in ledger.events.each(Started, list(ids)).items()})
    # What waited at the gate in the run before may have gone on since, and have started more.
    noted = Counter(line[1] for line in lines if line[0] == canvas.EXECUTION and line[1] in ids)
    return Played(entries, verdicts, trees, roots, told, noted)


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Call it again and again, in a thread, while the block runs; raise what it raised."""
    stop, raised = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            while not stop.wait(0.05):
                work()
        except BaseException as error:  # for the thread that waits
            raised.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if raised:
        raise raised[0]


@contextmanager
def tampering(where: Bench) -> Iterator[None]:
    """Have the messages that are put aside for it lost, or sent twice, while the block runs."""
    names = {fate: canvas.queue_of(where.queue, fate) for fate in canvas.ASIDE}
    with Connection(where.address.broker_url) as connection:
        channel = connection.channel()
        producer = connection.Producer(channel)
        for name in names.values():
            Queue(name, Exchange(name), routing_key=name).bind(channel).declare()

        def work() -> None:
            for fate, name in names.items():
                while (message := channel.basic_get(name, no_ack=True)) is not None:
                    for _ in range(2 if fate == "twice" else 0):
                        _send(producer, message, where.queue)

        with in_background(work):
            yield


def _send(producer: Any, message: Any, queue: str) -> None:
    """Send a message as it is to another queue."""
    kept = ("correlation_id", "reply_to", "priority", "expiration")
    options = {name: message.properties.get(name) for name in kept}
    producer.publish(
        message.body,
        exchange="",
        routing_key=queue,
        headers=message.headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        **{name: value for name, value in options.items() if value is not None},
    )
