"""The project's own files: they speak of the project alone, and lead where they should."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.house.conftest import ROOT, project_files

TEXT = {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".sh", ".cfg", ".svg", ".json", ""}
HOSTS = {
    "ctrf.io",
    "datasette.io",
    "in-toto.io",  # names a format
    "opentelemetry.io",  # names a version of its conventions
    "127.0.0.1",
    "localhost",
    "docs.celeryq.dev",
    "json-schema.org",
    "www.apache.org",
    "www.w3.org",
    "keepachangelog.com",
    "semver.org",
    "docs.pytest.org",
}
"""Where a link may lead. Nothing here is fetched by a test or at run time."""


def is_document(path: Path) -> bool:
    """Whether people read it: what tests use as examples may name any host."""
    return path.suffix in TEXT and path.relative_to(ROOT).parts[0] not in {"tests", "benchmarks"}


def test_links_lead_to_known_hosts() -> None:
    """No address of a package index, a machine or somebody's site is in any file."""
    found = {}
    for path in filter(is_document, project_files()):
        for address in re.findall(r"https?://[^\s\"'<>)`\]]+", path.read_text("utf-8")):
            host = urlsplit(address).hostname or ""
            if "{" in host:  # put together at run time
                continue
            if host not in HOSTS and not host.endswith((".example", "example.com", ".invalid")):
                found[f"{path.relative_to(ROOT)}: {address}"] = host
    assert found == {}


def test_no_file_names_a_place_on_a_machine() -> None:
    """Neither home folders nor work folders of anybody's."""
    pattern = re.compile(r"/(home/(?!me\b)\w+|root|Users/\w+|work|farm)/\w")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in project_files()
        if path.suffix in TEXT
        for match in [pattern.search(path.read_text("utf-8"))]
        if match
    ]
    assert found == []


def relative_links(path: Path) -> list[str]:
    """The targets of a Markdown file's links into the project."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r'(?:src|srcset|href)="([^"]+)"', text
    )
    return [target for target in targets if "://" not in target]


def heading_anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as forges make them."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


DOCUMENTS = [path for path in project_files() if path.suffix == ".md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_between_documents_hold(path: Path) -> None:
    """Every file, and every heading, that a document links to is there."""
    for target in relative_links(path):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in heading_anchors(there), target


def test_every_page_can_be_found_from_the_readme() -> None:
    """Following links from README.md reaches all of docs/ and the project's papers."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in relative_links(page):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.is_file():
                waiting.append(there)
    wanted = {path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    wanted |= {ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")}
    assert wanted - reached == set()


def test_the_readme_is_short() -> None:
    """Who has only pip, and who has a clone, each find their commands on two pages."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 130
