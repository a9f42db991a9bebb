"""The HTML that `make report` builds of our results, opened as people do."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.conftest import missing
from tests.plugin import allure_support as allure
from tests.plugin.conftest import Project, project

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

__all__ = ["project"]  # a fixture is found by its name here

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
TITLE = "<img src=x onerror=alert(1)> <script>alert(2)</script>"
ENTRIES: list[dict[str, object]] = [
    {"id": "good", "task": "jobs.nap", "kwargs": {"sec": 0.2, "key": "good"}},
    {"id": "other", "task": "jobs.nap", "kwargs": {"sec": 0.2, "key": "other"}},
    {
        "id": "wrong",
        "task": "jobs.double",
        "kwargs": {"n": 2},
        "expect": {"result": {"n": 5}},
        "meta": {"title": TITLE, "severity": "critical", "issue": "ABC-1"},
    },
    {"id": "raises", "task": "jobs.fail", "kwargs": {"message": f"\x1b[31m{TITLE}\u202e"}},
    {
        "id": "again",
        "task": "jobs.die_once",
        "kwargs": {"key": "again"},
        "idempotent": True,
        "retries": 1,
    },
    {"id": "nobody", "task": "jobs.nobody"},
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """The test's output is not the place."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder as a site, as the page's data come by requests."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def build(folder: Path, **variables: str) -> Path:
    """Run `make report` for the results in this folder; gives the page."""
    if shutil.which("npm") is None:
        missing("npm is not installed: apt-get install npm")
    places = {
        "ALLURE_RESULTS": folder / "allure-results",
        "ALLURE_REPORT": folder / variables.pop("to", "allure-report"),
        "ALLURE_HISTORY": folder / "history.jsonl",
    }
    given = [f"{name}={value}" for name, value in (places | variables).items()]
    done = subprocess.run(
        ["make", "--no-print-directory", "report", *given],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


def look(page: Page, url: str) -> None:
    """Open the report's list; a dialog would be a script of an entry's that has run.

    Nor may the page ask anybody for anything.
    """

    def refuse(dialog: object) -> None:
        pytest.fail(f"a script ran: {dialog}", pytrace=False)

    def refuse_address(request: Request) -> None:
        assert urlsplit(request.url).hostname in {None, "", "127.0.0.1"}, request.url

    page.on("dialog", refuse)
    page.on("request", refuse_address)
    page.goto(url)
    page.get_by_test_id("tree-leaf").first.wait_for()


def unfold(page: Page, *tasks: str) -> None:
    """Allure folds what has passed."""
    for task in tasks:
        page.get_by_test_id("tree-section-title").get_by_text(task, exact=True).click()


def open_entry(page: Page, title: str) -> None:
    page.get_by_test_id("tree-leaf-title").get_by_text(title, exact=False).first.click()
    page.get_by_text("Parameters").first.wait_for()


@pytest.fixture
def batch(project: Project) -> Project:
    """A batch with one of each; its results, of two runs, are reported by `make report`."""
    import json

    header = {"manifest": 1, "workflow": "films", "mode": "nightly"}
    lines = [json.dumps(header), *(json.dumps(entry) for entry in ENTRIES)]
    project.write("m.jsonl", "\n".join(lines) + "\n")
    return project


def test_the_report(batch: Project, page: Page) -> None:
    """Tree, an entry's steps and attachments, retries, timeline, history after two runs."""
    link = "manifest_issue_link=https://tracker.example.com/{}"
    allure.run(batch, "-o", link)
    build(batch.path)
    (batch.path / "died-again").unlink()
    found = allure.run(batch, "-o", link, "--manifest-rerun")
    index = build(batch.path)
    with served(index.parent) as url:
        look(page, url)
        sections = page.get_by_test_id("tree-section-title").all_inner_texts()
        assert sections[:2] == ["films", "nightly"]
        assert {"jobs.nap", "jobs.double", "jobs.fail", "jobs.die_once"} <= set(sections)
        unfold(page, "jobs.nap", "jobs.die_once")
        page.get_by_test_id("tree-leaf-title").nth(len(ENTRIES) - 1).wait_for()
        titles = page.get_by_test_id("tree-leaf-title").all_inner_texts()
        assert sorted(titles) == sorted(
            ["good", "other", f"wrong: {TITLE}", "raises", "again", "nobody"]
        )
        check_entry(page)
        page.goto(url)
        check_passed(page)
        page.goto(url)
        check_retry(page)
        check_history(page)
        check_timeline(page, f"{url}#timeline", found)


def check_entry(page: Page) -> None:
    """The one with a wrong result: steps, attachments, link and category."""
    open_entry(page, "wrong")
    body = page.inner_text("body")
    assert TITLE in body
    for word in ("planned", "sent to the queue", "received by", "started in process", "finished"):
        assert word in body, word
    assert "Expectation not met" in body
    assert page.get_by_role("link", name="ABC-1").get_attribute("href") == (
        "https://tracker.example.com/ABC-1"
    )
    page.get_by_test_id("test-result-attachment-header").get_by_text("expected and actual").click()
    page.get_by_text("+4").first.wait_for()


def check_passed(page: Page) -> None:
    """One that has nothing to tell has its receipt in its description."""
    open_entry(page, "good")
    page.frame_locator("iframe").get_by_text('"slept": 0.2').wait_for()


def check_retry(page: Page) -> None:
    """The one that was sent twice: both attempts, and the first as a retry."""
    open_entry(page, "again")
    assert "attempt 1: crashed" in page.inner_text("body")
    page.get_by_test_id("test-result-tab-retries").click()
    page.get_by_text("WorkerLostError").first.wait_for()


def check_history(page: Page) -> None:
    """The run before is there."""
    page.get_by_test_id("test-result-tab-history").click()
    entries = page.get_by_test_id("test-result-history-item")
    entries.first.wait_for()
    assert entries.count() == 1


def check_timeline(page: Page, url: str, found: allure.Results) -> None:
    """A row for each process, under its host, with the worker's name."""
    page.goto(url)
    hosts = {host for one in found.all for host in allure.labels(one, "host")}
    for host in hosts:
        page.get_by_text(f"Host: {host}").wait_for()
    threads = {thread for one in found.all for thread in allure.labels(one, "thread")}
    # Each process has a row of its own, as far as its name fits: see reports/allure/mend.mjs.
    assert all(len(thread) <= 18 for thread in threads)
    for thread in threads:
        page.locator("svg .tick text").get_by_text(thread, exact=True).wait_for()
    attempts = len([one for one in found.all if allure.labels(one, "host")])
    page.get_by_text(f"Selected {attempts} tests").wait_for()


def test_one_file(batch: Project, page: Page) -> None:
    """It needs no server, and nothing beside it."""
    allure.run(batch)
    index = build(batch.path, SINGLE="1", to="one")
    assert [path.name for path in index.parent.rglob("*.js")] == []
    alone = batch.path / "alone.html"
    shutil.copy(index, alone)
    look(page, alone.as_uri())
    open_entry(page, "raises")
    page.get_by_text("worker's traceback").first.wait_for()
    assert TITLE in page.inner_text("body")


def test_an_allure_that_is_not_as_expected_is_not_mended(tmp_path: Path) -> None:
    """As one that was mended before: it is said what was not found, and no file is touched."""
    (tmp_path / "allure-results").mkdir()
    (tmp_path / "allure-results" / "a-result.json").write_text('{"uuid": "a", "name": "a"}')
    build(tmp_path)
    tool = ROOT / "reports" / "allure"
    plugin = tool / "node_modules" / "@allurereport" / "plugin-awesome" / "dist"
    files = [plugin / "static" / "report.tar", plugin / "generators.js"]
    before = [file.read_bytes() for file in files]
    done = subprocess.run(
        ["node", tool / "mend.mjs"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "static/report.tar has not once: " in done.stderr
    assert [file.read_bytes() for file in files] == before


@pytest.mark.ring(1)
def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    """Without results, and where the folder to write is no report."""
    script = str(ROOT / "scripts" / "report")
    variables = os.environ | {"ALLURE_RESULTS": str(tmp_path), "ALLURE_REPORT": str(tmp_path)}

    def said() -> str:
        done = subprocess.run(
            [script], env=variables, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode != 0
        return done.stderr

    if shutil.which("npm") is None:
        missing("npm is not installed: apt-get install npm")
    assert "holds no results" in said()
    (tmp_path / "a-result.json").write_text("{}")
    assert "is no report" in said()
    assert (tmp_path / "a-result.json").exists()
