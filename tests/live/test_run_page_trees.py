"""The tasks that jobs started, in the run page in a browser: found, unfolded, on the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.analysis.records import AttemptRecord
from pytest_manifest.analysis.tree_reading import TreeRecord, tree_of
from pytest_manifest.reporting.run_page.columns import TreeSource
from pytest_manifest.reporting.run_page.page import write_page
from tests.live.test_run_page import shown, title, wait_for
from tests.run_page_sample import about, sample_records, sample_tree, sample_trees
from tests.support import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.live

COUNT = 60
EVERY = 20


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of entries of which every twentieth has a tree of thirty."""
    return made(tmp_path_factory.mktemp("page") / "run.html", 30)


def made(path: Path, count: int, entries: int = COUNT, every: int = EVERY) -> Path:
    facts = about(sample_records(entries), trees=sample_trees(every, count))
    write_page(path, facts, sample_records(entries))
    return path


def expected(count: int = 30, number: int = 40) -> tuple[str, TreeRecord]:
    """The id of an entry, and the tree that its page has."""
    record = list(sample_records(COUNT))[number]
    assert record.last is not None
    return record.id, sample_tree(record.last, count)


def nodes(page: Page) -> Locator:
    return page.locator(".tree .node")


def is_open(page: Page) -> bool:
    return bool(page.locator(".tree-part").evaluate("part => part.open"))


def names(page: Page) -> list[str]:
    found: list[str] = page.locator(".tree .node .mono").all_inner_texts()
    return found


@pytest.mark.ring(1)
def test_an_entry_s_tree_is_folded_until_it_is_asked_for(browser: Browser, file: Path) -> None:
    """Its line tells how many there are and how long it took; opened, each task has its bar."""
    entry, tree = expected()
    with shown(browser, file, fragment=f"#entry={entry}") as page:
        summary = page.inner_text(".tree-part summary")
        assert "30 descendants" in summary
        assert "29 passed, 1 failed" in summary
        assert f"critical path: {len(tree.path) + 1} tasks" in summary
        assert not is_open(page)
        assert nodes(page).count() == 0
        page.click(".tree-part summary")
        eventually(lambda: nodes(page).count() == 31)
        assert names(page) == [one.task for _, one in tree.tasks]
        path = page.locator(".tree .node.path").evaluate_all("all => all.map(n => n.dataset.id)")
        assert path == ["", *tree.path]
        assert page.locator(".tree .runs.failed").count() == 1
        assert page.locator(".tree .node", has_text="\u21bb1").count() == 1


def test_what_never_ran_says_why_and_when_it_was_sent(browser: Browser, tmp_path: Path) -> None:
    """It has no bar and no time: the word of its end stands in their place."""
    file = tmp_path / "run.html"

    def read(attempts: Sequence[AttemptRecord], _limit: int) -> dict[str, TreeRecord]:
        (one,) = attempts
        made = [task for _, task in sample_tree(one, 6).tasks]
        lost = replace(made[-1], status="lost", started_at=None, ended_at=None, runtime=None)
        return {one.task_id: tree_of(one, [*made[:-1], lost])}

    write_page(file, about(sample_records(1), trees=TreeSource(read)), sample_records(1))
    with shown(browser, file, fragment=f"#entry={next(iter(sample_records(1))).id}") as page:
        page.click(".tree-part summary")
        row = page.locator(".tree .node", has_text="lost")
        eventually(lambda: row.count() == 1)
        assert row.locator(".num").inner_text() == "lost"
        assert row.locator(".track .sent.error").count() == 1
        assert row.locator(".runs").count() == 0


def test_a_task_of_the_tree_tells_more_when_it_is_clicked(browser: Browser, file: Path) -> None:
    """Its id, its times, its worker; of one that failed the traceback."""
    entry, tree = expected()
    failed = next(one for _, one in tree.tasks if one.status == "failed")
    with shown(browser, file, fragment=f"#entry={entry}") as page:
        page.click(".tree-part summary")
        page.click(f".tree .node[data-id='{failed.task_id}'] .track")
        note = page.inner_text(".node-note")
        assert failed.task_id in note
        assert "chain" in note
        assert "no text layer" in note
        assert "Traceback" in note
        page.click(f".tree .node[data-id='{failed.task_id}'] .track")
        assert page.locator(".node-note").count() == 0


