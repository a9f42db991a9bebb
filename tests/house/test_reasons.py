"""Sentences are for people: whatever is to be known of a verdict is in the fields of its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from pytest_manifest.verdict.reasons import RULES, Reason
from tests.house.conftest import ROOT

PACKAGE = ROOT / "pytest_manifest"
MADE_OF_FIELDS = ("sentence", "phrase")
READ_BY = {
    *("startswith", "endswith", "find", "index", "count", "partition", "rpartition", "split"),
    *("removeprefix", "removesuffix", "replace", "search", "match", "fullmatch", "findall"),
}


def is_said(node: ast.AST) -> bool:
    """Whether this is a verdict's sentence, or a reason's phrase."""
    node = node.func if isinstance(node, ast.Call) else node
    return isinstance(node, ast.Attribute) and node.attr in MADE_OF_FIELDS


def readings(tree: ast.AST) -> Iterator[str]:
    """Yield the code that looks for something in what is said."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=name), args=args):
                read = name in READ_BY and any(map(is_said, [value, *args]))
            case ast.Compare(
                left=left, ops=[ast.In() | ast.NotIn() | ast.Eq()], comparators=others
            ):
                read = any(map(is_said, [left, *others]))
            case ast.Constant(value=str(text)):
                read = "$.sentence" in text
            case _:
                continue
        if read:
            yield ast.unparse(node)


def test_nothing_reads_a_sentence() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {one}"
        for path in PACKAGE.rglob("*.py")
        for one in readings(ast.parse(path.read_text("utf-8")))
    }
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "if verdict.sentence.startswith('it was never sent'): ...",
        "was_begun = 'started on' in one.verdict.sentence",
        "step = verdict.sentence.rpartition('; ')[2]",
        "named = PATTERN.search(verdict.sentence)",
        "if why.phrase() == 'it was never sent': ...",
        "QUERY = \"SELECT 1 FROM settled WHERE instr(verdict ->> '$.sentence', 'started on')\"",
    ],
)
def test_who_reads_a_sentence_is_found(code: str) -> None:
    assert list(readings(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["text = f'{verdict.sentence[:300]} ...'", "say(reason.sentence(status))"]
)
def test_who_shows_a_sentence_is_not_found(code: str) -> None:
    assert list(readings(ast.parse(code))) == []


def test_each_rule_stands_where_it_is_said_to() -> None:
    """A reason names the rule that it is a finding by, and the module has its letter."""
    found = {one.rule for one in Reason.by_code.values()}
    assert found == RULES.keys()
    for letter, where in RULES.items():
        text = (PACKAGE / where.rpartition(", ")[2]).read_text("utf-8")
        letters = set(re.findall(r"\b[A-L](?=\d?\b)", text))
        assert letter in letters, where
