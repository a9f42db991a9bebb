"""What it costs to have a task's own ``apply_async`` make each message: ours, with and without it.

    python -m benchmarks.own_sending [--entries=N] [--rounds=N]

No worker runs. Both are a run's sending, ledger included, to one Valkey, by turns; the queue is
emptied between.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, Task
from loguru import logger

from benchmarks.dispatch import by_sender, empty_queue
from benchmarks.side_by_side import write_manifest
from pytest_manifest.log import add_run_log
from pytest_manifest.manifest import read_manifest
from pytest_manifest.urls import StackAddress
from tests.services import valkey_server


class TenantTask(Task):  # type: ignore[misc]  # Celery's classes have no types
    """A task that adds a header to what it sends, as those of tenants do."""

    def apply_async(self, *args: Any, headers: Any = None, **options: Any) -> Any:
        """Send with one header more."""
        return super().apply_async(*args, headers={**(headers or {}), "tenant": "a"}, **options)


app = Celery("jobs", task_cls=TenantTask, set_as_current=False)


@app.task(name="jobs.echo")  # type: ignore[untyped-decorator]  # Celery has no types
def echo(number: int) -> int:
    """Return what came in."""
    return number


def measure(valkey: str, entries: int, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of each round: without, and with the task's own ``apply_async``."""
    logger.remove()
    app.conf.update(broker_url=valkey, result_backend=valkey)
    address = StackAddress(valkey, valkey, "benchmarks.own_sending:app", is_private=False)
    taken: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_manifest(path / "m.jsonl", entries)
        manifest = read_manifest(path / "m.jsonl")
        add_run_log(path / "run.log")
        for turn in range(rounds + 1):  # the first one warms up
            both: list[float] = []
            for own in (False, True):
                both.append(by_sender(manifest, address, path, own_apply_async=own)[0])
                empty_queue(app)
            if turn:
                taken.append((both[0], both[1]))
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how many times as long it takes, of each round, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with valkey_server() as valkey:
        taken = measure(valkey, options.entries, options.rounds)
    for without, with_it in taken:
        rates = (options.entries / without, options.entries / with_it)
        print("{:,.0f} and {:,.0f} a second".format(*rates), f"({with_it / without:.2f} times)")
    print(f"median: {statistics.median(two / one for one, two in taken):.2f} times as long")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
