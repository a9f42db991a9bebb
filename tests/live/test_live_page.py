"""The live page in a browser, beside a run that is replayed: what a person sees and does."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.ledger import Ledger
from pytest_manifest.reporting.live_page import server as served
from pytest_manifest.reporting.live_page.content import RunContent
from pytest_manifest.reporting.live_page.server import LiveServer, listening, new_token
from tests.browser import opened
from tests.live.test_run_page import serious
from tests.player import Player, Script, made_ledger, obeying, playing, running
from tests.support import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.live,
    pytest.mark.broken_record("a run that is made by hand, and replayed"),
]

ENTRIES = int(os.environ.get("MANIFEST_ENTRIES", "700"))
HOSTILE = "<img src=x onerror=\"document.title='broken'\"></script><script>alert(1)"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an hour: a worker dies, an eighth of a task fails with hostile words."""
    folder = tmp_path_factory.mktemp("source")
    return made_ledger(folder, Script(entries=ENTRIES, seconds=3600, text=HOSTILE))


@dataclass
class Watched:
    """A run that is played, and the server of its page."""

    player: Player
    server: LiveServer
    folder: Path

    def statuses(self) -> dict[str, int]:
        with Ledger.open(self.player.path) as ledger:
            return {str(kind): count for kind, count in ledger.verdicts.counts().items()}


@contextmanager
def serving(
    path: Path, root: Path, *, control: bool = False, port: int = 0, token: str | None = None
) -> Iterator[LiveServer]:
    content = RunContent(partial(StoredRun.open, by_settings=False), control, root, path)
    server = LiveServer(listening(port), token or new_token(), content)
    with running(partial(server.serve_forever, 0.01), server.close):
        yield server


@contextmanager
def watched(
    source: Path, folder: Path, *, begun: float = 2400, control: bool = False
) -> Iterator[Watched]:
    path = folder / "runs" / source.name
    with playing(source, path, begun=begun) as player, serving(path, folder, control=control) as s:
        yield Watched(player, s, folder)


@pytest.fixture
def run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A run of which two thirds are done; snapshots come faster than once a second."""
    monkeypatch.setattr(served, "PERIOD", 0.05)
    with watched(source, tmp_path, control=True) as made:
        yield made


@contextmanager
def shown(
    browser: Browser, run: Watched, *, width: int = 1440, dark: bool = False
) -> Iterator[Page]:
    """The page, open, with figures; it must not say anything on the console."""
    heard: list[str] = []
    with opened(browser, width=width, dark=dark) as page:
        page.on("console", lambda message: heard.append(message.text))
        page.goto(run.server.address)
        page.wait_for_selector("body[data-drawn]")
        page.wait_for_selector("#list tbody tr")
        yield page
    assert [one for one in heard if "ERR_CONNECTION" not in one] == []


def drawn(page: Page) -> int:
    return int(page.evaluate("document.body.dataset.drawn"))


def redrawn(page: Page, times: int = 2) -> None:
    """Wait until so many more snapshots are shown."""
    before = drawn(page)
    eventually(lambda: drawn(page) >= before + times, within=60, what="newer figures")


def counts(page: Page) -> dict[str, int]:
    """The numbers below the bar, by their words."""
    texts = page.locator("#counts li").all_inner_texts()
    pairs = (" ".join(one.split()).rpartition(" ") for one in texts)
    return {
        name.lstrip("\u2713\u2715!\u2013\u2026 "): int(n.replace(",", "")) for name, _, n in pairs
    }


@pytest.mark.ring(1)
def test_its_numbers_are_those_of_manifest_show(browser: Browser, run: Watched) -> None:
    """While it goes on, and at its last moment; the tab has how far it is, and what failed."""
    with shown(browser, run) as page:
        assert page.url == f"http://127.0.0.1:{run.server.server_port}/"
        for upto in (2400, 2800, run.player.length + 1):
            run.player.advance(upto)
            redrawn(page)
            statuses = run.statuses()
            seen = counts(page)
            assert {name: seen[name] for name in statuses} == statuses
            done = sum(statuses.values())
            bad = done - statuses["passed"]
            assert page.inner_text("#verdict").startswith(f"{done:,} of {ENTRIES:,} done")
            assert page.title() == f"{100 * done // ENTRIES} % \u00b7 {bad} failed"
            eventually(lambda: sum(counts(page).values()) == ENTRIES)
        causes = page.locator("#cause-list li .count").all_inner_texts()
        assert sum(int(one.split()[0]) for one in causes) == bad


def test_what_there_is_to_know_is_shown(browser: Browser, run: Watched) -> None:
    """The worker that died, its flag in the plot, causes, workers, tasks, what runs longest."""
    with shown(browser, run) as page:
        assert "render-4@host ended" in page.inner_text("#flags")
        assert "PaymentDeclined at billing.py:88 in charge" in page.inner_text("#causes")
        assert page.locator("#workers tbody tr").count() == 4
        assert page.locator("#tasks tbody tr").count() == 4
        assert page.locator("#longest tbody tr").count() == 3
        assert page.locator("#rate canvas").count() == 1
        assert "cost" in page.inner_text("#cost")
        eventually(lambda: "ends about" in page.inner_text("#verdict"))


DRAWN_TEXTS = """
  window.texts = [];
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.texts.push(text);
    return fill.call(this, text, ...rest);
  };
