"""Whoever follows a document gets what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import beside
from tests.docs.blocks import blocks
from tests.docs.runner import NEEDS_INDEX, PIP_ALONE, Reader, copy_project

ROOT = Path(__file__).resolve().parents[2]
PAPERS = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")]
IN_THE_PROJECT = [*PAPERS, ROOT / "docs" / "how-to" / "fill-gaps-with-an-llm.md"]
"""What is followed in a clone of the project, as it is about the project's own workflows."""
FIRST = [ROOT / "README.md"]
"""What is followed at each push, beside the tutorial."""
BESIDE = {"docs/how-to/django.md": ("pytest-django",)}
"""Pages whose readers have other people's packages, and which plugins of those."""
DOCUMENTS = PAPERS + sorted((ROOT / "docs").rglob("*.md"))
MAY_SKIP = 8
"""Blocks that nothing can run, in all documents together; each says why."""
IS_RUN_ELSEWHERE = (" runs it", " runs this")
"""How a reason ends that says what runs the block."""


def name_of(path: Path) -> str:
    """A document's path within the project."""
    return path.relative_to(ROOT).as_posix()


def runs(path: Path) -> bool:
    """Whether a document has anything to follow."""
    return any("skip" not in block.options for block in blocks(path))


def followed(path: Path) -> object:
    """Return it as a parameter; those that every reader begins with are of ring 1."""
    is_first = path in FIRST or path.parent.name == "tutorial"
    return pytest.param(path, id=name_of(path), marks=[pytest.mark.ring(1)] if is_first else [])


@pytest.mark.parametrize("path", [followed(path) for path in DOCUMENTS if runs(path)])
def test_a_reader_gets_what_the_document_says(path: Path, tmp_path: Path) -> None:
    """Each block in its order, in a fresh folder or in a clone of the project."""
    folder = tmp_path / "reader"
    folder.mkdir()
    if path in IN_THE_PROJECT:
        copy_project(ROOT, folder)
    sections = {block.section for block in blocks(path)} - PIP_ALONE
    with Reader(folder) as reader:
        if (others := BESIDE.get(name_of(path))) is not None:
            reader.environment |= beside.path_and_plugins(*others)
        assert reader.follow(path, sections=sections) > 0


@pytest.mark.ring(1)
def test_the_first_two_minutes_need_nothing_of_the_project(tmp_path: Path) -> None:
    """README's first sections, in an empty folder; .ci/check_wheel.py installs for them, too."""
    with Reader(tmp_path) as reader:
        assert reader.follow(ROOT / "README.md", sections=PIP_ALONE) == 4


@pytest.mark.ring(1)
@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_the_text_names_each_file_that_is_to_be_written(path: Path) -> None:
    """A forge does not show a block's title; a line "`NAME`:" above it does."""
    nameless = [
        f"{block.place}: {title}"
        for block in blocks(path)
        if (title := block.options.get("title")) and f"`{title}`" not in block.above
    ]
    assert nameless == []


@pytest.mark.ring(1)
def test_few_blocks_are_not_run_and_each_says_why() -> None:
    """A reason is a few words; more and more of them would be a way around these tests."""
    reasons = {
        block.place: block.options["skip"]
        for path in DOCUMENTS
        for block in blocks(path)
        if block.options.get("skip", NEEDS_INDEX) != NEEDS_INDEX
        and not block.options["skip"].endswith(IS_RUN_ELSEWHERE)
    }
    assert all(len(reason.split()) >= 2 for reason in reasons.values()), reasons
    assert len(reasons) <= MAY_SKIP, reasons
