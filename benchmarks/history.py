"""How often a history cries wolf, and what it costs: ``python -m benchmarks.history``.

    python -m benchmarks.history [--histories=N] [--tasks=N] [--only statistics|cost]

Statistics: made-up histories of forty runs. Each night is slower or faster than usual for all tasks
(4 %), one in fifty half as slow again, each task by itself (5 %), and a median of fifty jobs, which
vary by 30 %, is off by 5 %. Told are histories in which nothing changed and a slowdown is told, and
those in which one task takes 30 % longer that is told within three runs.

Cost: the page of a hundred runs of 200 tasks and 2,000 remarkable entries, and reading a thousand
digests.
"""

from __future__ import annotations

import argparse
import base64
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.nights import FIRST
from pytest_manifest.analysis.digest import as_json, digests_of
from pytest_manifest.analysis.many_runs import by_manifest, over_time
from pytest_manifest.reporting.history_page import write_history_page
from pytest_manifest.schema.over_time import ManifestOverTime
from pytest_manifest.schema.run_digest import (
    DigestEntry,
    DigestIds,
    DigestTask,
    RunDigest,
    places,
)

RUNS: Final = 40
NIGHT: Final = 0.04
TASK: Final = 0.05
JOBS: Final = 50
JOB: Final = 0.3
NOISY: Final = 0.19
"""By how much a task varies by itself where medians vary by 20 % all in all."""
SLOW_NIGHT: Final = 0.02
SLOWER: Final = 1.3


def medians(
    rng: random.Random, tasks: int, runs: int, changed_in: int | None, task: float
) -> Iterator[list[float]]:
    """Yield the medians (s) of each run; the first task is slower from ``changed_in`` on."""
    usual = [rng.uniform(0.1, 20) for _ in range(tasks)]
    of_sample = 1.25 * JOB / JOBS**0.5
    for n in range(1, runs + 1):
        night = rng.lognormvariate(0, NIGHT) * (1.5 if rng.random() < SLOW_NIGHT else 1)
        found = [
            one * night * rng.lognormvariate(0, task) * rng.lognormvariate(0, of_sample)
            for one in usual
        ]
        if changed_in is not None and n >= changed_in:
            found[0] *= SLOWER
        yield found


def digest_of(n: int, p50s: Sequence[float], listed: Sequence[DigestEntry] = ()) -> RunDigest:
    """Make the digest of a run by the medians of its tasks."""
    bad = len(listed)
    tasks = [
        DigestTask(task=f"shop.task{place:03}", count=JOBS, passed=JOBS, samples=JOBS, p50=p50)
        for place, p50 in enumerate(p50s)
    ]
    bits, hashes = DigestIds.of_size(JOBS * len(p50s))
    for one in (f"entry-{place:05}" for place in range(2000 if listed else 0)):
        for place in places(one, len(bits), hashes):
            bits[place >> 3] |= 1 << (place & 7)
    entries = JOBS * len(p50s)
    return RunDigest(
        digest=1,
        run=f"{FIRST + timedelta(days=n):%Y%m%dT%H%M%S}-{n:08x}",
        number=n,
        manifest="/shop/nightly.jsonl",
        manifest_sha256="a" * 64,
        created_at=FIRST + timedelta(days=n),
        status="finished",
        broker="redis://shop/0",
        backend="redis://shop/1",
        version="1",
        entries=entries,
        manifest_entries=entries,
        verdicts={"passed": entries - bad, "failed": bad},
        outcomes={"passed": entries - bad, "failed": bad},
        duration=3600.0,
        rate=3.0,
        cost=1.5,
        tasks=tasks,
        listed=list(listed),
        ids=DigestIds(hashes=hashes, bits=base64.b64encode(bits).decode()),
    )


def told(
    rng: random.Random, tasks: int, runs: int, changed_in: int | None = None, task: float = TASK
) -> ManifestOverTime:
    """Return the history of made-up runs."""
    rows = medians(rng, tasks, runs, changed_in, task)
    return over_time([[digest_of(n, row) for n, row in enumerate(rows, 1)]]).manifests[0]


def says_slower(found: ManifestOverTime) -> bool:
    return found.slower is not None or any(one.slower is not None for one in found.tasks)


def statistics(histories: int, tasks: int) -> tuple[float, float, float]:
    """Return the shares of false alarms, of those where all is noisy, and of slowdowns found."""
    rng = random.Random(1)
    alarms = sum(says_slower(told(rng, tasks, RUNS)) for _ in range(histories))
    noisy = sum(says_slower(told(rng, tasks, RUNS, task=NOISY)) for _ in range(histories))
    found = sum(
        told(rng, tasks, RUNS, changed_in=RUNS - 2).tasks[0].slower is not None
        for _ in range(histories)
    )
    return alarms / histories, noisy / histories, found / histories


def many_digests(runs: int, tasks: int, remarkable: int) -> list[RunDigest]:
    """Make digests of runs in which so many entries are red once, or by turns."""
    rng = random.Random(2)
    red = [
        DigestEntry(
            id=f"entry-{n:05}",
            task=f"shop.task{n % tasks:03}",
            verdict="failed",
            work=f"{n:016x}",
            cause=None,
        )
        for n in range(remarkable)
    ]
    found = []
    for n, row in enumerate(medians(rng, tasks, runs, None, TASK), 1):
        some = [one for place, one in enumerate(red) if (place + n) % 9 == 0]
        found.append(digest_of(n, row, some))
    return found


def cost() -> tuple[int, float, float, float]:
    """Return the page's bytes, the seconds to make it, those to read 1,000 digests, their bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digests = many_digests(100, 200, 2000)
        began = time.process_time()
        found = over_time(by_manifest(digests))
        write_history_page(folder / "history.html", found)
        took = time.process_time() - began
        assert len(found.manifests[0].entries) == 2000
        size = (folder / "history.html").stat().st_size
        for n in range(1000):
            one = digests[n % 100]
            one = one.model_copy(update={"run": f"20260101T000000-{n:08x}", "number": n})
            (folder / f"{one.run}.digest.json").write_bytes(as_json(one))
        each = sum(path.stat().st_size for path in folder.glob("*.json")) / 1000
        began = time.process_time()
        assert len(digests_of(folder)) == 1000
        return size, took, time.process_time() - began, each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--only", choices=("statistics", "cost"))
    given = parser.parse_args()
    if given.only != "cost":
        alarms, noisy, found = statistics(given.histories, given.tasks)
        print(f"{given.histories} histories of {RUNS} runs and {given.tasks} tasks")
        print(f"  a slowdown is told where nothing changed: {alarms:.1%}")
        print(f"  the same where medians vary by 20 %:      {noisy:.1%}")
        print(f"  30 % in one task, told within three runs: {found:.1%}")
    if given.only != "statistics":
        size, took, read, each = cost()
        print("100 runs, 200 tasks, 2,000 remarkable entries")
        print(f"  page: {size / 1e3:.0f} kB, made in {took:.2f} s of processor time")
        print(f"  1,000 digests of {each / 1e3:.0f} kB read in {read:.2f} s")


if __name__ == "__main__":
    main()
