"""Put the live page together: its own assets, and what it shares with the run page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from pytest_manifest.reporting.run_page.page import ASSETS as SHARED
from pytest_manifest.reporting.run_page.page import VENDOR, hashes, template, vendored

ASSETS: Final = Path(__file__).with_name("assets")
_OF_RUN_PAGE: Final = re.compile(
    r"^([.]tabulator|[.]sorter|[.]node|[.]tree|[.]track|[.]lane|#lanes|[.]gantt|#timeline|[.]thirds"
    r"|#times|[.]some|[.]facts|[.]path|[.]plain-table|[.]changes|#comparison|#added|[.]swatch"
    r"|[.]meter|[.]percent|[.]slowest|[.]again|[.]copy|[.]log-link|[.]waits|[.]runs|[.]sent|[.]key"
    r"|[.]fold|[.]bar-mark|kbd|[.]stacked|#nav|[.]hint|[.]tip|[.]tags|[.]u-cursor|[.]tools|[.]link)"
)
"""Rules for what the run page alone has: a line each."""
_COMMENT: Final = re.compile(r"^\s*(//.*|/\*\*.*\*/)?$")


@cache
def live_page() -> tuple[str, str]:
    """Return the page and the policy that allows just its own scripts and styles.

    No page may frame it.
    """
    css, _, _ = (SHARED / "page.css").read_text("utf-8").partition("#print-table {")
    styles = [
        vendored("uPlot.min.css"),
        "\n".join(_lean(css)) + (ASSETS / "live.css").read_text("utf-8"),
    ]
    ours = [SHARED / "elements.js", SHARED / "panel.js", ASSETS / "live.js"]
    code = "\n".join(line for path in ours for line in _lean(path.read_text("utf-8")))
    scripts = [vendored("uPlot.iife.min.js"), f"(function () {{\n'use strict';\n{code}\n}})();\n"]
    page = template(ASSETS / "live.html")
    licence = (VENDOR / "LICENSE.uplot.txt").read_text("utf-8").strip().replace("--", "- -")
    page = page.replace("{{licences}}", licence)
    page = page.replace("{{styles}}", "".join(f"<style>{one}</style>\n" for one in styles))
    page = page.replace("{{scripts}}", "".join(f"<script>{one}</script>\n" for one in scripts))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"connect-src 'self'; style-src {hashes(styles)}; script-src {hashes(scripts)}"
    )
    return page, policy


def _lean(text: str) -> list[str]:
    """Return the lines that a browser needs, without what is in them for people."""
    return [
        line.strip()
        for line in text.splitlines()
        if not (_COMMENT.match(line) or _OF_RUN_PAGE.match(line.strip()))
    ]
