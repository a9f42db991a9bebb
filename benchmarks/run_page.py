"""What the run page costs: time, memory and size, its share of a run, and how fluent it is.

    python benchmarks/run_page.py [ENTRIES] [--browser]

First pages of ENTRIES (10,000) made-up entries: such as have a few lines of log each, and such as
have 20 kB that cannot be compressed. Then what a browser (Chromium) is busy with while such a page
is opened, filtered, sorted, scrolled and zoomed: the longest task of each, as the browser itself
counts them. Last a real run of that many short jobs on the private stack, twice: without the page
and with it; what the second takes longer is the page's share. With ``--browser``, only the second.
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
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pytest_manifest.analysis.records import EntryRecord  # noqa: E402
from pytest_manifest.reporting.run_page.page import write_page  # noqa: E402
from tests.browser import chromium, opened  # noqa: E402
from tests.run_page_sample import about, sample_records  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

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
        path, facts = Path(folder) / "run.html", about(sample_records(entries))
        began = time.perf_counter()
        write_page(path, facts, counted())
        took = time.perf_counter() - began - spent
        size = path.stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {took:.2f} s, {size / 1e6:.2f} MB; peak of the process {memory:.0f} MiB")


OBSERVER = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longTasks.push(task.duration);
}).observe({ type: 'longtask', buffered: true });
"""
SETTLED = """
new Promise((done) => setTimeout(() => requestAnimationFrame(() => setTimeout(done, 50)), 250))
"""


class Busy:
    """What the browser's main thread did since the last time."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._spent = 0.0

    def tell(self, name: str) -> None:
        """Its longest task by the clock, where one had 50 ms, and the processor time of all."""
        self._page.evaluate(SETTLED)
        tasks: list[float] = self._page.evaluate("longTasks.splice(0)")
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        spent = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
        longest = f"{max(tasks):4.0f} ms" if tasks else "   under 50 ms"
        took = (spent - self._spent) * 1000
        print(f"  {name:<22} processor {took:5.0f} ms in all; longest task {longest.strip()}")
        self._spent = spent


def in_a_browser(entries: int) -> None:
    """What people do with a page, and the longest task of the browser's main thread in each."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "run.html"
        write_page(path, about(sample_records(entries)), sample_records(entries))
        with opened(browser, width=1440) as page:
            page.set_default_timeout(120_000)
            page.add_init_script(OBSERVER)
            busy = Busy(page)
            page.goto(path.as_uri())
            page.wait_for_selector("#table[data-ready=yes]")
            busy.tell("opened")
            for name, action in actions(page).items():
                action()
                busy.tell(name)


def actions(page: Page) -> dict[str, Callable[[], object]]:
    """By name, in the order in which they are done."""
    wheel = "#table .tabulator-tableholder"
    return {
        "filter: a letter": lambda: page.fill("#search", "7"),
        "filter: five letters": lambda: page.locator("#search").press_sequentially("00077"),
        "filter: emptied": lambda: page.click("#clear"),
        "filter: failed": lambda: page.click("#kinds [data-kind=failed]"),
        "filter: all": lambda: page.click("#clear"),
        **{
            f"sort: {name}": partial(page.click, f"[tabulator-field={name}] .sorter")
            for name in ("id", "reason", "runtime", "outcome")
        },
        "scroll: a screen": lambda: page.locator(wheel).evaluate("e => { e.scrollTop += 600 }"),
        "scroll: far": lambda: page.locator(wheel).evaluate("e => { e.scrollTop = 1e5 }"),
        "open an entry": lambda: page.locator(".tabulator-row").nth(3).click(),
        "open the next": lambda: page.keyboard.press("ArrowDown"),
        "close": lambda: page.keyboard.press("Escape"),
        "timeline: point": lambda: along_the_timeline(page, pressed=False),
        "timeline: zoom": lambda: along_the_timeline(page, pressed=True),
        "colours": lambda: page.click("#theme"),
    }


def along_the_timeline(page: Page, *, pressed: bool) -> None:
    """The pointer over a fifth of the plot; pressed, it zooms."""
    plot = page.locator("#gantt .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 12)
    if pressed:
        page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 12, steps=20)
    if pressed:
        page.mouse.up()


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
        page = timed(project, "--manifest=m.jsonl", "--manifest-audit", "-k", "d-0]")
        audited = timed(
            project,
            "--manifest=m.jsonl",
            "--manifest-audit",
            "-k",
            "d-0]",
            "--manifest-report=a.html",
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
    arguments = [text for text in sys.argv[1:] if text != "--browser"]
    entries = int(arguments[0]) if arguments else 10_000
    if "--browser" in sys.argv:
        in_a_browser(entries)
        return
    page_of(f"page of {entries}", entries, sample_records(entries))
    page_of(f"page of {entries} of 20 kB", entries, large_records(entries))
    in_a_browser(entries)
    real_run(entries)


if __name__ == "__main__":
    main()
