"""How fast a batch gets to the broker: ours, ledger included, against ``group(...).apply_async()``.

    python -m benchmarks.dispatch [--entries=N] [--rounds=N] [--broker=valkey|rabbitmq|both]

No worker runs. Ours is what a run does: each batch is in the ledger as intended before it is
published, and as sent after it. All run in this process, by turns; the queue is emptied between.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery, group
from loguru import logger

from benchmarks.side_by_side import Figure, figure, tell, write_manifest
from pytest_manifest.broker.attempt import Attempt, attempt_of, new_run_id
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.log import add_run_log
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.fact_log import ClockWatch, FactLog
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.pressure import Health, Pressure
from pytest_manifest.run.schedule import Schedule, Sender
from pytest_manifest.urls import StackAddress
from tests.services import ServiceUnavailableError, rabbitmq_server, valkey_server

GOALS = {"valkey": 10.0, "rabbitmq": 3.0}


def their_app(broker: str, backend: str) -> Any:
    app = Celery("jobs", broker=broker, backend=backend, set_as_current=False)

    def echo(number: int) -> int:
        return number

    return app.task(name="jobs.echo")(echo)


def by_group(task: Any, entries: int) -> float:
    """Seconds that Celery's own way takes."""
    began = time.perf_counter()
    group(task.s(number) for number in range(entries)).apply_async()
    return time.perf_counter() - began


def by_loop(task: Any, entries: int) -> float:
    began = time.perf_counter()
    for number in range(entries):
        task.delay(number)
    return time.perf_counter() - began


def by_sender(
    manifest: Manifest, address: StackAddress, folder: Path, *, own_apply_async: bool = False
) -> tuple[float, float]:
    """Seconds that ours takes, and that publishing alone takes of them."""
    run = new_run_id()
    attempts = [attempt_of(run, entry, 1, n) for n, entry in enumerate(manifest)]
    now = datetime.now(timezone.utc)
    info = RunInfo(
        run, manifest.path, manifest.sha256, None, None, len(manifest), now, "", "", False, 3600
    )
    publisher = Publisher(
        address, stream="manifest:bench:receipts", ttl=3600, own_apply_async=own_apply_async
    )
    published = _count_time(publisher)
    with closing(publisher), Ledger.create(folder / f"{run}.sqlite", info) as ledger:
        with ledger.transaction():
            ledger.attempts.plan((a.task_id, a.entry.id, 1, n) for n, a in enumerate(attempts))
        schedule, flights = Schedule(attempts), PendingAttempts()
        schedule.start()
        facts = FactLog(ledger)
        unheld = Pressure(facts, {}, None, lambda: ("", 0), health=Health(None, [], []), keys=None)
        parts = ledger, publisher, schedule, flights, len(attempts), facts, unheld
        sender = Sender(*parts, ClockWatch(ledger))
        began = time.perf_counter()
        while sender.has_room:
            error = sender.send_some()
            if error is not None:
                raise error
        return time.perf_counter() - began, sum(published)


def _count_time(publisher: Publisher) -> list[float]:
    """Seconds of each call of ``publish``, as they come."""
    taken: list[float] = []
    publish = publisher.publish

    def timed(attempts: Sequence[Attempt], sent_at: datetime) -> Any:
        began = time.perf_counter()
        try:
            return publish(attempts, sent_at)
        finally:
            taken.append(time.perf_counter() - began)

    publisher.publish = timed  # type: ignore[method-assign]  # to look inside, for this run alone
    return taken


def measure(name: str, broker: str, backend: str, entries: int, rounds: int) -> list[Figure]:
    logger.remove()
    ratios: list[float] = []
    loops: list[float] = []
    rates: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_manifest(path / "m.jsonl", entries)
        manifest = read_manifest(path / "m.jsonl")
        address = StackAddress(broker, backend, None, is_private=False)
        add_run_log(path / "run.log")  # as a run has it
        for turn in range(rounds + 1):  # the first one warms up
            # Anew, for Celery reads no answers to what it subscribes to of results: after some
            # 100,000 sendings of one app it waits two minutes for room in the connection.
            task = their_app(broker, backend)
            theirs = by_group(task, entries)
            empty_queue(task.app)
            loop = by_loop(task, entries)
            empty_queue(task.app)
            ours, publishing = by_sender(manifest, address, path)
            empty_queue(task.app)
            task.app.close()
            if turn:
                ratios.append(theirs / ours)
                loops.append(loop / ours)
                rates.append((entries / ours, entries / theirs, entries / publishing))
    ours_rate, their_rate, publishing_rate = sorted(rates)[len(rates) // 2]
    return [
        figure(
            f"dispatch on {name}",
            "group(...).apply_async()",
            ratios,
            GOALS[name],
            ours_per_s=ours_rate,
            theirs_per_s=their_rate,
            without_ledger_per_s=publishing_rate,
            times_a_loop_of_delay=sorted(loops)[len(loops) // 2],
        )
    ]


def empty_queue(app: Celery) -> None:
    """A broker with a full queue is slower, and one that still writes it down takes processor."""
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("celery")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--broker", choices=("valkey", "rabbitmq", "both"), default="both")
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    left_out: list[str] = []
    with valkey_server() as valkey:
        if options.broker != "rabbitmq":
            figures += measure("valkey", valkey, valkey, options.entries, options.rounds)
        if options.broker != "valkey":
            try:
                with rabbitmq_server() as broker:
                    figures += measure("rabbitmq", broker, valkey, options.entries, options.rounds)
            except ServiceUnavailableError as error:
                left_out.append(f"dispatch on rabbitmq: {error}")
    tell(figures, options.json, left_out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
