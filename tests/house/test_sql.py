"""SQL is written so that every supported Python runs it without a warning."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.house.conftest import ROOT

NUMBERED = re.compile(r"\?\d")
STATEMENT = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE)\b")


def statements(path: Path) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and STATEMENT.search(node.value)
    ]


def test_no_statement_numbers_its_parameters() -> None:
    """Python 3.12.0 to 3.12.3 take ``?1`` for a named parameter and warn, if a sequence is given.

    Where warnings are errors, as in many projects, such a statement would stop a run.
    """
    found = {
        str(path.relative_to(ROOT)): statements(path)
        for folder in ("pytest_manifest", "tasks", "workflows")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sum(map(len, found.values())) > 50
    numbered = {
        path: text for path, texts in found.items() for text in texts if NUMBERED.search(text)
    }
    assert numbered == {}