"""


@pytest.mark.parametrize(
    ("length", "times", "unit"), [(90, r"\d\d:\d\d:\d\d", "/ s"), (7200, r"\d\d:\d\d", "/ min")]
)
def test_the_plots_ticks_are_told_apart(
    browser: Browser, tmp_path: Path, length: int, times: str, unit: str
) -> None:
    """Of a run of a minute and of hours: no time stands twice, and a slow rate has its own unit."""
    folder = tmp_path / "source"
    folder.mkdir()
    made = made_ledger(folder, Script(entries=400, seconds=length))
    with watched(made, tmp_path, begun=length * 0.9) as run, opened(browser) as page:
        page.add_init_script(DRAWN_TEXTS)
        page.goto(run.server.address)
        page.wait_for_selector("body[data-drawn]")
        eventually(lambda: bool(page.evaluate("window.texts.length")))
        texts: list[str] = page.evaluate("window.texts")
        ticks = [one for one in texts if re.fullmatch(r"[\d:]{5,}", one)]
        rates = [one for one in texts if "/" in one]
        assert len(ticks) == len(set(ticks)) > 2
        assert all(re.fullmatch(times, one) for one in ticks)
        assert len(rates) == len(set(rates)) > 1
        assert all(one.endswith(unit) for one in rates)


def test_hostile_texts_stay_texts(browser: Browser, run: Watched) -> None:
    """In causes, lists and an entry's panel: shown as they are, and never a part of the page."""
    with shown(browser, run) as page:
        assert HOSTILE[:20] in page.inner_text("#causes")
        page.locator("#list .row-button").first.click()
        page.wait_for_selector("#details:not([hidden])")
        assert HOSTILE in page.inner_text("#details")
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2
        redrawn(page)
        assert "failed" in page.title()


def test_entries_are_found_by_cause_task_worker_and_state(browser: Browser, run: Watched) -> None:
    """By clicks on the figures, and by the filters; an entry opens, and Esc closes it."""

    def shows(expected: int) -> None:
        text = f"{expected:,} {'entry' if expected == 1 else 'entries'}"
        eventually(lambda: page.inner_text("#found") == text, what=text)

    statuses = run.statuses()
    with shown(browser, run) as page:
        shows(sum(statuses.values()) - statuses["passed"])
        page.locator("#counts button", has_text="crashed").click()
        shows(statuses["crashed"])
        assert page.input_value("#by-state") == "crashed"
        page.locator("#cause-list li", has_text="PaymentDeclined").get_by_text("show all").click()
        shows(statuses["failed"])
        page.click("#by-cause")
        shows(ENTRIES)
        assert page.locator("#list tbody tr").count() == 200
        page.click("#more")
        eventually(lambda: page.locator("#list tbody tr").count() == 400)
        page.select_option("#by-task", "billing.charge")
        page.select_option("#by-worker", "render-1@host")
        page.fill("#search", "charge-000")
        eventually(lambda: 0 < page.locator("#list tbody tr").count() < 30)
        name = page.locator("#list .row-button").first.inner_text()
        page.locator("#list .row-button").first.click()
        page.wait_for_selector("#details:not([hidden])")
        assert page.inner_text("#details-title") == name
        page.get_by_role("button", name="Pause sending").click(trial=True)  # it is not covered
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.textContent") == name


def test_focus_and_selection_survive_a_hundred_snapshots(browser: Browser, run: Watched) -> None:
    """And what is open stays open: figures change in their places."""
    with shown(browser, run) as page:
        page.locator("#tasks .row-button").nth(1).focus()
        page.evaluate(
            "getSelection().selectAllChildren(document.querySelector('#cause-list li p'))"
        )
        selected = page.evaluate("String(getSelection())")
        assert selected
        page.evaluate(
            "document.querySelector('#by-task').scrollTop; window.kept = document.activeElement"
        )
        for step in range(20):
            run.player.advance(2400 + 30 * step)
            redrawn(page, 5)
        assert page.evaluate("document.activeElement === window.kept")
        assert page.evaluate("String(getSelection())") == selected


