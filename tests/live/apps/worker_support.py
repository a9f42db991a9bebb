"""Real ``celery worker`` processes for the worker-side tests, and what they hand in."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from pytest_manifest.results.records import FinishedRecord, Record, StartedRecord, parse_record
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.wire import stream_key, timestamp
from tests.processes import child, tail, temporary_directory, wait_until
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[3]
STOCK = "tests.live.apps.worker_stock"
INSTRUMENTED = "tests.live.apps.worker_instrumented"
INCLUDE = ("-I", "pytest_manifest.worker")
SECONDS = 40.0
TTL = 600


@dataclass(frozen=True)
class Flavour:
    """One way of starting a worker."""

    name: str
    app: str = STOCK
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """A message that was sent; ``run`` is a run of its own."""

    run: str
    task_id: str


class Bench:
    """A worker that runs, the client that sends to its queue, and the stores that it writes to."""

    def __init__(
        self, broker: str, backend: str, flavour: Flavour, log: Path, directory: Path
    ) -> None:
        self.flavour = flavour
        self.queue = f"{flavour.name}-{uuid.uuid4().hex[:8]}"
        self.node = f"{self.queue}@localhost"
        self.log = log
        self.directory = directory
        self.spool = directory / "spool"
        self.truth = directory / "truth"
        self.app = Celery(broker=broker, backend=backend)
        self._sender = self.app
        if backend.startswith("redis"):
            # As the dispatcher does, it asks no store when it sends; one may be frozen.
            self._sender = Celery(broker=broker, backend="disabled://", set_as_current=False)
        self.process_id = 0
        self._broker, self.backend = broker, backend

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "-A", self.flavour.app, "worker"),
            *("-Q", self.queue, "-n", self.node, "-c", "1", "-l", "INFO"),
            *("--without-gossip", "--without-mingle"),
            *self.flavour.options,
        ]

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("MANIFEST_")
        }
        return inherited | {
            "CELERY_BROKER_URL": self._broker,
            "CELERY_RESULT_BACKEND": self.backend,
            "MANIFEST_SPOOL": str(self.spool),
            "MANIFEST_TEST_QUEUE": self.queue,
            "MANIFEST_TEST_TRUTH": str(self.truth),
            **self.flavour.environment,
        }

    def send(self, task: str, *args: object, ours: bool = True, **options: Any) -> Sent:
        """Send as the dispatcher does: an id and headers of our own."""
        run8 = uuid.uuid4().hex[:8]
        run = f"20261124T150000-{run8}"
        sent = Sent(run, options.pop("task_id", f"{run8}-{uuid.uuid4()}"))
        headers = options.pop("headers", {})
        if ours:
            headers = self.headers(run) | headers
        self._sender.send_task(
            task,
            args=list(args),
            task_id=sent.task_id,
            queue=self.queue,
            headers=headers,
            **options,
        )
        return sent

    @staticmethod
    def headers(run: str) -> dict[str, object]:
        return {
            "manifest_run": run,
            "manifest_entry": "the entry",
            "manifest_attempt": 2,
            "manifest_sent_at": timestamp(datetime.now(timezone.utc)),
            "manifest_stream": stream_key(run),
            "manifest_ttl": TTL,
        }

    def records(self, sent: Sent) -> list[Record]:
        """Everything in the run's stream."""
        with redis.Redis.from_url(self.backend) as client:
            rows = client.xrange(stream_key(sent.run))
        documents = [json.loads(fields[b"r"]) for _, fields in rows]
        records = [parse_record(document) for document in documents]
        assert None not in records
        return [record for record in records if record is not None]

    def starts(self, sent: Sent) -> list[StartedRecord]:
        return [record for record in self.records(sent) if isinstance(record, StartedRecord)]

    def ends(self, sent: Sent) -> list[FinishedRecord]:
        return [record for record in self.records(sent) if isinstance(record, FinishedRecord)]

    def receipt(self, sent: Sent, within: float = SECONDS) -> Receipt:
        """The run's receipt, once it is there; there must be one only, and it must be valid."""
        try:
            eventually(lambda: self.ends(sent), within=within, what="a receipt")
        except AssertionError as missing:
            raise AssertionError(f"{missing}\n{tail(self.log, 25)}") from None
        (record,) = self.ends(sent)
        return Receipt.model_validate(record.receipt)

    def ask(self, task: str, *args: object, **options: Any) -> Receipt:
        """Send, wait until the worker has gone on to a next task, and return the one receipt."""
        sent = self.send(task, *args, **options)
        self.receipt(sent)
        self.settle()
        return self.receipt(sent)

    def settle(self) -> None:
        """Return when the worker has run one more task: whatever it had to say before is said."""
        self.settle_with("empty")

    def settle_with(self, task: str) -> None:
        """Do that with a task of this name."""
        self.receipt(self.send(task, task_id=f"settle-{uuid.uuid4()}"))

    def answers(self) -> bool:
        return bool(self.app.control.ping(destination=[self.node], timeout=0.5))

    def spooled(self) -> list[Path]:
        """What is kept there of tasks; each process has a note of its own besides."""
        return sorted(one for one in self.spool.glob("*") if not one.name.startswith("waits-"))


def bench_of(flavours: Sequence[Flavour], first: pytest.MarkDecorator) -> object:
    """The fixture of a module that asks a worker of each flavour; ``first``: the mark of one."""

    @pytest.fixture(
        scope="module",
        params=[pytest.param(flavours[0], marks=first), *flavours[1:]],
        ids=lambda flavour: flavour.name,
    )
    def bench(request: pytest.FixtureRequest, valkey: str) -> Iterator[Bench]:
        with running_worker(valkey, valkey, request.param) as running:
            yield running

    return bench


@contextmanager
def running_worker(broker: str, backend: str, flavour: Flavour) -> Iterator[Bench]:
    """Start a worker of this flavour; it ends with the block."""
    with temporary_directory() as directory:
        log = directory / "worker.log"
        bench = Bench(broker, backend, flavour, log, directory)
        with child(bench.command(), log=log, cwd=ROOT, env=bench.environment()) as process:
            bench.process_id = process.pid
            wait_until(bench.answers, process, log=log, name="the worker")
            yield bench
            bench.app.close()
