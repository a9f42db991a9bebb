"""Assemble the page's fixed parts: template, our styles and scripts, vendored libraries."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).with_name("assets")
VENDOR: Final = Path(__file__).with_name("vendor")
LIBRARIES: Final = ("uPlot.iife.min.js", "tabulator.min.js")
STYLES: Final = ("uPlot.min.css", "tabulator_simple.min.css")
SCRIPTS: Final = (
    "base.js",
    "names.js",
    "clocks.js",
    "again.js",
    "details.js",
    "trees.js",
    "plots.js",
    "timeline.js",
    "summary.js",
    "entries.js",
    "address.js",
    "main.js",
)
_MAP: Final = re.compile(r"(//|/\*)# sourceMappingURL=[^\s*]+( \*/)?")
"""Links to source maps, which a browser would look for; the page has none."""


@dataclass(frozen=True)
class PageFrame:
    """The page before and after its data."""

    _head: str
    _tail: str

    def before(self, title: str) -> bytes:
        """Return everything before the data; ``title`` is HTML."""
        return self._head.replace("{{title}}", title, 1).encode()

    def after(self) -> bytes:
        """Return everything after the data."""
        return self._tail.encode()


@cache
def page_frame() -> PageFrame:
    """Return the template with styles, scripts and a policy that allows just these."""
    styles = [_vendored(name) for name in STYLES] + [_asset("page.css")]
    ours = "".join(_asset(name) for name in SCRIPTS)
    scripts = [_vendored(name) for name in LIBRARIES]
    scripts.append(f"(function () {{\n'use strict';\n{ours}}})();\n")
    head, _, tail = _asset("page.html").partition("{{data}}")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_hashes(styles)}; script-src {_hashes(scripts)}"
    )
    head = head.replace("{{policy}}", policy)
    head = head.replace("{{styles}}", "".join(f"<style>{css}</style>\n" for css in styles))
    tail = tail.replace("{{licences}}", _licences())
    tail = tail.replace("{{scripts}}", "".join(f"<script>{js}</script>\n" for js in scripts))
    return PageFrame(head, tail)


def _licences() -> str:
    """Return the libraries' licences, which must go wherever they go, for an HTML comment."""
    texts = [path.read_text("utf-8").strip() for path in sorted(VENDOR.glob("LICENSE.*.txt"))]
    return "\n\n".join(texts).replace("--", "- -")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def _vendored(name: str) -> str:
    text = (VENDOR / name).read_text("utf-8")
    return _MAP.sub("", text)


def _hashes(texts: list[str]) -> str:
    return " ".join(_hash(text) for text in texts)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
