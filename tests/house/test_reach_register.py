"""The register of reaches: what each function of ``compat/`` relies on, and the test that tells."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

import pytest

from tests.house.conftest import ROOT
from tests.page_tables import as_csv

COMPAT = ROOT / "pytest_manifest" / "compat"
REGISTER = ROOT / "docs" / "evidence" / "tables" / "reaches.csv"


class Entry(NamedTuple):
    """One function, or class, of ``compat/``."""

    module: str
    name: str
    relies: str
    test: str

    @property
    def row(self) -> tuple[str, str, str]:
        return f"`{self.module}.{self.name}`", self.relies, self.test.partition("::")[0]


def entries() -> list[Entry]:
    found = []
    for path in sorted(COMPAT.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            text = " ".join((ast.get_docstring(node) or "").split())
            said = re.search(r"Relies on (.*?)\. Test: ``([^`]+)``", text)
            if said is not None:
                relies = said[1].replace("``", "`")
                found.append(Entry(path.stem, node.name, relies, said[2]))
    return found


def test_each_function_says_what_it_relies_on() -> None:
    """But for those that undo what another does, or do what Celery does."""
    public = {
        f"{path.stem}.{node.name}"
        for path in COMPAT.glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    said = {f"{entry.module}.{entry.name}" for entry in entries()}
    assert public - said == {"pytest.hide_labels"}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.module}.{entry.name}")
def test_its_test_is_there(entry: Entry) -> None:
    file, _, name = entry.test.partition("::")
    (path,) = (ROOT / "tests").rglob(file)
    assert not name or f"def {name}(" in path.read_text("utf-8")


def register() -> str:
    return as_csv([("function", "relies on", "test"), *(entry.row for entry in entries())])


def test_the_register_is_written_down() -> None:
    """In this order; run this module to write it."""
    assert REGISTER.read_text("utf-8") == register()


if __name__ == "__main__":
    REGISTER.write_text(register(), "utf-8")
