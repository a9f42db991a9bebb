"""What an offline audit costs: time and memory at 10,000, 100,000 and a million receipts.

    python -m benchmarks.audit [--sizes N ...] [--json=FILE] [--folder=FOLDER]

For each size a batch is made up that has run: a manifest, a ledger and exported receipts, written
by the library's own ledger and codec. One entry in a thousand has failed, all in a few places. Each
audit is then a pytest of its own. Told are its time against reading the receipts once
(``json.loads`` of every line of the exported file, in a process of its own), start-up included, and
its peak resident memory against that of the size before. Times are processor times. What is made up
takes 4 kB of disk an entry; an audit of receipts alone takes 3 kB more for as long as it lasts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, Taken, figure, take, tell
from tests.reports import add_receipts, add_starts, started

if TYPE_CHECKING:  # a process begins with its parent's peak, so the parent imports nothing large
    from pydantic import JsonValue

    from pytest_manifest.ledger import Ledger
    from pytest_manifest.schema import Entry, Receipt

SIZES: Final = (10_000, 100_000, 1_000_000)
LARGE: Final = 100_000
"""From here on memory is to be flat: of less, buffers are not full yet."""
GROUP: Final = 1_000
BATCH: Final = 5_000
"""Entries that are written in one transaction."""
RUN: Final = "20261124T150000-0123abcd"
BEGUN: Final = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)
CHUNKS: Final = f"--manifest-aggregate=chunk:{GROUP}"
AUDITS: Final = {
    "audit": (CHUNKS,),
    "audit by task": ("--manifest-aggregate=task",),
    "audit of receipts alone": (CHUNKS, "--manifest-receipts=receipts.jsonl"),
}


# A batch that has run, made up


def make(folder: Path, count: int) -> None:
    """A project in ``folder``: ``m.jsonl``, the ledger of its run, ``receipts.jsonl``."""
    from pytest_manifest.ledger import Ledger, RunInfo
    from pytest_manifest.manifest import write_manifest
    from pytest_manifest.run.audit import audit_run
    from pytest_manifest.run.changes import keep_manifest
    from pytest_manifest.run.settings import RunSettings
    from pytest_manifest.schema import Header
    from pytest_manifest.urls import StackAddress

    (folder / "pytest.ini").write_text("[pytest]\n")
    manifest = write_manifest(
        folder / "m.jsonl", Header(workflow="made_up"), (entry(n) for n in range(count))
    )
    path = folder / ".manifest" / "runs" / f"{RUN}.sqlite"
    info = RunInfo(
        run=RUN,
        manifest=manifest.path.resolve(),
        sha256=manifest.sha256,
        workflow="made_up",
        mode=None,
        entries=count,
        created_at=BEGUN,
        broker="redis://127.0.0.1:1/0",
        backend="redis://127.0.0.1:1/0",
        is_private=True,
        stream_ttl=24 * 3600,
    )
    with Ledger.create(path, info) as ledger:
        keep_manifest(manifest, path)
        numbers = iter(range(count))
        while some := list(islice(numbers, BATCH)):
            plan(ledger, some)
            record(ledger, some)
        ledger.info.set_status("finished")
    nowhere = StackAddress("", "", None, is_private=False)
    run = audit_run(manifest, path, nowhere, RunSettings(path.parent), wait=False)
    (folder / "receipts.jsonl").hardlink_to(run.export_receipts())


def entry(n: int) -> Entry:
    """The n-th entry."""
    from pytest_manifest.schema import Entry, Expectations

    return Entry(
        id=f"corpus/film-{n:07}",
        task=f"tasks.crud.{('fast', 'slow', 'bulk')[n % 3]}_crud_task",
        kwargs={"data": {"title": "Alien", "year": 1979, "number": n}},
        timeout=30,
        expect=Expectations(result={"lifecycle": ["created", "verified", "deleted"]}),
    )


def plan(ledger: Ledger, numbers: Sequence[int]) -> None:
    """Plan these entries, as a run does."""
    from pytest_manifest.broker.attempt import task_id_for

    ids = ((entry(n).id, n) for n in numbers)
    ledger.attempts.plan((task_id_for(RUN, one, 1, n), one, 1, n) for one, n in ids)


def record(ledger: Ledger, numbers: Sequence[int]) -> None:
    """Send, start, finish and judge these entries, which are planned, as a run does."""
    from pytest_manifest.broker.attempt import task_id_for
    from tests.verdicts import evaluate

    entries = [entry(n) for n in numbers]
    ids = [task_id_for(RUN, one.id, 1, n) for n, one in zip(numbers, entries, strict=True)]
    received = [receipt(n, one, task) for n, one, task in zip(numbers, entries, ids, strict=True)]
    with ledger.transaction():
        ledger.attempts.mark(ids, "sent", sent_at=sent_at(numbers[0]))
        add_starts(
            ledger,
            (
                started(r.task_id, f"x{r.task_id}", r.started_at, 0, r.worker, r.host, r.pid, False)
                for r in received
            ),
        )
        add_receipts(ledger, ((r.task_id, f"x{r.task_id}", r) for r in received))
        ledger.verdicts.record(
            (evaluate(one, r, attempt=1), r) for one, r in zip(entries, received, strict=True)
        )


def sent_at(n: int) -> datetime:
    return BEGUN + timedelta(seconds=n // BATCH)


def receipt(n: int, one: Entry, task_id: str) -> Receipt:
    """What a worker said of the n-th entry."""
    from pytest_manifest.schema import ErrorInfo, Receipt
    from pytest_manifest.schema.wire import arguments_sha256, json_sha256

    failed = n // GROUP % 50 == 0 and n % 20 == 7  # a bad hour: one group in fifty has some
    result: JsonValue = {"lifecycle": ["created", "verified", "deleted"], "row": n}
    sent = sent_at(n // BATCH * BATCH)
    wait, runtime = 0.01 + n % 997 / 100, 0.005 + n % 101 / 1000
    started = sent + timedelta(seconds=wait)
    worker = n % 16
    return Receipt(
        run=RUN,
        entry=one.id,
        attempt=1,
        task_id=task_id,
        task=one.task,
        state="failed" if failed else "succeeded",
        result=None if failed else result,
        result_sha256=None if failed else json_sha256(result),
        error=ErrorInfo(type="ValueError", message=f"no film {n % 7}") if failed else None,
        worker=f"w{worker}@host-{worker % 4}",
        host=f"host-{worker % 4}",
        pid=1000 + worker,
        queue="celery",
        sent_at=sent,
        received_at=sent + timedelta(seconds=wait / 2),
        started_at=started,
        finished_at=started + timedelta(seconds=runtime),
        wait=wait,
        runtime=runtime,
        executions=1,
        args_sha256=arguments_sha256(one.args, one.kwargs),
        cpu=runtime / 2,
        max_rss=90_000_000,
        log=[f"row {n} was written"],
    )


# Measuring


def read_once(path: Path) -> None:
    """What an audit's time is held against."""
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def costs(size: int, top: Path | None) -> Iterator[tuple[str, Taken, Taken]]:
    """Each audit of a batch of this size: its name, its cost, and that of reading once."""
    root = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory(dir=top) as name:
        folder = Path(name)
        itself = (sys.executable, "-m", "benchmarks.audit")
        made = take((*itself, "--make", name, str(size)), folder, env={"PYTHONPATH": root})
        print(f"{size:,} entries were made up in {made.clock:.0f} s", flush=True)
        read = (*itself, "--read-once", str(folder / "receipts.jsonl"))
        once = take(read, folder, env={"PYTHONPATH": root})
        for name, options in AUDITS.items():
            command = (*PYTEST, *PLUGIN, "--manifest=m.jsonl", "--manifest-audit", *options)
            cost = take(command, folder, expected=1, env={"PYTHONPATH": root})
            print(f"{name} of {size:,}: {cost.cpu:.1f} s, {cost.rss / 1e6:.0f} MB", flush=True)
            yield name, cost, once


