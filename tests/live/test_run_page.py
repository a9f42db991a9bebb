"""The run page in a browser: what people do with it, by pointer, by keyboard, and on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from pydantic import JsonValue

from pytest_manifest.analysis.comparison import compare
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.ledger import RunSegment
from pytest_manifest.reporting.next_step import RunAgain
from pytest_manifest.reporting.run_page.page import write_page
from tests.browser import opened
from tests.run_page_sample import BEGAN, HOSTILE, TASKS, about, sample_records
from tests.support import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

pytestmark = pytest.mark.live

COUNT = 400


@pytest.fixture(scope="module")
def records() -> list[EntryRecord]:
    return list(sample_records(COUNT, bad=0.05))


@pytest.fixture(scope="module")
def file(records: list[EntryRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that a page can have."""
    comparison = compare(sample_records(COUNT, seed=7), records, before_run="r1", after_run="r2")
    path = tmp_path_factory.mktemp("page") / "run.html"
    facts = about(
        records,
        findings=["A worker ended."],
        comparison=comparison,
        again=RunAgain("nightly.jsonl", " --manifest-app=shop:app"),
        logs=[("celery", "runs/r.worker-1.log")],
    )
    write_page(path, facts, iter(records))
    return path


@contextmanager
def shown(
    browser: Browser, file: Path, *, fragment: str = "", dark: bool = False, width: int = 1280
) -> Iterator[Page]:
    """The page, open; it must not say anything on the console, nor ask for anything."""
    heard: list[str] = []

    def said(message: ConsoleMessage) -> None:
        heard.append(message.text)

    def asked(request: Request) -> None:
        if request.url.split("#")[0] != file.as_uri():
            heard.append(request.url)

    with opened(browser, width=width, dark=dark) as page:
        page.on("console", said)
        page.on("request", asked)
        page.goto(file.as_uri() + fragment)
        page.wait_for_selector("#table[data-ready=yes]")
        yield page
        assert heard == []


def ids(page: Page) -> list[str]:
    """The entries that stand in the table's visible part, from the top."""
    found: list[str] = page.locator(".tabulator-row [tabulator-field=id]").all_inner_texts()
    return found


def kinds_of(page: Page) -> set[str]:
    texts: Sequence[str] = page.locator(
        ".tabulator-row [tabulator-field=outcome] .badge"
    ).all_inner_texts()
    return {text.split("\n")[-1].strip() for text in texts}


FAILED_FIRST = ("failed", "error", "skipped", "pending", "passed")


def in_order(records: Sequence[EntryRecord]) -> list[str]:
    """Ids as the table has them at first: what failed, then the manifest's order."""
    ordered = sorted(records, key=lambda record: FAILED_FIRST.index(record.outcome))
    return [record.id for record in ordered]


def wait_for(page: Page, text: str) -> None:
    """Wait until the number of entries that pass the filter reads so."""
    eventually(lambda: page.inner_text("#shown") == text, what=f"{text} are shown")


def title(page: Page) -> str:
    text: str = page.inner_text("#details-title")
    return text


