"""Docstrings say what a function does, and name what a class or a module is."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

import pytest

from benchmarks.house import (
    CLAUSES,
    Function,
    begins_with_no_verb,
    first_word,
    functions_of,
    named_things,
)
from tests.house.conftest import ROOT

FOLDERS = "pytest_manifest", "tasks", "workflows", "scripts"

Documented = Function | ast.ClassDef | ast.Module


def found(choose: Callable[[ast.AST], Iterable[Documented]]) -> Iterator[str]:
    """Place and first line of each docstring that is chosen of a module."""
    for path in sorted(one for folder in FOLDERS for one in (ROOT / folder).rglob("*.py")):
        for one in choose(ast.parse(path.read_text("utf-8"))):
            line = (ast.get_docstring(one) or "").partition("\n")[0]
            yield f"{path.relative_to(ROOT)}:{getattr(one, 'lineno', 1)}: {line}"


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    """Ruff's D401 passes over properties, and over words that it does not know."""

    def verbless(tree: ast.AST) -> Iterator[Function]:
        return filter(begins_with_no_verb, functions_of(tree))

    assert list(found(verbless)) == []


def test_docstrings_of_classes_and_modules_are_no_clauses() -> None:
    """They name what it is, "The error of a task", and not "What a task raised"."""

    def clauses(tree: ast.AST) -> Iterator[ast.ClassDef | ast.Module]:
        return (one for one in named_things(tree) if first_word(one) in CLAUSES)

    assert list(found(clauses)) == []


@pytest.mark.parametrize(
    ("first", "verbless"),
    [
        *(("Return it.", False), ("Return, once, it.", False), ("What it is.", True)),
        *(("The one of them.", True), ("`Once`: x", True), ("``x``: what", True), ("S1: x", True)),
    ],
)
def test_the_first_word_is_told_from_its_marks(first: str, verbless: bool) -> None:
    """As it is found in a function that is made up."""
    (function,) = functions_of(ast.parse(f'def f():\n    """{first}"""'))
    assert begins_with_no_verb(function) is verbless
