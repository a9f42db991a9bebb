"""Processes of tests of the ledger: ``python -m tests.unit.ledger_processes WHAT PATH ...``."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from pytest_manifest.ledger import Ledger
from tests.reports import add_receipts, add_starts
from tests.support import eventually
from tests.unit.ledger_support import INFO, receipt, start, verdict

BATCH = 4
"""Entries in a transaction."""
INSTRUCTIONS = 12_000
"""Those of SQLite's machine in some ten batches."""


def write_batch(ledger: Ledger, number: int) -> None:
    """One transaction that writes into every table."""
    entries = [f"b{number}-{n}" for n in range(BATCH)]
    tasks = [f"t-{entry}" for entry in entries]
    with ledger.transaction():
        ledger.attempts.plan((f"t-{e}", e, 1, number * BATCH + n) for n, e in enumerate(entries))
        ledger.attempts.mark(tasks, "sent")
        add_starts(ledger, (start(task, "x") for task in tasks))
        add_receipts(ledger, ((f"t-{e}", "x", receipt(e, log=["line"] * 20)) for e in entries))
        ledger.verdicts.record((verdict(e), receipt(e)) for e in entries)
        ledger.info.set_meta("unsent", str(number + 1))


def write(path: Path, batches: int) -> None:
    """Write batches, and tell the number of each on stdout once it is committed."""
    with Ledger.create(path, INFO) as ledger:
        for number in range(batches):
            write_batch(ledger, number)
            print(number, flush=True)
            sys.stdin.readline()  # until the reader has looked


def die_writing(folder: Path, seeds: int) -> None:
    """For each seed a child that writes until it is killed, at a moment that the seed gives.

    Each has a folder of its own, with its ledger, and a byte in the file ``acknowledged`` for each
    batch that it has committed. Every second child dies within SQLite, by its own hand.
    """
    for seed in range(seeds):
        own = folder / str(seed)
        own.mkdir()
        rng = random.Random(seed)
        instructions = rng.randint(1, INSTRUCTIONS) if seed % 2 else None
        with forked(partial(_write_for_good, own, instructions)) as child:
            if instructions is None:
                _wait_for_the_moment(own / "acknowledged", rng)
                os.kill(child, signal.SIGKILL)


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """A child's pid; when the block ends, the child must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # never back into the parent's code
    try:
        yield child
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _write_for_good(folder: Path, instructions: int | None) -> None:
    ledger = Ledger.create(folder / "run.sqlite", INFO)
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if instructions is not None:
        die_after(instructions, ledger._db.connection)
    for number in count():
        write_batch(ledger, number)
        os.write(acknowledged, b"+")


def die_after(instructions: int, db: sqlite3.Connection) -> None:
    """Let this process die after so many instructions of SQLite's machine."""
    left = iter(range(instructions))

    def die_in_time() -> int:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    db.set_progress_handler(die_in_time, 1)


def _wait_for_the_moment(acknowledged: Path, rng: random.Random) -> None:
    """Some batches and some milliseconds."""
    batches = rng.randint(0, 8)
    eventually(lambda: acknowledged.exists() and acknowledged.stat().st_size >= batches)
    time.sleep(rng.uniform(0, 0.01))  # the moment itself, not a wait for something


def main() -> None:
    what, path, *rest = sys.argv[1:]
    {"write": write, "die-writing": die_writing}[what](Path(path), int(rest[0]))


if __name__ == "__main__":
    main()