@pytest.mark.ring(1)
def test_the_top_tells_what_came_of_the_run(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Counts, facts, advice, causes and the comparison can be read without a click."""
    passed = sum(record.outcome == "passed" for record in records)
    with shown(browser, file) as page:
        assert page.title() == "catalogue:nightly - run 20260317-214005-5f1c9a2e"
        assert page.inner_text("#title") == "catalogue \u203a nightly"
        assert f"{passed} of 400 passed" in " ".join(page.inner_text("#verdict").split())
        facts = page.inner_text("#facts")
        assert all(name in facts for name in ("Duration", "Throughput", "Median wait", "Cost"))
        advice = page.inner_text("#advice")
        assert "more workers would help" in advice
        assert "A worker ended." in advice
        assert "UnsupportedImageError at decoding.py:41 in decode" in page.inner_text("#causes")
        assert page.inner_text("#comparison h2") == "Since run r1"
        assert "newly failing" in page.inner_text("#since")
        tasks = page.inner_text("#tasks")
        assert all(task in tasks for task in TASKS)
        assert "celery@render-1#4107" in page.inner_text("#workers")


def test_the_table_filters_by_text_verdict_and_task(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Each filter narrows what the others leave, and can be taken back."""
    failed = [record for record in records if record.kind == "failed"]
    chosen = [record for record in failed if record.entry.task == "texts.index"]
    with shown(browser, file) as page:
        wait_for(page, "400 entries")
        page.click("#kinds [data-kind=failed]")
        wait_for(page, f"{len(failed)} of 400 entries")
        assert kinds_of(page) == {"failed"}
        page.select_option("#task", label="texts.index")
        wait_for(page, f"{len(chosen)} of 400 entries")
        assert ids(page) == [record.id for record in chosen]
        page.fill("#search", f"UNSUPPORTED {chosen[0].id}")
        eventually(lambda: len(ids(page)) <= 1)
        page.click("#clear")
        wait_for(page, "400 entries")
        page.fill("#search", "no such thing at all")
        wait_for(page, "0 of 400 entries")
        assert "No entry is like that." in page.inner_text("#table")


def test_the_table_sorts_by_every_column(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Up, down, and back to what failed first; what is not known stands last either way."""
    times = {record.id: record.last.runtime for record in records if record.last}
    known = sorted(value for value in times.values() if value is not None)
    with shown(browser, file) as page:
        heads = page.locator("#table .tabulator-col .sorter:visible")
        assert heads.count() == 11
        first = in_order(records)
        assert ids(page) == first[: len(ids(page))]
        run = page.locator("#table .tabulator-col[tabulator-field=runtime] .sorter")
        run.click()
        eventually(lambda: times[ids(page)[0]] == known[0])
        run.press("Enter")
        eventually(lambda: times[ids(page)[0]] == known[-1])
        heading = page.locator("#table .tabulator-col[tabulator-field=runtime]")
        assert heading.get_attribute("aria-sort") == "descending"
        run.press("Enter")
        eventually(lambda: ids(page)[0] == first[0])
        for at in range(heads.count()):
            before = ids(page)
            heads.nth(at).click()
            heads.nth(at).click()
            assert before
        page.locator("#table .tabulator-col[tabulator-field=id] .sorter").click()
        eventually(lambda: ids(page)[0] == min(times))


def open_row(page: Page, row: Locator) -> None:
    """Click until its details are there: a row that is drawn anew meanwhile misses the click."""
    from playwright.sync_api import TimeoutError as NotInTimeError

    def is_open() -> bool:
        row.click()
        try:
            page.wait_for_selector("#details:not([hidden])", timeout=3000)
        except NotInTimeError:
            return False
        return True

    eventually(is_open, what="the details of a row")


@pytest.mark.ring(1)
def test_an_entry_is_opened_by_a_click(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """With its sentence, differences, traceback, log, times, arguments and receipt."""
    record = next(r for r in records if r.receipt is not None and r.receipt.error is not None)
    assert record.receipt is not None
    with shown(browser, file) as page:
        page.fill("#search", record.id)
        eventually(lambda: ids(page) == [record.id])
        open_row(page, page.locator(".tabulator-row").first)
        assert title(page) == record.id
        text = page.inner_text("#details")
        for part in (
            "Traceback (most recent call last):",
            "decoding.py:41 in decode",
            "16 bits a channel",
            record.receipt.log[0],
            '"succeeded"',
            '"limit": 4096',
            "render-1",
            "Expected and actual",
            "180 MiB",
        ):
            assert part in text, part
        assert page.evaluate("location.hash") == f"#entry={record.id}&text={record.id}"
        page.click("#details [aria-label=Close]")
        assert page.locator("#details").is_hidden()
        assert page.evaluate("location.hash") == f"#text={record.id}"


def test_a_cause_leads_to_its_entries(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """It says where they ran, how long, and since when; the rest of its entries is a click away."""
    raised = [r.id for r in records if r.error_place is not None]
    with shown(browser, file) as page:
        cause = page.locator("#causes li").filter(has_text="UnsupportedImageError").first
        for told in (f"{len(raised)} entries", " worker processes", "ran ", "first at 21:40:"):
            assert told in cause.inner_text(), told
        cause.get_by_role("button", name=f"and {len(raised) - 3} more").click()
        wait_for(page, f"{len(raised)} of 400 entries")
        eventually(lambda: ids(page) == raised[: len(ids(page))])
        assert "16 bits a channel" in page.locator("[tabulator-field=reason]").nth(1).inner_text()
        page.click("#cause")
        wait_for(page, "400 entries")


def test_attempts_are_told_apart(browser: Browser, file: Path, records: list[EntryRecord]) -> None:
    """An entry that was sent twice shows both, with what came of each."""
    record = next(r for r in records if len(r.attempts) == 2)
    with shown(browser, file, fragment=f"#entry={quote(record.id)}") as page:
        page.wait_for_selector("#details:not([hidden])")
        steps = page.locator("#details .attempt")
        assert steps.count() == 2
        assert "crashed" in steps.nth(0).inner_text()
        assert "finished" in steps.nth(1).inner_text()


def test_everything_can_be_done_by_keyboard(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Slash for the filter, arrows through the table, Enter opens, Escape closes."""
    with shown(browser, file) as page:
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("translate-")
        some = [name for name in in_order(records) if "translate-" in name]
        wait_for(page, f"{len(some)} of 400 entries")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert page.locator(".tabulator-row.current").get_attribute("aria-selected") == "true"
        page.keyboard.press("Enter")
        page.wait_for_selector("#details:not([hidden])")
        assert title(page) == some[1]
        page.keyboard.press("ArrowDown")
        eventually(lambda: title(page) == some[2])
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        eventually(lambda: title(page) == some[0])
        page.keyboard.press("Escape")
        assert page.locator("#details").is_hidden()
        page.keyboard.press("End")
        eventually(lambda: some[-1] in ids(page))
        page.keyboard.press("Enter")
        page.wait_for_selector("#details:not([hidden])")
        assert title(page) == some[-1]
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.press("Escape")
        wait_for(page, "400 entries")


def test_a_link_leads_to_an_entry(browser: Browser, file: Path, records: list[EntryRecord]) -> None:
    """From outside by the address, from within by causes, and back by the browser's history."""
    with shown(browser, file, fragment=f"#entry={quote(records[333].id)}") as page:
        page.wait_for_selector("#details:not([hidden])")
        assert title(page) == records[333].id
        assert records[333].id in ids(page)
        page.keyboard.press("Escape")
        link = page.locator("#causes a").first
        wanted = link.inner_text()
        link.click()
        eventually(lambda: page.locator("#details").is_visible() and title(page) == wanted)
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.textContent") == wanted


def test_an_entry_that_is_not_there_is_said(browser: Browser, file: Path) -> None:
    """By name, whatever the address holds; it can be looked for, and the word goes away."""
    with shown(browser, file, fragment="#entry=100%25%not-there") as page:
        assert page.locator("#details").is_hidden()
        assert "no entry '100%25%not-there'" in page.inner_text("#notice")
        page.keyboard.press("Escape")
        assert page.locator("#notice").is_hidden()
        page.evaluate("location.hash = '#entry=index-0000'")
        eventually(lambda: "'index-0000'" in page.inner_text("#notice"))
        page.click("#notice >> text=Look for it")
        eventually(lambda: ids(page) and all("index-0000" in name for name in ids(page)))
        assert page.locator("#notice").is_hidden()


def test_the_timeline_tells_of_a_bar_and_opens_it(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Hovering names the entry, dragging zooms, a click opens."""
    with shown(browser, file) as page:
        plot = page.locator("#gantt .u-over")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] * 0.4, box["y"] + 11
        page.mouse.move(x, y)
        page.mouse.move(x + 1, y)
        eventually(lambda: page.locator("#tip").is_visible())
        named = page.locator("#tip .mono").inner_text()
        assert named in {record.id for record in records}
        page.mouse.click(x + 1, y)
        eventually(lambda: page.locator("#details").is_visible() and title(page) == named)
        page.keyboard.press("Escape")
        page.mouse.move(box["x"] + 200, y)
        page.mouse.down()
        page.mouse.move(box["x"] + 400, y, steps=4)
        page.mouse.up()
        page.click("#zoom-out")
        assert page.locator("#zoom-out").is_hidden()


LONG = "celery@rendering-production-eu-central-1-{}-7f9c4d8b6.internal.example.org"


def test_long_names_of_workers_stay_different(browser: Browser, tmp_path: Path) -> None:
    """What all share is left out; a pointer or the keyboard shows the whole name, and the jobs."""
    named = [on(LONG.format(f"worker-{at % 6}"), r) for at, r in enumerate(sample_records(60))]
    file = written(tmp_path, named)
    for width in (1280, 390):
        with shown(browser, file, width=width) as page:
            lanes = page.locator("#lanes button")
            texts = lanes.all_inner_texts()
            assert len(set(texts)) == len(texts)
            assert all(len(text) < 40 for text in texts)
            lanes.nth(0).focus()
            page.keyboard.press("ArrowDown")
            eventually(lambda: page.locator("#tip").is_visible())
            told = page.locator("#lanes button:focus").get_attribute("aria-label") or ""
            assert page.inner_text("#tip .mono") in told
            for _ in range(2):
                page.keyboard.press("ArrowRight")
            chosen = page.inner_text("#tip .mono")
            assert page.locator(".bar-mark").is_visible()
            assert chosen in page.inner_text("#said")
            page.keyboard.press("Enter")
            eventually(lambda wanted=chosen: title(page) == wanted)  # type: ignore[misc]  # mypy infers no type of a default argument
            page.keyboard.press("Escape")
            assert page.locator("#lanes button:focus").count() == 1
            lanes.nth(0).click()
            eventually(lambda: page.inner_text("#shown") != "60 entries")


def on(worker: str, record: EntryRecord) -> EntryRecord:
    """The record, as if this worker had run it."""
    ran = [replace(attempt, worker=attempt.worker and worker) for attempt in record.attempts]
    return replace(record, attempts=tuple(ran))


def written(folder: Path, records: Sequence[EntryRecord], *state: str, **more: Any) -> Path:
    """A page about these records."""
    path = folder / "run.html"
    write_page(path, about(records, *state, **more), iter(records))
    return path


def test_a_pause_between_a_run_s_parts_is_drawn_narrow(browser: Browser, tmp_path: Path) -> None:
    """A run that was gone on with nine hours later shows both parts, and how long it paused."""
    parts = [later(r, 9 * 3600) if at >= 30 else r for at, r in enumerate(sample_records(60))]
    resumed = [RunSegment(BEGAN), RunSegment(BEGAN + timedelta(hours=8))]
    with shown(browser, written(tmp_path, parts, parts=resumed)) as page:
        assert "2 parts, 9 h between" in page.inner_text("#facts")
        assert "nothing ran" in page.inner_text("#timeline-legend")
        plot = page.locator("#gantt .u-over").bounding_box()
        assert plot is not None
        page.locator("#lanes button").nth(0).focus()
        ends: list[float] = []
        for key in ("Home", "End"):
            page.keyboard.press(key)
            mark = page.locator(".bar-mark").bounding_box()
            assert mark is not None
            ends.append(mark["x"] - plot["x"])
        assert ends[1] - ends[0] > plot["width"] / 2
        shares = [share / 20 for share in range(1, 20)]
        told = [tip_at(page, plot["x"] + plot["width"] * share, plot["y"] + 3) for share in shares]
        assert any("known to have run for 8 h 59 min" in text for text in told)


def later(record: EntryRecord, seconds: float) -> EntryRecord:
    """The record, with all that happened so much later."""
    names = ("sent_at", "received_at", "started_at", "finished_at")
    moved = [
        replace(
            attempt,
            **{
                name: moment + timedelta(seconds=seconds)
                for name in names
                if (moment := getattr(attempt, name)) is not None
            },
        )
        for attempt in record.attempts
    ]
    return replace(record, attempts=tuple(moved))


def tip_at(page: Page, x: float, y: float) -> str:
    page.mouse.move(x, y)
    tip = page.locator("#tip")
    text: str = tip.inner_text() if tip.is_visible() else ""
    return text


def test_few_jobs_have_few_bars(browser: Browser, tmp_path: Path) -> None:
    """One has none, ten have a handful, whether alike or of very different length."""
    ten = list(sample_records(10, bad=0.0, workers=1))
    alike = [lasting(record, 0.25) for record in ten]
    apart = [lasting(record, 10 ** (at * 0.6 - 4)) for at, record in enumerate(ten)]
    with opened(browser) as page:
        for records, most in ((ten, 7), (alike, 5), (apart, 7)):
            page.goto(written(tmp_path, records).as_uri())
            page.wait_for_selector("#table[data-ready=yes]")
            told = page.get_attribute("#runtime", "aria-label") or ""
            assert told.startswith("Histogram of 10 entries in ")
            assert 3 <= int(told.split(" in ")[1].split()[0]) <= most
            assert "a bar is" in page.inner_text("#rate-note")
        page.goto(written(tmp_path, ten[:1]).as_uri())
        page.wait_for_selector("#table[data-ready=yes]")
        assert page.locator("#times").is_hidden()
        assert page.inner_text("#verdict").split()[-3:] == ["1", "entry", "passed"]


def lasting(record: EntryRecord, seconds: float) -> EntryRecord:
    """The record, as if its last attempt had run so long."""
    [*earlier, last] = record.attempts
    assert last.started_at is not None
    ended = last.started_at + timedelta(seconds=seconds)
    return replace(record, attempts=(*earlier, replace(last, runtime=seconds, finished_at=ended)))


def test_what_jobs_told_over_time_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """One plot below the other, each told in words, too; without such evidence there is none."""
    records = list(sample_records(40, bad=0.0))
    assert records[0].receipt is not None
    moment = BEGAN.timestamp()
    told: dict[str, JsonValue] = {
        "calls refused": {"kind": "count", "points": [[moment + at, 2] for at in range(5)]},
        "calls allowed at a time": {
            "kind": "level",
            "points": [[moment + at / 4, 1 + at] for at in range(20)],
        },
    }
    receipt = records[0].receipt.model_copy(update={"evidence": {"over_time": told}})
    with shown(
        browser, written(tmp_path, [replace(records[0], receipt=receipt), *records[1:]])
    ) as page:
        captions = page.locator("#overtime figcaption").all_inner_texts()
        assert captions[0].startswith("calls allowed at a time 1 to 20")
        assert captions[1].startswith("calls refused 10 in all")
        assert (
            page.get_attribute("#overtime-1", "aria-label") == "calls refused over time: 10 in all"
        )
        for at in range(2):
            page.locator(f"#overtime-{at}").scroll_into_view_if_needed()
            box = page.locator(f"#overtime-{at} .u-over").bounding_box()
            assert box is not None
            assert box["width"] > 600
            shares = [share / 20 for share in range(1, 20)]
            texts = [tip_at(page, box["x"] + box["width"] * one, box["y"] + 30) for one in shares]
            assert any(("calls refused: 2", "allowed at a time: ")[at == 0] in one for one in texts)
        page.click("#theme")
        assert page.locator("#overtime canvas").count() == 2
    with shown(browser, written(tmp_path, records)) as page:
        assert page.locator("#overtime").is_hidden()


def test_a_run_that_is_not_over_says_so(browser: Browser, tmp_path: Path) -> None:
    """What is pending is counted, and how to go on; a bar without an end is told as such."""
    records = list(sample_records(30, bad=0.0))
    begun = [
        replace(a, kind=None, sentence=None, finished_at=None, runtime=None)
        for a in records[-1].attempts
    ]
    records[-1] = replace(
        records[-1], verdict=None, receipt=None, outcome="pending", attempts=tuple(begun)
    )
    states = {
        "running": "1 entry has no verdict yet",
        "stopped": "--manifest-resume",
        "detached": "--manifest-audit",
        "finished": "This page shows what was known on",
    }
    with opened(browser) as page:
        for status, told in states.items():
            page.goto(written(tmp_path, records, status).as_uri())
            page.wait_for_selector("#table[data-ready=yes]")
            assert told in page.inner_text("#state")
        assert ids(page)[0] == records[-1].id
        assert "end not known" in page.inner_text("#timeline-legend")


def test_colours_and_motion_follow_the_system(browser: Browser, file: Path) -> None:
    """A switch goes through automatic, light and dark, and is remembered."""
    background = "getComputedStyle(document.body).backgroundColor"
    with shown(browser, file) as page:
        light = page.evaluate(background)
        page.click("#theme")
        assert page.get_attribute("#theme", "aria-label") == "Colours: light"
        assert page.evaluate(background) == light
        page.click("#theme")
        dark = page.evaluate(background)
        assert dark != light
        page.reload()
        page.wait_for_selector("#table[data-ready=yes]")
        assert page.evaluate(background) == dark
    with shown(browser, file, dark=True) as page:
        assert page.evaluate(background) == dark
        motion = "getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(motion) == "smooth"
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(motion) == "auto"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_there_is_no_serious_fault_of_accessibility(
    browser: Browser, file: Path, records: list[EntryRecord], *, dark: bool, width: int
) -> None:
    """axe-core finds none, and in an entry that is open not even a small one."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    record = next(r for r in records if r.kind == "failed")
    with shown(browser, file, dark=dark, width=width, fragment="#entry=none") as page:
        page.wait_for_selector("#notice:not([hidden])")
        page.locator("#lanes button").first.focus()
        page.keyboard.press("ArrowRight")
        assert serious(Axe().run(page).response) == []
        page.goto(f"{file.as_uri()}#entry={quote(record.id)}")
        page.wait_for_selector("#details:not([hidden])")
        assert [(one["id"], one["nodes"]) for one in Axe().run(page).response["violations"]] == []


def serious(response: dict[str, list[dict[str, object]]]) -> list[object]:
    """The faults that axe-core calls serious or critical, with where they are."""
    return [
        (fault["id"], fault["nodes"])
        for fault in response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


def test_a_phone_shows_everything_within_its_width(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """Nothing makes the page wider than the screen; details fill it."""
    with shown(browser, file, width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        why = page.locator(".tabulator-row [tabulator-field=reason]").first
        box = why.bounding_box()
        assert why.inner_text() != ""
        assert box is not None
        assert box["width"] >= 100
        assert box["x"] + box["width"] <= 390
        open_row(page, page.locator(".tabulator-row").first)
        box = page.locator("#details").bounding_box()
        assert box is not None
        assert box["width"] == 390
        assert title(page) == in_order(records)[0]
        assert page.evaluate("document.querySelector('#details').scrollWidth") <= 390
        search = "document.getElementById('search').focus(), document.activeElement.id"
        assert page.evaluate(search) != "search"  # what is covered cannot be reached
        page.keyboard.press("Escape")
        assert page.evaluate(search) == "search"


def test_paper_gets_a_plain_table(browser: Browser, file: Path) -> None:
    """Printing writes out what the filter shows, on white, and undoes it afterwards."""
    with shown(browser, file, dark=True) as page:
        folded = page.locator("main details:not([open])").count()
        assert folded > 0
        page.click("#kinds [data-kind=failed]")
        eventually(lambda: kinds_of(page) == {"failed"})
        count = int(page.inner_text("#shown").partition(" ")[0])
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#print-table tbody tr").count() == count
        assert page.locator("#print-table").is_visible()
        assert page.locator("#table").is_hidden()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        assert page.locator("main details:not([open])").count() == 0
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("#print-table tbody tr").count() == 0
        assert page.locator("main details:not([open])").count() == folded
        assert page.evaluate("document.documentElement.dataset.theme") is None


def test_paper_has_every_failure_with_its_reason(browser: Browser, tmp_path: Path) -> None:
    """However many there are, and first."""
    records = list(sample_records(1400, bad=0.6))
    bad = [record for record in records if record.outcome != "passed"]
    assert len(bad) > 1000
    with shown(browser, written(tmp_path, records)) as page:
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        rows = page.locator("#print-table tbody tr")
        assert rows.count() == len(bad)
        assert page.evaluate(
            "[...document.querySelectorAll('#print-table tbody tr')]"
            ".every((row) => row.lastElementChild.textContent.length > 10)"
        )
        assert f"and {len(records) - len(bad)} more that passed" in page.inner_text("#print-table")


@pytest.mark.ring(1)
def test_hostile_text_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    """Nothing of it runs, nothing becomes an element, all of it can be read."""
    nasty = list(sample_records(60, hostile=True, bad=0.5))
    path = tmp_path / "run.html"
    write_page(path, about(nasty, findings=HOSTILE), iter(nasty))
    with shown(browser, path) as page:
        assert "broken" not in page.title()
        assert page.locator("img").count() == 0
        assert "</script><script>document.title='broken'</script>" in page.inner_text("#advice")
        assert ids(page)[0] == nasty[0].id
        for record in nasty[:20]:
            page.evaluate("hash => { location.hash = hash }", f"#entry={quote(record.id)}")
            eventually(lambda wanted=record.id: title(page) == wanted)  # type: ignore[misc]  # mypy infers no type of a default argument
            assert page.locator("#details img, #details script").count() == 0
        assert "␛[31mred␛[0m" in page.inner_text("#details") + page.inner_text("#advice")
        page.keyboard.press("Escape")
        for lane in page.locator("#lanes button").all():
            lane.focus()
            page.keyboard.press("ArrowRight")
        page.locator("#causes .text-button").first.click()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("img, main script").count() == 0
        assert "<img src=x onerror=" in page.inner_text("#workers")
        assert "broken" not in page.title()


def test_ten_thousand_entries_stay_fluent(browser: Browser, tmp_path: Path) -> None:
    """Only what is seen is in the document, and filters and sorting answer."""
    path = tmp_path / "run.html"
    write_page(path, about(sample_records(10_000)), sample_records(10_000))
    assert path.stat().st_size < 6_000_000
    with shown(browser, path) as page:
        assert page.locator(".tabulator-row").count() < 100
        page.fill("#search", "-09999")
        wait_for(page, "1 of 10,000 entries")
        page.keyboard.press("Enter")
        eventually(lambda: title(page).endswith("-09999"))


def zoom(page: Page) -> None:
    """Drag over a part of the timeline."""
    plot = page.locator("#gantt .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 11)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 11, steps=4)
    page.mouse.up()
    page.wait_for_selector("#zoomed:not([hidden])")


def test_the_address_holds_what_is_shown(browser: Browser, file: Path) -> None:
    """The filter, the zoom and the entry: whoever is sent the link sees the same."""
    with shown(browser, file) as page:
        page.click("#kinds [data-kind=failed]")
        eventually(lambda: kinds_of(page) == {"failed"})
        failed = ids(page)
        zoom(page)
        eventually(lambda: 0 < len(ids(page)) < len(failed), what="the zoom filters the entries")
        few = ids(page)
        open_row(page, page.locator(".tabulator-row").first)
        name = title(page)
        link = page.url.partition("#")[2]
        assert all(f"{part}=" in link for part in ("verdict", "zoom", "entry"))
    with shown(browser, file, fragment=f"#{link}") as page:
        page.wait_for_selector("#details:not([hidden])")
        assert title(page) == name
        assert ids(page) == few
        page.keyboard.press("Escape")
        assert "entry=" not in page.url
        page.click("#zoomed")
        eventually(lambda: ids(page) == failed)
        assert page.locator("#zoom-out").is_hidden()
        page.click("#clear")
        eventually(lambda: page.inner_text("#shown") == f"{COUNT} entries")
        assert "#" not in page.url


def test_a_link_to_an_entry_keeps_the_filter(browser: Browser, file: Path) -> None:
    with shown(browser, file) as page:
        page.click("#kinds [data-kind=failed]")
        eventually(lambda: kinds_of(page) == {"failed"})
        page.locator("#causes a:not(.log-link)").last.click()
        page.wait_for_selector("#details:not([hidden])")
        eventually(lambda: "verdict=failed" in page.url and "entry=" in page.url)
        assert kinds_of(page) == {"failed"}


def test_a_cause_says_what_to_do(browser: Browser, file: Path, records: list[EntryRecord]) -> None:
    """Its next step, the command for its first entry, to be copied, and the log of its worker."""
    with shown(browser, file) as page:
        crashed = page.locator("#causes li", has_text="crashed").first
        assert "Next look at the worker's log" in crashed.inner_text()
        first = page.locator("#causes li").first
        name = first.locator(".cause-foot a").first.inner_text()
        command = f"pytest --manifest=nightly.jsonl 'nightly.jsonl::entry[{name}]'"
        assert first.locator("code").inner_text() == f"{command} --manifest-app=shop:app"
        assert first.locator("a.log-link").get_attribute("href") == "runs/r.worker-1.log"
        first.locator(".copy").click()
        eventually(lambda: first.locator(".copy").inner_text() == "Copied")
        page.locator("#search").focus()
        page.keyboard.press("Control+V")
        assert page.input_value("#search") == f"{command} --manifest-app=shop:app"
        page.fill("#search", "")
        first.locator(".cause-foot a").first.click()
        page.wait_for_selector("#details:not([hidden])")
        assert page.locator("#details code").inner_text() == f"{command} --manifest-app=shop:app"
        assert page.locator("#details a.log-link").count() == 1


def test_no_column_leaves_the_paper(browser: Browser, tmp_path: Path) -> None:
    """However long ids, tasks and messages are."""
    long = "".join(f"{n:05}" for n in range(31))
    records = [
        replace(record, entry=record.entry.model_copy(update={"id": f"{long}{n}", "task": long}))
        for n, record in enumerate(sample_records(60, bad=0.5))
    ]
    with shown(browser, written(tmp_path, records), width=703) as page:
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        outside = (
            "[...document.querySelectorAll('main td, main th, main li, main p')]"
            ".filter((one) => one.getBoundingClientRect().right > 704).length"
        )
        assert page.locator("#print-table tbody tr").count() == 60
        assert page.evaluate(outside) == 0
