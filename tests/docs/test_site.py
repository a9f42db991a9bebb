"""The site: every page is in its navigation, and its builder changes only what it has to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import pytest

from pytest_manifest.plugin.options import ROWS
from scripts import docs_site
from scripts.docs_links import faults
from tests.browser import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.ring(1)


def test_the_navigation_has_each_page_once() -> None:
    """docs/README.md lists every page under tutorial, how-to, reference or explanation."""
    listed = Counter(path for section in docs_site.navigation() for _, path in section.pages)
    pages = set(docs_site.DOCS.rglob("*.md")) - {docs_site.HOME}
    assert set(listed) == pages
    assert [path for path, times in listed.items() if times > 1] == []


def test_the_sections_are_of_the_five_kinds_of_documents() -> None:
    """A page's folder is the kind under whose headings it stands ("How to: look at a run")."""
    folders: dict[str, set[str]] = {}
    for section in docs_site.navigation():
        parts = {path.relative_to(docs_site.DOCS).parts[0] for _, path in section.pages}
        folders.setdefault(section.title.partition(":")[0], set()).update(parts)
    assert folders == {
        "Tutorial": {"tutorial"},
        "How to": {"how-to"},
        "Reference": {"reference"},
        "Explanation": {"explanation"},
        "Evidence": {"evidence"},
    }


def test_the_list_for_language_models_is_current() -> None:
    """`make docs` writes docs/llms.txt; commit it with the page that changed it."""
    assert docs_site.LLMS.read_text("utf-8") == docs_site.llms()


def test_a_title_becomes_a_caption_and_what_is_for_tests_goes(tmp_path: Path) -> None:
    """In lists, too, whose blocks are indented."""
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n`jobs.py`:\n\n```python title=jobs.py\na = 1\n```\n\n"
        '- So:\n\n  ```console exit=1 skip="needs a key"\n  $ true\n  ```\n\n```\nplain\n```\n'
    )
    assert docs_site.converted(page, {page: "page.md"}) == (
        "# Page\n\n```{code-block} python\n:caption: jobs.py\n\na = 1\n```\n\n"
        "- So:\n\n  ```console\n  $ true\n  ```\n\n```text\nplain\n```\n"
    )


def test_links_follow_files_to_their_places(tmp_path: Path) -> None:
    """Those of pages and papers; others, and what stands in blocks, stay as they are."""
    page = tmp_path / "docs" / "how-to" / "page.md"
    paper = tmp_path / "PAPER.md"
    page.parent.mkdir(parents=True)
    page.write_text(
        "[a](../../PAPER.md#so) [b](https://a.example) [c](#so)\n```text\n[a](x)\n```\n"
    )
    staged = {page: "how-to/page.md", paper: "project/paper.md"}
    converted = docs_site.converted(page, staged)
    assert converted.splitlines() == [
        "[a](../project/paper.md#so) [b](https://a.example) [c](#so)",
        "```text",
        "[a](x)",
        "```",
    ]


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ('<a href="b.html#there">', None),
        ('<a href="https://a.example">', None),
        ('<a href="#gone">', "a.html leads to #gone, which has no such anchor"),
        ('<a href="b.html#gone">', "a.html leads to b.html#gone, which has no such anchor"),
        ('<img src="gone.png">', "a.html leads to gone.png, which is not there"),
        ('<script src="//a.example/x.js">', "a.html loads //a.example/x.js from another host"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, fault: str | None, tmp_path: Path) -> None:
    """Files, anchors, and what a page would load from elsewhere."""
    (tmp_path / "a.html").write_text(link)
    (tmp_path / "b.html").write_text('<h2 id="there">')
    assert faults(tmp_path) == ([] if fault is None else [fault])


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site as a server shows it: a search reads the pages that it has found."""
    assert docs_site.main() == 0
    handler = partial(SimpleHTTPRequestHandler, directory=str(docs_site.SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_each_option_and_setting_has_the_anchor_that_its_errors_name() -> None:
    """Of its row in the reference, where it is described once."""
    for name, given in (("commands", False), ("configuration", True)):
        text = (docs_site.DOCS / "reference" / f"{name}.md").read_text("utf-8")
        rows = re.findall(r"^\| `(--manifest[a-z-]*|manifest_\w+)", text, re.MULTILINE)
        cell = '<tr class="row-odd"><td><p><code class="x"><span class="pre">{}=X</span></code>'
        page = docs_site.mended("".join(map(cell.format, rows)), f"reference/{name}")
        assert re.findall(r'<tr id="(.*?)"', page) == rows
        wanted = {
            one.dest if given else one.flag
            for one in ROWS.values()
            if (one.ini if given else one.is_typed)
        }
        assert wanted <= set(rows)
        assert len(rows) == len(set(rows))


@pytest.mark.ring(2)
def test_the_site_has_the_anchors_of_options(site: str, page: Page) -> None:
    page.goto(f"{site}/reference/commands.html#--manifest-shard")
    assert page.locator("tr:target code").first.inner_text() == "--manifest-shard=K/N[@RUN]"


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("lost", "Something broke (symptoms)"),
        ("nothing is sent", "Something broke (symptoms)"),
        ("resume", "Go on after a crash (resume)"),
        ("kubernetes", "Run workers and batches on Kubernetes"),
    ],
)
def test_a_search_finds_help_first(words: str, first: str, site: str, page: Page) -> None:
    page.goto(f"{site}/search.html?q={quote_plus(words)}")
    found = page.locator(".pagefind-ui__result").first  # of which the link may come after others'
    assert found.locator(".pagefind-ui__result-link").first.inner_text() == first


@pytest.mark.ring(2)
def test_axe_finds_nothing(browser: Browser, site: str) -> None:
    """On the home page, a how-to, the options, evidence and a search, by day and night."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    names = ("index", "how-to/go-on-after-a-crash", "reference/commands", "evidence/promises")
    urls = [*(f"{site}/{name}.html" for name in names), f"{site}/search.html?q=lost"]
    for url, dark in product(urls, (False, True)):
        with opened(browser, dark=dark) as page:
            page.goto(url)
            if "?" in url:
                page.wait_for_selector(".pagefind-ui__result-link")
            found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"]) for one in found] == [], url
