"""What descendants cost the harness: as many tasks, as entries and as descendants of a hundredth.

    python -m benchmarks.trees [--tasks=N] [--rounds=N] [--json=FILE]

The records of N entries, and those of N/101 entries that start 100 tasks each, stand in the stream
of a real Valkey; the engine (reading, checking, judging, ledger) takes them. Each kind is done in a
process of its own, in turn, so that the largest memory is its own too. The bound: 1.3 times the
processor's time. The memory of the process, and the size of its ledger, are told beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import redis
from loguru import logger

from benchmarks.side_by_side import Figure, environment, figure, tell, write_manifest
from benchmarks.stream_replay import Replay, records
from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.manifest import read_manifest
from pytest_manifest.schema.wire import timestamp
from tests.services import valkey_server

CHILDREN = 100


def family(attempt: Attempt, sent_at: datetime, number: int) -> Iterator[bytes]:
    """The records of a job that starts a group of tasks, and of these, which end after it."""
    names = [f"{attempt.task_id[:20]}{number:09d}{child:03d}xx" for child in range(CHILDREN)]
    children = [Attempt(attempt.run, attempt.entry, 1, name) for name in names]
    begin, end = records([attempt], sent_at)
    yield begin
    yield json.dumps(
        {
            "kind": "spawned",
            "run": attempt.run,
            "entry": attempt.entry.id,
            "attempt": 1,
            "root": attempt.task_id,
            "parent": attempt.task_id,
            "execution": "x",
            "spawned_at": timestamp(datetime.now(timezone.utc)),
            "children": [
                {"task_id": name, "task": attempt.entry.task, "how": "group", "queue": "celery"}
                for name in names
            ],
        }
    ).encode()
    yield end
    origin = {"root": attempt.task_id, "parent": attempt.task_id}
    for line in records(children, sent_at):
        yield json.dumps(json.loads(line) | origin, separators=(",", ":")).encode()


def run(kind: str, tasks: int, url: str) -> dict[str, float]:
    """Take in the records of so many tasks; the processor's seconds, and the memory's most (MB)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = tasks if kind == "entries" else tasks // (CHILDREN + 1)
        write_manifest(folder / "m.jsonl", entries)
        manifest = read_manifest(folder / "m.jsonl")
        with closing(Replay(folder, url, manifest)) as replay:
            lines: Iterator[bytes] = records(replay.attempts, replay.sent_at)
            if kind == "descendants":
                lines = (
                    line
                    for number, attempt in enumerate(replay.attempts)
                    for line in family(attempt, replay.sent_at, number)
                )
            with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
                for line in lines:
                    pipe.xadd(replay.key, {"r": line})
                    if len(pipe) >= 1000:
                        pipe.execute()
                pipe.execute()
            took = replay.work()
            assert replay.ledger.verdicts.counts() == {"passed": entries}
            found = replay.ledger.trees.statuses()
            assert found == ({"passed": entries * CHILDREN} if kind == "descendants" else {})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = sum(path.stat().st_size for path in folder.glob("*.sqlite*")) / 1e6
        return {"cpu_s": took, "peak_mb": peak, "ledger_mb": size}


def measured(kind: str, tasks: int, url: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.trees", f"--only={kind}", f"--tasks={tasks}"]
    done = subprocess.run(
        [*command, f"--url={url}"], env=environment(), capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=101_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["entries", "descendants"])
    parser.add_argument("--url")
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    logger.remove()
    if options.only:
        print(json.dumps(run(options.only, options.tasks, options.url)))
        return 0
    with valkey_server() as url:
        pairs = [
            [measured(kind, options.tasks, url) for kind in ("entries", "descendants")]
            for _ in range(options.rounds)
        ]
    medians = {
        f"{kind}_{name}": statistics.median(pair[position][name] for pair in pairs)
        for position, kind in enumerate(("entries", "descendants"))
        for name in ("cpu_s", "peak_mb", "ledger_mb")
    }
    figures: list[Figure] = [
        figure(
            f"{options.tasks:,} tasks, {CHILDREN} descendants of each entry, taken in and judged",
            "as many entries without any",
            [there["cpu_s"] / here["cpu_s"] for here, there in pairs],
            1.3,
            at_most=True,
            details=medians,
        )
    ]
    tell(figures, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
