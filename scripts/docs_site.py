"""Build the site of docs/ and the project's papers: ``python -m scripts.docs_site``.

Warnings of Sphinx are errors, and so are links of the built pages that lead nowhere. The site is in
``build/site``. Writes ``docs/llms.txt``, the list of pages for language models, too.

Pages stay Markdown as forges show it. On the way to Sphinx, in ``build/site-source``, three things
change: ``title=NAME`` of a block becomes its caption, in place of a line above that only names it;
words that are for tests/docs alone go (``skip=``, ``exit=``, ``order=``); and links between files
follow them to their places in the site.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from scripts.docs_links import faults
from tests.docs.blocks import FENCE

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
LLMS = DOCS / "llms.txt"
HOME = DOCS / "README.md"
PAPERS = {
    ROOT / "ARCHITECTURE.md": "project/architecture.md",
    ROOT / "CONTRIBUTING.md": "project/contributing.md",
    ROOT / "CHANGELOG.md": "project/changelog.md",
    ROOT / "SECURITY.md": "project/security.md",
    ROOT / "benchmarks" / "README.md": "project/benchmarks.md",
    ROOT / "tests" / "README.md": "project/tests.md",
}
"""What is not in docs/ and has a page all the same; nothing links to an absent one."""
LINK = re.compile(r"(?P<before>\]\(|(?:src|srcset|href)=\")(?P<target>[^)\"\s]+)")
NOT_SEARCHED: Final = {"search", "genindex"}
NAMING = re.compile(r"^ *`[^`\n]+`:\n\n\Z", re.MULTILINE)
"""A line that names the file in the next block, for forges: they do not show a block's title."""
SECTION = re.compile(
    r"^\*\*(?P<title>[^*]+)\*\*.*\n(?P<items>(?:^- .*\n?|^  .*\n?)+)", re.MULTILINE
)
ITEM = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<target>[^)]+)\)", re.MULTILINE)

LACKING: Final = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="This page">',
    '<a class="headerlink"': '<a data-pagefind-ignore class="headerlink"',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper ': '<div tabindex="0" class="table-wrapper ',
}
"""What axe-core finds in the theme's pages, and what mends it: what scrolls is reached by keys. And
the sign of a heading's link, which is no part of its words."""
WEIGHTS: Final = {
    "how-to/something-broke": 10,
    "how-to": 4,
    "tutorial": 3,
    "reference": 3,
    "explanation": 2,
}
"""How much a word of a page counts in a search: help goes first; others, what proves and what
changed, have 1."""


OPTION_ROW: Final = re.compile(
    r'<tr(?= class="row-\w+"><td><p><code [^>]*><span class="pre">(--manifest[a-z-]*|manifest_\w+))'
)
"""The row of an option or a setting in a table of the reference: errors name its anchor."""


class Section(NamedTuple):
    """A part of the navigation: its title, and the title and file of each page."""

    title: str
    pages: list[tuple[str, Path]]


def navigation() -> list[Section]:
    """Return the sections of docs/README.md, which is the one list of pages, in its order."""
    return [
        Section(
            found["title"],
            [
                (item["title"], (DOCS / item["target"]).resolve())
                for item in ITEM.finditer(found["items"])
            ],
        )
        for found in SECTION.finditer(HOME.read_text("utf-8"))
    ]


def places() -> dict[Path, str]:
    """Return where each file of the repository is in the site's source: path -> name."""
    found = {
        path: path.relative_to(DOCS).as_posix()
        for path in sorted(DOCS.rglob("*"))
        if path.is_file() and path.name != "conf.py"
    }
    papers = {path: name for path, name in PAPERS.items() if path.exists()}
    return found | papers | {HOME: "index.md"}


def converted(path: Path, staged: dict[Path, str]) -> str:
    """Return a Markdown file as Sphinx gets it."""
    text = path.read_text("utf-8")
    parts: list[str] = []
    end = 0
    for block in FENCE.finditer(text):
        before = NAMING.sub("", text[end : block.start()])
        parts += [_linked(before, path, staged), _block(block)]
        end = block.end()
    parts.append(_linked(text[end:], path, staged))
    return "".join(parts) + (_toctrees(staged) if path == HOME else "")


def _linked(text: str, path: Path, staged: dict[Path, str]) -> str:
    here = Path(staged[path]).parent

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        name = staged.get((path.parent / target).resolve()) if target else None
        if name is None:
            return match[0]
        moved = os.path.relpath(name, here)
        return f"{match['before']}{moved}{'#' if anchor else ''}{anchor}"

    return LINK.sub(link, text)


