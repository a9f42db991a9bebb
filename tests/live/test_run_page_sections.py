"""Sections that projects add to a run page, in a browser: text, tables and links to entries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest import PageSection
from pytest_manifest.reporting.run_page.page import write_page
from pytest_manifest.reporting.run_page.sections import section_documents
from tests.live.test_run_page import shown, title
from tests.run_page_sample import HOSTILE, about, sample_records
from tests.support import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]


def test_a_section_is_shown_and_leads_to_its_entries(browser: Browser, tmp_path: Path) -> None:
    """It is in the navigation, can be linked to, and nothing in it is markup."""
    records = list(sample_records(20))
    path = tmp_path / "run.html"
    long = "A passage of many words. " * 40
    sections = section_documents(
        [
            PageSection(
                "Worst rows",
                "The worst.\nEach beside its passage.",
                ["entry", "grade", "passage"],
                [[records[3].id, 1.5, long], ["no-such-entry", None, "short"]],
                entries="entry",
            ),
            *(PageSection(text, text, [text], [[text]]) for text in HOSTILE if text.strip()),
        ]
    )
    write_page(path, about(records, sections=sections), iter(records))
    with shown(browser, path, width=390) as page:
        eventually(lambda: page.locator("#added-1 table").count() == 1)
        assert page.locator("#nav a[href='#added-1']").inner_text() == "Worst rows"
        assert page.inner_text("#added-1 p") == "The worst.\nEach beside its passage."
        assert page.locator("#added-1 td.num").all_inner_texts() == ["1.5", ""]
        assert long.strip() in page.inner_text("#added-1")
        wide = page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
        assert not wide
        assert page.locator("img, main script").count() == 0
        assert "broken" not in page.title()
        assert page.locator("#added-1 a").count() == 1
        page.click("#added-1 a")
        eventually(lambda: title(page) == records[3].id)
