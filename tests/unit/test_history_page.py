"""The page of many runs, as a browser shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import nights
from benchmarks.history import digest_of
from pytest_manifest.analysis.many_runs import over_time
from pytest_manifest.reporting.history_page import write_history_page
from pytest_manifest.schema.run_digest import DigestEntry
from tests.browser import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)></script>"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of forty nights; see ``benchmarks.nights`` for what happens in which."""
    made = tmp_path_factory.mktemp("nights")
    write_history_page(made / "history.html", nights.forty_nights(made))
    return made / "history.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_says_what_happened(
    browser: Browser, file: Path, width: int, *, dark: bool
) -> None:
    """All of it and nothing else, on a telephone and a screen, without a request to anybody."""
    with opened(browser, width=width, dark=dark) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        assert asked == [file.as_uri()]
        assert (
            page.locator(".verdict")
            .inner_text()
            .split("\n")[-1]
            .endswith("69 of 72 passed in the last run")
        )
        said = page.locator(".said").inner_text()
        assert said.startswith("3 entries are red since run 21 (12 Nov, 02:10)")
        assert "its code changed in that run" in said
        notes = page.locator(".advice li").all_inner_texts()
        assert [note.split()[0] for note in notes] == ["images.thumbnail", "shop-3@night"]
        kinds = page.locator(".kind h4").all_inner_texts()
        assert kinds == ["Broken 3", "Flaky 1", "One bad run 3"]
        assert "formerly translate-08" in page.locator(".kind").first.inner_text()
        assert page.locator(".heat thead .part").all_inner_texts() == ["24"]
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


def test_the_newest_runs_are_in_sight(browser: Browser, file: Path) -> None:
    """Where not all have room, the older ones are those that are scrolled to."""
    with opened(browser, width=390) as page:
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelector('.heat').scrollLeft > 0")
        box = page.locator(".heat thead .cell").last.bounding_box()
        assert box is not None
        assert 0 < box["x"] < 390


def test_nothing_in_it_is_markup(browser: Browser, tmp_path: Path) -> None:
    """Whatever entries and tasks are called; a policy allows the page's own script alone."""
    red = DigestEntry(id=HOSTILE, task=HOSTILE, verdict="failed", work="0" * 16)
    digests = [digest_of(n, [1.0], [red]) for n in (1, 2)]
    file = tmp_path / "history.html"
    write_history_page(file, over_time([digests]))
    policy = re.search('Content-Security-Policy" content="([^"]+)"', file.read_text("utf-8"))
    assert policy is not None
    assert policy[1].startswith(
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src"
    )
    with opened(browser) as page:
        page.goto(file.as_uri())
        assert page.locator("img").count() == 0
        assert HOSTILE in page.locator(".kind").inner_text()