def _block(block: re.Match[str]) -> str:
    indent, fence, body = block["indent"], block["fence"], block["body"]
    language, _, rest = block["info"].strip().partition(" ")
    options = dict(word.split("=", 1) for word in shlex.split(rest))
    if "title" not in options:
        return f"{indent}{fence}{language or 'text'}\n{body}{indent}{fence}"
    head = f"{fence}{{code-block}} {language}\n{indent}:caption: {options['title']}\n"
    return f"{indent}{head}\n{body}{indent}{fence}"


def _toctrees(staged: dict[Path, str]) -> str:
    sections = [
        *navigation(),
        Section("Project", [("", path) for path in PAPERS if path in staged]),
    ]
    trees = []
    for title, pages in sections:
        names = "\n".join(staged[path].removesuffix(".md") for _, path in pages if path in staged)
        trees.append(f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n")
    return "".join(trees)


def first_sentence(path: Path) -> str:
    """Return the first sentence of a page's text, without its links and emphasis."""
    text = FENCE.sub("", path.read_text("utf-8"))
    paragraphs = (part.strip() for part in text.split("\n\n"))
    skipped = ("#", "|", "!", "<", "-", ">", "=")
    first = next((part for part in paragraphs if part and not part.startswith(skipped)), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=[.:?!])\s+(?=[A-Z`\"])", plain.replace("**", ""))[0].rstrip(":") or ""


def llms() -> str:
    """Return the text of llms.txt: what the project is, and each page with its first sentence."""
    lines = ["# pytest-celery-manifest", "", f"> {first_sentence(HOME)}", ""]
    for title, pages in navigation():
        lines += [f"## {title}", ""]
        for name, path in pages:
            about = first_sentence(path)
            target = os.path.relpath(path, DOCS)
            lines.append(f"- [{name.replace('`', '')}]({target})" + (f": {about}" if about else ""))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def stage() -> None:
    """Write the site's source anew."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    staged = places()
    for path, name in staged.items():
        target = SOURCE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(converted(path, staged), "utf-8")
        else:
            shutil.copyfile(path, target)


def mended(page: str, name: str) -> str:
    """Return a built page with what Furo's leaves out for keyboards, screen readers and searches,
    and with the anchors of options.

    ``name``: its path in the site, without the ending.
    """
    for lacking, whole in LACKING.items():
        page = page.replace(lacking, whole)
    if name in ("reference/commands", "reference/configuration"):
        page = OPTION_ROW.sub(r'<tr id="\1"', page)
    weight = next((n for start, n in WEIGHTS.items() if name.startswith(start)), 1)
    searched = f'<article data-pagefind-body data-pagefind-weight="{weight}" '
    return page if name in NOT_SEARCHED else page.replace("<article ", searched)


def mend_pages() -> None:
    """Mend each built page."""
    for path in SITE.rglob("*.html"):
        name = path.relative_to(SITE).with_suffix("").as_posix()
        path.write_text(mended(path.read_text("utf-8"), name), "utf-8")


def publish_markdown() -> None:
    """Put each page's Markdown beside its HTML, and all of them into llms-full.txt."""
    texts = []
    for path, name in places().items():
        if path.suffix == ".md":
            shutil.copyfile(path, SITE / name)
            texts.append(f"<!-- {name} -->\n\n{path.read_text('utf-8').rstrip()}\n")
    shutil.copyfile(LLMS, SITE / LLMS.name)
    (SITE / "llms-full.txt").write_text("\n".join(texts), "utf-8")


def main() -> int:
    """Build the site; return 1 with the faults on standard error where there are any."""
    LLMS.write_text(llms(), "utf-8")
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    strict = ("-b", "html", "-W", "--keep-going", "-n", "-q")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *strict,
        "-c",
        str(DOCS),
        "-d",
        str(SITE.parent / "site-cache"),
    ]
    if subprocess.run([*command, str(SOURCE), str(SITE)], check=False).returncode:
        return 1
    mend_pages()
    publish_markdown()
    index = [sys.executable, "-m", "pagefind", "--site", str(SITE), "--quiet"]
    if subprocess.run(index, check=False).returncode:
        return 1
    wrong = faults(SITE)
    for fault in wrong:
        print(fault, file=sys.stderr)
    print(f"{SITE.relative_to(ROOT)}/index.html: {len(places())} files, {len(wrong)} broken links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
