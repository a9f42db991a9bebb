"""What the run page costs: time, memory and size, and its share of a run.

    python benchmarks/run_page.py [ENTRIES]

First pages of ENTRIES (10,000) made-up entries: such as have a few lines of log each, and such as
have 20 kB that cannot be compressed. Then a real run of that many short jobs on the private stack,
twice: without the page and with it; what the second takes longer is the page's share.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pytest_manifest.analysis.records import EntryRecord  # noqa: E402
from pytest_manifest.reporting.run_page.page import PageFacts, write_page  # noqa: E402
from tests.run_page_sample import run_info, sample_records  # noqa: E402

JOBS = """
from celery import Celery

app = Celery("jobs")


@app.task
def double(n):
    return {"n": 2 * n}
"""
LARGE = 20_000


def large_records(entries: int) -> Iterator[EntryRecord]:
    """Entries with results that cannot be compressed."""
    rng = random.Random(5)
    for record in sample_records(entries, workers=32):
        receipt = record.receipt
        if receipt is not None:
            noise = base64.b64encode(rng.randbytes(LARGE * 3 // 4)).decode()
            receipt = receipt.model_copy(update={"result": noise})
        yield replace(record, receipt=receipt)


def page_of(name: str, entries: int, records: Iterator[EntryRecord]) -> None:
    """Write one, and print what it took; making up the records is not counted."""
    spent = 0.0

    def counted() -> Iterator[EntryRecord]:
        nonlocal spent
        while True:
            began = time.perf_counter()
            record = next(records, None)
            spent += time.perf_counter() - began
            if record is None:
                return
            yield record

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.html"
        began = time.perf_counter()
        write_page(path, PageFacts(run_info(entries), "finished", entries), counted())
        took = time.perf_counter() - began - spent
        size = path.stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {took:.2f} s, {size / 1e6:.2f} MB; peak of the process {memory:.0f} MiB")


def real_run(entries: int) -> None:
    """A run of short jobs, without the page and with it."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "jobs.py").write_text(JOBS, "utf-8")
        (project / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n", "utf-8")
        lines = (
            json.dumps({"id": f"d-{n}", "task": "jobs.double", "args": [n]}) for n in range(entries)
        )
        (project / "m.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        without = timed(project, "--manifest=m.jsonl")
        with_page = timed(project, "--manifest=m.jsonl", "--manifest-report=run.html")
        size = (project / "run.html").stat().st_size
        page = timed(project, "--manifest=m.jsonl", "--audit", "-k", "d-0]")
        audited = timed(
            project, "--manifest=m.jsonl", "--audit", "-k", "d-0]", "--manifest-report=a.html"
        )
    took = audited - page
    print(f"run of {entries}: {without:.2f} s without, {with_page:.2f} s with a page")
    print(f"the page alone, of {size / 1e6:.2f} MB, by an audit with and without it: {took:.2f} s")
    print(f"its share of the run: {took / with_page:.1%}")


def timed(project: Path, *arguments: str) -> float:
    """Seconds of a pytest."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("CELERY_", "MANIFEST_"))
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if not re.search(r"\d+ passed", done.stdout):
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return took


def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    page_of(f"page of {entries}", entries, sample_records(entries))
    page_of(f"page of {entries} of 20 kB", entries, large_records(entries))
    real_run(entries)


if __name__ == "__main__":
    main()