def measure(sizes: Sequence[int], top: Path | None) -> list[Figure]:
    """The ratios of all sizes, then how memory grows."""
    figures: list[Figure] = []
    before: dict[str, tuple[int, int]] = {}
    growth: list[Figure] = []
    for size in sizes:
        for name, cost, once in costs(size, top):
            each = cost.cpu / size * 1e6
            figures.append(
                figure(
                    f"{name} of {size:,} entries",
                    "reading the receipts once",
                    [cost.cpu / once.cpu],
                    s=cost.clock,
                    us_an_entry=each,
                    peak_mb=cost.rss / 1e6,
                )
            )
            smaller, peak = before.get(name, (0, 0))
            if smaller >= LARGE:
                growth.append(
                    figure(
                        f"memory of an {name} of {size:,}",
                        f"that of {smaller:,}",
                        [cost.rss / peak],
                        1.1,
                        at_most=True,
                        bytes_an_entry=(cost.rss - peak) / (size - smaller),
                    )
                )
            before[name] = size, cost.rss
    return figures + growth


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json")
    parser.add_argument("--folder", type=Path, help="where batches are made up, and removed again")
    parser.add_argument("--make", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--read-once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make:
        make(Path(options.make[0]), int(options.make[1]))
    elif options.read_once:
        read_once(options.read_once)
    else:
        tell(measure(options.sizes, options.folder), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
