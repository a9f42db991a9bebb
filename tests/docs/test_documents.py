"""Whoever follows a document gets what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.runner import Reader, copy_project

ROOT = Path(__file__).resolve().parents[2]
PAPERS = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")]
IN_THE_PROJECT = [*PAPERS, ROOT / "docs" / "how-to" / "fill-gaps-with-an-llm.md"]
"""What is followed in a clone of the project, as it is about the project's own workflows."""
DOCUMENTS = PAPERS + sorted((ROOT / "docs").rglob("*.md"))
MAY_SKIP = 9
"""Blocks that nothing can run, in all documents together; each says why."""


def name_of(path: Path) -> str:
    """A document's path within the project."""
    return path.relative_to(ROOT).as_posix()


def runs(path: Path) -> bool:
    """Whether a document has anything to follow."""
    return any("skip" not in block.options for block in blocks(path))


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if runs(p)], ids=name_of)
def test_a_reader_gets_what_the_document_says(path: Path, tmp_path: Path) -> None:
    """Each block in its order, in a fresh folder or in a clone of the project."""
    folder = tmp_path / "reader"
    folder.mkdir()
    if path in IN_THE_PROJECT:
        copy_project(ROOT, folder)
    with Reader(folder) as reader:
        assert reader.follow(path) > 0


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    """A reason is a few words; more and more of them would be a way around these tests."""
    reasons = {
        block.place: block.options["skip"]
        for path in DOCUMENTS
        for block in blocks(path)
        if "skip" in block.options
    }
    assert all(len(reason.split()) >= 2 for reason in reasons.values()), reasons
    assert len(reasons) <= MAY_SKIP, reasons
