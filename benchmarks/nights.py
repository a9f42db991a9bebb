"""Forty nights of a made-up shop, as ledgers, and the page of their history.

    python -m benchmarks.nights FOLDER [--shots]

What happens to it is known, so that what the history says can be held against that: a task that
slows down, one that a change of its code breaks, an entry that is flaky, one that is renamed, a
night in which a service was away, a worker that grows, a night of a part, a night in which all was
slow. ``--shots`` takes pictures of the page by Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.digest import digests_of, make_digest, write_digest
from pytest_manifest.analysis.many_runs import by_manifest, over_time
from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.reporting.history_page import write_history_page
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.schema import Entry, ErrorInfo, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.over_time import RunsOverTime
from tests.browser import chromium, opened
from tests.reports import add_receipts, run_info

NIGHTS: Final = 40
FIRST: Final = datetime(2026, 10, 23, 2, 10, tzinfo=timezone.utc)
TASKS: Final = {
    "billing.charge": 0.4,
    "crm.sync": 2.0,
    "images.thumbnail": 0.9,
    "reports.pdf": 2.6,
    "search.index": 0.85,
    "texts.translate": 1.4,
}
"""Tasks, and the seconds that a job of theirs usually takes."""
EACH: Final = 12
WORKERS: Final = ("shop-1@night", "shop-2@night", "shop-3@night")
SLOWER: Final = 28
BROKEN: Final = 21
RENAMED: Final = 30
PART: Final = 24
AWAY: Final = 14
GROWS: Final = 33
SLOW_NIGHT: Final = 18
"""The nights in which that happens, or begins."""
BROKEN_ENTRIES: Final = ("translate-00", "translate-04", "translate-08")
NEW_NAME: Final = "translate-german"
FLAKY: Final = frozenset({5, 9, 12, 17, 26, 31, 37})
"""The nights in which ``sync-07`` fails."""


def entries_of(night: int) -> Iterator[dict[str, object]]:
    """Yield the lines of a night's manifest."""
    for task in TASKS:
        for n in range(EACH):
            name = f"{task.partition('.')[2]}-{n:02}"
            work = {"task": task, "args": [name]}
            yield {"id": NEW_NAME if night >= RENAMED and name == "translate-08" else name, **work}


def status_of(name: str, night: int) -> VerdictStatus:
    """Return what an entry comes to, by what it was called at first."""
    broken = night >= BROKEN and name in BROKEN_ENTRIES
    away = night == AWAY and name in ("pdf-00", "pdf-01", "pdf-02")
    return "failed" if broken or away or (name == "sync-07" and night in FLAKY) else "passed"


def make_night(folder: Path, night: int) -> Path:
    """Make the ledger of a night, and its digest; return the ledger's path."""
    file = folder / "nightly.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in entries_of(night)), "utf-8")
    manifest = read_manifest(file)
    began = FIRST + timedelta(days=night - 1)
    run = f"{began:%Y%m%dT%H%M%S}-{night:08x}"
    some = [one for one in manifest if night != PART or one.task == "crm.sync"]
    info = run_info(
        *(run, began, manifest),
        entries=len(some),
        broker="redis://shop:6379/0",
        backend="redis://shop:6379/1",
        is_private=False,
        stream_ttl=86400,
        number=night,
    )
    path = folder / "runs" / f"{run}.sqlite"
    with Ledger.create(path, info, deferred=True) as ledger:
        keep_manifest(manifest, path)
        _work(ledger, manifest, some, night)
        ledger.info.set_status("finished")
        ledger.commit_deferred()
    write_digest(make_digest(path), path)
    return path


def _work(ledger: Ledger, manifest: Manifest, some: Sequence[Entry], night: int) -> None:
    info, rng = ledger.info.read(), random.Random(night)
    whole = rng.lognormvariate(0, 0.03) * (1.5 if night == SLOW_NIGHT else 1)
    jobs = [attempt_of(info.run, entry, 1).task_id for entry in some]
    ledger.attempts.plan(
        (job, one.id, 1, place) for place, (job, one) in enumerate(zip(jobs, some, strict=True))
    )
    ledger.info.begin_segment(info.created_at)
    ledger.attempts.mark(jobs, "sent", sent_at=info.created_at)
    free = dict.fromkeys(WORKERS, info.created_at)
    done = dict.fromkeys(WORKERS, 0)
    for place, (job, entry) in enumerate(zip(jobs, some, strict=True)):
        worker = WORKERS[place % len(WORKERS)]
        slower = 1.6 if entry.task == "images.thumbnail" and night >= SLOWER else 1
        took = TASKS[entry.task] * whole * slower * rng.lognormvariate(0, 0.1)
        done[worker] += 1
        grown = 3 * done[worker] if worker == WORKERS[2] and night >= GROWS else 0
        changed = entry.task == "texts.translate" and night >= BROKEN
        code = ("91c2" if changed else "ae5e") + f"{sorted(TASKS).index(entry.task):060x}"
        status = status_of(str(entry.args[0]), night)
        receipt = Receipt(
            run=info.run,
            entry=entry.id,
            attempt=1,
            task_id=job,
            task=entry.task,
            state="succeeded" if status == "passed" else "failed",
            error=None if status == "passed" else _error(entry),
            worker=worker,
            host="night",
            pid=4000 + WORKERS.index(worker),
            sent_at=info.created_at,
            started_at=free[worker],
            finished_at=free[worker] + timedelta(seconds=took),
            wait=(free[worker] - info.created_at).total_seconds(),
            runtime=took,
            executions=1,
            code=f"py3.12:{code}",
            max_rss=(150 + min(done[worker], 4) + grown) << 20,
            evidence={"cost": round(0.002 * took, 5)},
        )
        free[worker] += timedelta(seconds=took)
        add_receipts(ledger, [(job, "x", receipt)], at=free[worker])
        reason = "" if status == "passed" else "It failed: see its error."
        said = Verdict(verdict=status, entry=entry.id, attempt=1, sentence=reason)
        ledger.verdicts.record([(said, receipt)])
    assert len(manifest) == len(TASKS) * EACH


def _error(entry: Entry) -> ErrorInfo:
    if entry.task == "reports.pdf":
        return ErrorInfo(type="ConnectionError", message="fonts.internal does not answer")
    return ErrorInfo(type="ValueError", message=f"{entry.task} cannot do {entry.args[0]}")


def forty_nights(folder: Path, nights: int = NIGHTS) -> RunsOverTime:
    """Make the nights in a folder, and return their history."""
    for night in range(1, nights + 1):
        make_night(folder, night)
    return over_time(by_manifest(digests_of(folder / "runs", folder / "nightly.jsonl")))


def take_shots(page: Path, folder: Path) -> None:
    """Take pictures of the page, wide and narrow, in light and dark."""
    with chromium() as browser:
        for width in (1440, 390):
            for dark in (False, True):
                with opened(browser, width=width, dark=dark) as tab:
                    tab.goto(page.resolve().as_uri())
                    name = f"history-{width}-{'dark' if dark else 'light'}.png"
                    tab.screenshot(path=folder / name, full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = forty_nights(given.folder)
    page = given.folder / "history.html"
    write_history_page(page, found)
    print(f"{page}: {page.stat().st_size / 1e3:.0f} kB")
    print(found.manifests[0].sentence)
    if given.shots:
        take_shots(page, given.folder)


if __name__ == "__main__":
    main()
