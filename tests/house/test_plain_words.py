"""What people read has the field's words, and none of the few that only this project once used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.conftest import ROOT

PACKAGE = ROOT / "pytest_manifest"
OURS = re.compile(
    r"\b(cannot|could not) be told\b|\bnobody tells\b|\bnobody has told\b|\btells? nothing of\b"
    r"|\bheld against\b|\bgiven again\b|\bfor want of\b|\bstrangers?\b|\buntold\b"
    r"|\bvery same work\b|\bnothing but an end\b|\b(worker|task|broker|receipt|store)s? tells?\b"
    r"|\bcontradicts? (itself|one another)|\b(never|none|its turn) came\b|\breceipt has come\b"
    r"|\btold (by|of)\b|\b(is|are) said to\b|\bto be believed\b|\b(what|none) came\b|\bcame to\b"
    r"|\bnobody (had|has|stays)\b|\breceipt that lies\b|\bno(thing|body) says (how|why|by which)\b"
    r"|\banew\b|\bas they come\b|\b(one|whoever) comes\b|\bnot seen to come\b"
    r"|\b(was|were|jobs?|workers?) (not )?told\b|\bcannot be gone on with\b"
    r"|\bNo end of the job was seen\b",
    re.IGNORECASE,
)
"""The field's words are: report, record, know, say, complete, is not known."""


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of several words of a module that are no docstrings, and no SQL."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(body := getattr(node, "body", None), list)
        for statement in body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_message = " " in node.value and "SELECT" not in node.value
            if is_message and id(node) not in docstrings:
                yield node.lineno, node.value


def of_the_page(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of several words of a page or a script: a script's strings, a page's lines."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        texts = (
            [line] if path.suffix == ".html" else re.findall(r"[\"`]([^\"`]* [^\"`]*)[\"`]", line)
        )
        yield from ((number, text) for text in texts)


READ = {".py": sentences, ".html": of_the_page, ".js": of_the_page}


def test_messages_are_in_plain_words() -> None:
    """A reader knows no words of this project but its domain's."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:100]}"
        for path in sorted(PACKAGE.rglob("*.*"))
        if path.suffix in READ
        for line, text in READ[path.suffix](path)
        if OURS.search(text)
    ]
    assert found == []
