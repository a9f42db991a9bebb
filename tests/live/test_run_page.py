"""The run page in a browser: what people do with it, by pointer, by keyboard, and on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from pytest_manifest.analysis.comparison import compare
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.reporting.run_page.page import PageFacts, write_page
from tests.browser import opened
from tests.run_page_sample import HOSTILE, TASKS, run_info, sample_records
from tests.support import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

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
    facts = PageFacts(run_info(COUNT), "finished", COUNT, ["A worker ended."], comparison)
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


def wait_for(page: Page, text: str) -> None:
    """Wait until the number of entries that pass the filter reads so."""
    eventually(lambda: page.inner_text("#shown") == text, what=f"{text} are shown")


def title(page: Page) -> str:
    text: str = page.inner_text("#details-title")
    return text


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
        assert "Held against run r1" in page.inner_text("#comparison")
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
    """Up, down, and back to the manifest's order; what is not known stands last either way."""
    times = {record.id: record.last.runtime for record in records if record.last}
    known = sorted(value for value in times.values() if value is not None)
    with shown(browser, file) as page:
        heads = page.locator("#table .tabulator-col .sorter:visible")
        assert heads.count() == 10
        run = page.locator("#table .tabulator-col[tabulator-field=runtime] .sorter")
        run.click()
        eventually(lambda: times[ids(page)[0]] == known[0])
        run.press("Enter")
        eventually(lambda: times[ids(page)[0]] == known[-1])
        heading = page.locator("#table .tabulator-col[tabulator-field=runtime]")
        assert heading.get_attribute("aria-sort") == "descending"
        for at in range(heads.count()):
            before = ids(page)
            heads.nth(at).click()
            heads.nth(at).click()
            assert before
        page.locator("#table .tabulator-col[tabulator-field=id] .sorter").click()
        eventually(lambda: ids(page)[0] == min(times))


def test_an_entry_is_opened_by_a_click(
    browser: Browser, file: Path, records: list[EntryRecord]
) -> None:
    """With its sentence, differences, traceback, log, times, arguments and receipt."""
    record = next(r for r in records if r.receipt is not None and r.receipt.error is not None)
    assert record.receipt is not None
    with shown(browser, file) as page:
        page.fill("#search", record.id)
        wait_for(page, "1 of 400 entries")
        page.click(".tabulator-row")
        page.wait_for_selector("#details:not([hidden])")
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
        assert page.evaluate("location.hash") == f"#entry={record.id}"
        page.click("#details [aria-label=Close]")
        assert page.locator("#details").is_hidden()
        assert page.evaluate("location.hash") == ""


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
        some = [record.id for record in records if "translate-" in record.id]
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
    with shown(browser, file, fragment="#entry=100%25%not-there") as page:
        assert page.locator("#details").is_hidden()


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


def test_colours_follow_the_system_and_a_switch(browser: Browser, file: Path) -> None:
    """The switch goes through automatic, light and dark, and is remembered."""
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_there_is_no_serious_fault_of_accessibility(
    browser: Browser, file: Path, records: list[EntryRecord], *, dark: bool, width: int
) -> None:
    """axe-core finds none, neither in the page nor in an entry that is open."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    record = next(r for r in records if r.kind == "failed")
    with shown(browser, file, dark=dark, width=width) as page:
        assert serious(Axe().run(page).response) == []
        page.goto(f"{file.as_uri()}#entry={quote(record.id)}")
        page.wait_for_selector("#details:not([hidden])")
        assert serious(Axe().run(page).response) == []


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
        page.locator(".tabulator-row").first.click()
        page.wait_for_selector("#details:not([hidden])")
        box = page.locator("#details").bounding_box()
        assert box is not None
        assert box["width"] == 390
        assert title(page) == records[0].id
        assert page.evaluate("document.querySelector('#details').scrollWidth") <= 390


def test_paper_gets_a_plain_table(browser: Browser, file: Path) -> None:
    """Printing writes out what the filter shows, on white, and undoes it afterwards."""
    with shown(browser, file, dark=True) as page:
        page.click("#kinds [data-kind=failed]")
        eventually(lambda: kinds_of(page) == {"failed"})
        count = int(page.inner_text("#shown").partition(" ")[0])
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#print-table tbody tr").count() == count
        assert page.locator("#print-table").is_visible()
        assert page.locator("#table").is_hidden()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("#print-table tbody tr").count() == 0
        assert page.evaluate("document.documentElement.dataset.theme") is None


def test_hostile_text_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    """Nothing of it runs, nothing becomes an element, all of it can be read."""
    nasty = list(sample_records(60, hostile=True, bad=0.5))
    path = tmp_path / "run.html"
    write_page(path, PageFacts(run_info(60), "finished", 60, HOSTILE), iter(nasty))
    with shown(browser, path) as page:
        assert "broken" not in page.title()
        assert page.locator("img").count() == 0
        assert "</script><script>document.title='broken'</script>" in page.inner_text("#advice")
        assert ids(page)[0] == nasty[0].id
        for record in nasty[:20]:
            page.evaluate("hash => { location.hash = hash }", f"#entry={quote(record.id)}")
            eventually(lambda wanted=record.id: title(page) == wanted)  # type: ignore[misc]
            assert page.locator("#details img, #details script").count() == 0
        assert "␛[31mred␛[0m" in page.inner_text("#details") + page.inner_text("#advice")
        assert "broken" not in page.title()


def test_ten_thousand_entries_stay_fluent(browser: Browser, tmp_path: Path) -> None:
    """Only what is seen is in the document, and filters and sorting answer."""
    path = tmp_path / "run.html"
    write_page(path, PageFacts(run_info(10_000), "finished", 10_000), sample_records(10_000))
    assert path.stat().st_size < 6_000_000
    with shown(browser, path) as page:
        assert page.locator(".tabulator-row").count() < 100
        page.fill("#search", "-09999")
        wait_for(page, "1 of 10,000 entries")
        page.keyboard.press("Enter")
        eventually(lambda: title(page).endswith("-09999"))