def test_the_filter_finds_the_task_id_of_a_descendant(browser: Browser, file: Path) -> None:
    """Its entry is shown, and opened with that task in sight; a name of a task finds all."""
    entry, tree = expected()
    task_id = tree.tasks[20][1].task_id
    with shown(browser, file) as page:
        wait_for(page, f"{COUNT} entries")
        page.fill("#search", task_id)
        wait_for(page, f"1 of {COUNT} entries")
        page.press("#search", "Enter")
        eventually(lambda: page.locator(".tree .node.hit").count() == 1)
        assert title(page) == entry
        assert is_open(page)
        assert task_id in page.inner_text(".node-note")
        page.keyboard.press("Escape")
        page.fill("#search", "pages.join")
        wait_for(page, f"3 of {COUNT} entries")
        page.fill("#search", "pages-2#")
        wait_for(page, f"3 of {COUNT} entries")


def test_the_tree_can_be_walked_by_keyboard(browser: Browser, file: Path) -> None:
    """Up and down, fold and unfold, Enter for more; the entry stays open."""
    entry, _ = expected()
    with shown(browser, file, fragment=f"#entry={entry}") as page:
        page.click(".tree-part summary")
        eventually(lambda: nodes(page).count() == 31)
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowLeft")
        eventually(lambda: nodes(page).count() == 30)
        assert "+1" in page.locator(".tree .node:focus").inner_text()
        page.keyboard.press("ArrowRight")
        eventually(lambda: nodes(page).count() == 31)
        page.keyboard.press("Enter")
        assert page.locator(".node-note").count() == 1
        page.keyboard.press("End")
        assert nodes(page).nth(30).evaluate("node => node === document.activeElement")
        assert title(page) == entry


def test_the_timeline_has_the_descendants_bars(browser: Browser, file: Path) -> None:
    """On lanes of their workers, to be taken away; a click on one opens it in its entry."""
    with shown(browser, file) as page:
        button = page.locator("#with-descendants")
        eventually(lambda: button.get_attribute("aria-pressed") == "true")
        assert button.inner_text() == "90 descendants"
        lanes = page.locator("#lanes .lane")
        assert "pages-1" in (lanes.first.get_attribute("aria-label") or "")
        assert "and 90 descendants" in (page.locator("#gantt").get_attribute("aria-label") or "")
        lanes.first.focus()
        page.keyboard.press("ArrowRight")
        assert "descendant of" in page.inner_text("#tip")
        page.keyboard.press("Enter")
        eventually(lambda: page.locator(".node-note").count() == 1)
        page.keyboard.press("Escape")
        before = lanes.count()
        button.click()
        eventually(lambda: lanes.count() == before - 3)
        assert button.get_attribute("aria-pressed") == "false"


def test_of_a_large_tree_the_path_and_the_failures_are_unfolded(
    browser: Browser, tmp_path: Path
) -> None:
    """The rest is one click away."""
    file = made(tmp_path / "run.html", 100)
    entry, tree = expected(100)
    with shown(browser, file, fragment=f"#entry={entry}") as page:
        page.click(".tree-part summary")
        eventually(lambda: nodes(page).count() > 0)
        assert nodes(page).count() < 70
        present = nodes(page).evaluate_all("all => all.map(n => n.dataset.id)")
        assert set(tree.path) <= set(present)
        failed = next(one for _, one in tree.tasks if one.status == "failed")
        assert failed.task_id in present


def test_many_descendants_are_not_drawn_until_they_are_asked_for(
    browser: Browser, tmp_path: Path
) -> None:
    """The page is there at once, and stays so with the bars of all of them."""
    file = made(tmp_path / "run.html", 100, entries=300, every=1)
    with shown(browser, file) as page:
        button = page.locator("#with-descendants")
        eventually(button.is_visible)
        assert button.get_attribute("aria-pressed") == "false"
        assert "pages-1" not in page.inner_text("#lanes")
        button.click()
        eventually(lambda: button.get_attribute("aria-pressed") == "true")
        assert "pages-1" in page.inner_text("#lanes")
