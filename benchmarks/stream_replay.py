"""How many receipts a second the harness takes in: those of 50 worker processes, replayed.

    python -m benchmarks.stream_replay [--entries=N] [--rate=N] [--json=FILE]

Receipts as 50 worker processes would write them stand in the stream of a real Valkey, a start and
an end for each job. First they are all there, and the engine (reading, checking, judging, ledger)
takes them as fast as it can. Then another process writes them at a fixed rate, and it is told how
far behind the last verdict is: falling behind means that this grows with the length of the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import redis
from loguru import logger

from benchmarks.side_by_side import Figure, environment, figure, tell, write_manifest
from pytest_manifest.broker.attempt import Attempt, attempt_of, new_run_id
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.log import add_run_log
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.plugin.session import nothing_thrown_away
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run.connections import EngineContext, RunConnections, RunState
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema.wire import arguments_sha256, json_sha256, stream_key, timestamp
from pytest_manifest.urls import StackAddress
from tests.services import valkey_server

WORKERS = 50
WRITER = """
import sys, time
import redis

url, key, rate, path = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
client = redis.Redis.from_url(url)
lines = open(path, "rb").read().splitlines()
began, done = time.perf_counter(), 0
while done < len(lines):
    due = min(len(lines), int((time.perf_counter() - began) * 2 * rate) + 1)
    if due > done:
        with client.pipeline(transaction=False) as pipe:
            for line in lines[done:due]:
                pipe.xadd(key, {"r": line})
            pipe.execute()
        done = due
    time.sleep(0.002)
print(time.time())
"""


def records(attempts: Sequence[Attempt], sent_at: datetime) -> Iterator[bytes]:
    """The start and the end of each job, as workers of ours write them."""
    sent = timestamp(sent_at)
    for number, attempt in enumerate(attempts):
        worker = f"w{number % WORKERS}@host{number % WORKERS // 4}"
        entry, value = attempt.entry, attempt.entry.args[0]
        now = timestamp(datetime.now(timezone.utc))
        common: dict[str, object] = {
            "run": attempt.run,
            "entry": entry.id,
            "attempt": 1,
            "task_id": attempt.task_id,
            "task": entry.task,
            "worker": worker,
            "host": worker.partition("@")[2],
            "pid": 1000 + number % WORKERS,
            "queue": "celery",
            "sent_at": sent,
            "received_at": now,
            "started_at": now,
            "redelivered": False,
            "retries": 0,
        }
        execution = f"{number:016x}"
        yield _line(common | {"kind": "started", "execution": execution})
        receipt = common | {
            "receipt": 1,
            "state": "succeeded",
            "source": "worker",
            "result": value,
            "error": None,
            "finished_at": now,
            "wait": 0.5,
            "runtime": 0.001,
            "executions": 1,
            "replaced": False,
            "code": "py3.11:" + "0" * 64,
            "args_sha256": arguments_sha256(entry.args, entry.kwargs),
            "result_sha256": json_sha256(value),
            "log": [],
            "log_dropped": 0,
            "cpu": 0.001,
            "max_rss": 60_000_000,
            "evidence": {},
        }
        yield _line({"kind": "finished", "execution": execution, "receipt": receipt})


def _line(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class Replay:
    """An engine that waits for the receipts of a whole manifest."""

    def __init__(self, folder: Path, url: str, manifest: Manifest) -> None:
        self.run = new_run_id()
        self.url, self.key = url, stream_key(self.run)
        now = datetime.now(timezone.utc)
        self.attempts = [attempt_of(self.run, entry, 1, n) for n, entry in enumerate(manifest)]
        info = RunInfo(
            self.run, manifest.path, manifest.sha256, None, None, len(manifest), now, "", "",
            is_private=False, stream_ttl=3600,
        )  # fmt: skip
        self.ledger = Ledger.create(folder / f"{self.run}.sqlite", info)
        with self.ledger.transaction():
            self.ledger.attempts.plan(
                (a.task_id, a.entry.id, 1, n) for n, a in enumerate(self.attempts)
            )
            self.ledger.attempts.mark((a.task_id for a in self.attempts), "sent", sent_at=now)
        flights, moment = PendingAttempts(), time.monotonic()
        with nothing_thrown_away(owns_process=True):  # as a session has it of what it collects
            for attempt in self.attempts:
                flights.track(attempt, moment, now)
        results = ResultReader(StackAddress(url, url, None, is_private=False))
        self.collector = ReceiptCollector(StreamReader(url, self.key), results)
        self.collector.begin(3600)
        settings = RunSettings(folder=folder)
        address = StackAddress(url, url, None, is_private=False)
        files = RunFiles(self.ledger.path)
        state = RunState(manifest, files, info, address, settings, pending=flights)
        context = EngineContext(
            *(state, RunConnections(state), self.ledger, self.collector),
            *(FactLog(self.ledger), Schedule([])),
        )
        self.engine = Engine(context)
        self.sent_at = now

    def work(self) -> float:
        """Seconds of the processor until every entry has its verdict."""
        began = time.process_time()
        self.engine.work()
        return time.process_time() - began

    def close(self) -> None:
        self.collector.close()
        self.ledger.close()


def capacity(folder: Path, url: str, manifest: Manifest) -> float:
    """Receipts a second, where they are all there."""
    with closing(Replay(folder, url, manifest)) as replay:
        with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
            for line in records(replay.attempts, replay.sent_at):
                pipe.xadd(replay.key, {"r": line})
                if len(pipe) >= 1000:
                    pipe.execute()
            pipe.execute()
        began = time.perf_counter()
        replay.work()
        taken = time.perf_counter() - began
        assert replay.ledger.verdicts.counts() == {"passed": len(manifest)}
        return len(manifest) / taken


def lag(folder: Path, url: str, manifest: Manifest, rate: float) -> float:
    """Seconds from the last record written to the last verdict, at so many receipts a second."""
    with closing(Replay(folder, url, manifest)) as replay:
        lines = folder / "records"
        lines.write_bytes(b"\n".join(records(replay.attempts, replay.sent_at)))
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, replay.key, str(rate), str(lines)],
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        replay.work()
        ended = time.time()
        written, _ = writer.communicate(timeout=60)
        return max(0.0, ended - float(written))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    logger.remove()
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        folder = Path(name)
        write_manifest(folder / "m.jsonl", options.entries)
        manifest = read_manifest(folder / "m.jsonl")
        add_run_log(folder / "run.log")
        most = capacity(folder, url, manifest)
        behind = lag(folder, url, manifest, options.rate)
        sustained = lag(folder, url, manifest, 0.8 * most)
    figures: list[Figure] = [
        figure(
            f"receipts of {WORKERS} workers taken in",
            f"{options.rate:,.0f} a second",
            [most / options.rate],
            1.0,
            receipts_per_s=most,
            behind_at_the_end_s=behind,
            written_for_s=options.entries / options.rate,
            behind_at_four_fifths_of_capacity_s=sustained,
        )
    ]
    tell(figures, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
