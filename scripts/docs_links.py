"""Find the links of a built site that lead nowhere: ``python -m scripts.docs_links build/site``.

Looks at every page's links, pictures, scripts and styles; files and anchors must be in the site.
Pages may not load anything from another host. Links to other hosts are not followed.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img", "script", "link", "source", "iframe"}
"""Elements that a browser loads without being asked."""


class _Page(HTMLParser):
    """The anchors of a page, and where it leads: (element, target)."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.targets: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element's anchor and target."""
        for name, value in attrs:
            if value and (name == "id" or (tag, name) == ("a", "name")):
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.targets.append((tag, value))


def faults(site: Path) -> list[str]:
    """Return a sentence for each link that leads nowhere."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    found: set[str] = set()
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for tag, target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                if tag in LOADED and url.scheme != "data":
                    found.add(f"{name} loads {target} from another host")
                continue
            there = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not there.exists():
                found.add(f"{name} leads to {target}, which is not there")
            elif there in pages and unquote(url.fragment) not in pages[there].anchors:
                found.add(f"{name} leads to {target}, which has no such anchor")
    return sorted(found)


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    return page


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)