def test_the_heap_stays_flat(
    browser: Browser, run: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many snapshots: 10,800 are three hours; a tenth of them shows a leak of 1 kB each.

    ``MANIFEST_SNAPSHOTS`` says how many.
    """
    snapshots = int(os.environ.get("MANIFEST_SNAPSHOTS", "1000"))
    monkeypatch.setattr(served, "PERIOD", 0.0)
    with shown(browser, run) as page:
        session = page.context.new_cdp_session(page)

        def used() -> float:
            session.send("HeapProfiler.collectGarbage")
            return float(page.evaluate("performance.memory.usedJSHeapSize"))

        redrawn(page, 200)
        # But for what there is to know: after two minutes that is the silence of the player.
        nodes = "document.querySelectorAll('*:not(#know *)').length"
        before, elements = used(), page.evaluate(nodes)
        for _ in range(snapshots // 100):
            redrawn(page, 100)
        assert used() - before < 1_000_000
        assert page.evaluate(nodes) == elements


def test_a_server_that_is_gone_is_said_and_comes_back(
    browser: Browser, source: Path, tmp_path: Path
) -> None:
    """What is shown stays, with the moment that it is of; when it answers again it goes on."""
    path = tmp_path / "runs" / source.name
    token = new_token()
    with playing(source, path, begun=2400) as player, opened(browser) as page:
        with serving(path, tmp_path, token=token) as first:
            port = first.server_port
            page.goto(first.address)
            page.wait_for_selector("body[data-drawn]")
        page.wait_for_selector("#notice:not([hidden])")
        assert "does not answer since" in page.inner_text("#notice")
        assert page.inner_text("#state") == "not connected"
        assert f"of {ENTRIES:,} done" in page.inner_text("#verdict")
        player.advance(2800)
        with serving(path, tmp_path, token=token, port=port):
            page.wait_for_selector("#notice", state="hidden", timeout=30_000)
            redrawn(page, 1)
            assert page.inner_text("#state").startswith("running")


def test_when_the_run_is_over_it_becomes_the_run_page(browser: Browser, run: Watched) -> None:
    """By itself; but not while somebody has an entry open."""
    with opened(browser) as page:
        page.goto(run.server.address)
        page.wait_for_selector("#list tbody tr")
        page.locator("#list .row-button").first.click()
        page.wait_for_selector("#details:not([hidden])")
        run.player.end()
        page.wait_for_selector("#to-run-page")
        assert page.inner_text("#verdict").endswith("passed")
        assert page.locator("#table").count() == 0
        page.keyboard.press("Escape")
        page.wait_for_selector("#table[data-ready=yes]", timeout=30_000)
        assert f"of {ENTRIES:,} passed" in page.inner_text("#verdict")


def test_without_control_there_is_no_button(browser: Browser, source: Path, tmp_path: Path) -> None:
    with watched(source, tmp_path) as made, shown(browser, made) as page:
        assert page.locator("[data-action]").count() == 0
        page.locator("#list .row-button").first.click()
        page.wait_for_selector("#details:not([hidden])")
        assert page.get_by_text("Cancel").count() == 0


def test_the_keyboard_alone_stops_a_run(browser: Browser, run: Watched) -> None:
    """From the top of the page by Tab and Enter; the command is shown, and then its answer."""
    with obeying(run.player.path) as said, shown(browser, run) as page:
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.action") == "stop":
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#dialog[open]")
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.name") == "reason":
                break
        page.keyboard.type("it's late")
        command = page.inner_text("#dialog code")
        assert command == f"manifest ctl {run.player.path.stem} stop --reason 'it'\\''s late'"
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Stop":
                break
        page.keyboard.press("Enter")
        eventually(lambda: page.inner_text("#dialog [role=status]") == "did stop")
        page.keyboard.press("Escape")
        page.wait_for_selector("#dialog", state="hidden")
    assert said == [("stop", "it's late", {})]


def test_each_button_stands_for_a_command(browser: Browser, run: Watched) -> None:
    """Limits, an entry that is cancelled, a cause that is sent again: shown, written, answered."""
    name = run.player.path.stem

    def do(label: str) -> str:
        page.locator("#dialog .doing", has_text=label).click()
        eventually(lambda: page.inner_text("#dialog [role=status]").startswith("did "))
        command: str = page.inner_text("#dialog code")
        page.locator("#dialog").get_by_text("Close").click()
        return command.removeprefix(f"manifest ctl {name} ")

    with obeying(run.player.path) as said, shown(browser, run) as page:
        page.click("#buttons [data-action=pause]")
        assert do("Pause sending") == "pause"
        page.click("#buttons [data-action=set]")
        page.fill("#dialog input[name=window]", "200")
        page.fill("#dialog input[name=max-failed]", "2%")
        assert do("Set them") == "set window=200 max-failed=2%"
        page.locator("#list .row-button").first.click()
        entry = page.inner_text("#details-title")
        page.locator("#details").get_by_text("Cancel\u2026").click()
        page.check("#dialog input[name=running]")
        assert do("Cancel") == f"cancel {entry} --running"
        page.keyboard.press("Escape")
        page.locator("#cause-list [data-action=requeue]").first.click()
        assert do("Send again").startswith("requeue --cause ")
    assert [one for one, _, _ in said] == ["pause", "set", "cancel", "requeue"]
    assert said[1][2] == {"window": "200", "max-failed": "2%"}
    assert said[2][2] == {"entries": [entry], "running": True}
    assert set(said[3][2]) == {"entries"}


FOREIGN = """async (url) => {
  const tried = {};
  const own = { method: 'POST', body: '{"action": "stop", "data": {}}', credentials: 'include' };
  const headers = { 'X-Manifest': 'ctl', 'Content-Type': 'application/json' };
  for (const [name, path, options] of [
    ['read', 'entries', { credentials: 'include' }],
    ['blind', 'entries', { credentials: 'include', mode: 'no-cors' }],
    ['act', 'ctl', { ...own, mode: 'no-cors' }],
    ['header', 'ctl', { ...own, headers }],
  ]) {
    try {
      tried[name] = await (await fetch(url + path, options)).text();
    } catch { tried[name] = 'refused'; }
  }
  const frame = document.createElement('iframe');
  frame.src = url;
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  try {
    tried.frame = frame.contentDocument ? frame.contentDocument.body.textContent : 'refused';
  } catch { tried.frame = 'refused'; }
  const source = new EventSource(url + 'events', { withCredentials: true });
  tried.stream = await new Promise((done) => {
    source.onmessage = () => done('read');
    source.onerror = () => done('refused');
  });
  source.close();
  return tried;
}"""
"""What a page of another port may try."""


def test_a_page_of_another_port_reads_nothing_and_does_nothing(
    browser: Browser, run: Watched
) -> None:
    """It is of the same site, so the browser sends it our cookie; the server refuses it."""

    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>foreign</p>")

        def log_message(self, *_: object) -> None: ...

    with ExitStack() as stack:
        said = stack.enter_context(obeying(run.player.path))
        foreign = stack.enter_context(HTTPServer(("127.0.0.1", 0), Foreign))
        thread = threading.Thread(target=foreign.serve_forever, args=(0.01,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(foreign.shutdown)
        page = stack.enter_context(opened(browser))
        page.goto(run.server.address)
        page.wait_for_selector("body[data-drawn]")
        url = page.url
        page.goto(f"http://127.0.0.1:{foreign.server_port}/")
        tried = page.evaluate(FOREIGN, url)
    assert tried == {
        "read": "refused",
        "blind": "refused",
        "act": "refused",
        "header": "refused",
        "frame": "refused",
        "stream": "refused",
    }
    assert said == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390], ids=["desktop", "phone"])
def test_there_is_no_serious_fault_of_accessibility(
    browser: Browser, run: Watched, *, dark: bool, width: int
) -> None:
    """In each state: going on, an entry open, a dialog, lost, over."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    def faults() -> list[object]:
        return serious(Axe().run(page).response)

    with shown(browser, run, dark=dark, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        found = {"going on": faults()}
        page.locator("#cause-list .row-button").first.click()
        page.wait_for_selector("#details:not([hidden])")
        found["entry"] = faults()
        page.keyboard.press("Escape")
        for action in ("set", "stop"):
            page.click(f"#buttons [data-action={action}]")
            page.wait_for_selector("#dialog[open]")
            found[action] = faults()
            page.keyboard.press("Escape")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#title'))")
        run.player.end()
        page.wait_for_selector("#to-run-page")
        found["over"] = faults()
    assert {state: one for state, one in found.items() if one} == {}


def test_lost_has_no_serious_fault_of_accessibility(
    browser: Browser, source: Path, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser) as page:
        with watched(source, tmp_path) as made:
            page.goto(made.server.address)
            page.wait_for_selector("body[data-drawn]")
        page.wait_for_selector("#notice:not([hidden])")
        assert serious(Axe().run(page).response) == []


def test_the_theme_is_chosen(browser: Browser, run: Watched) -> None:
    """Light, dark, or as the system has it; the plot is drawn in its colours."""
    with shown(browser, run) as page:
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.click("#theme")
        assert page.evaluate(background) == light
        page.click("#theme")
        assert page.evaluate(background) != light
        assert page.get_attribute("#theme", "aria-label") == "Colours: dark"
        redrawn(page)
        assert page.locator("#rate canvas").count() == 1
