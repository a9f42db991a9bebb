"""What two sides must agree on is spelled in one place, which both import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.schema import wire
from pytest_manifest.urls import REDIS_SCHEMES
from tests.house.conftest import ROOT

PACKAGE = Path(wire.__file__).parents[1]
BOTH_SIDES = ("broker", "results", "run", "worker")


def literals(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_headers_of_messages_are_spelled_once() -> None:
    headers = {value for name, value in vars(wire).items() if name.startswith("HEADER_")}
    assert len(headers) > 8
    own_variable = {"manifest_execution"}  # a context variable's name, seen by nobody
    elsewhere = {
        f"{path.relative_to(PACKAGE)}: {text}"
        for part in BOTH_SIDES
        for path in (PACKAGE / part).rglob("*.py")
        for text in literals(path)
        if text in headers - own_variable
    }
    assert elsewhere == set()


def test_schemes_of_redis_are_in_one_table() -> None:
    rare = {scheme for scheme in REDIS_SCHEMES if scheme not in ("redis", "unix")}
    elsewhere = {
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "urls.py"
        for text in literals(path)
        if text.removesuffix("://") in rare
    }
    assert elsewhere == set()


def is_text_for_people(node: ast.AST) -> bool:
    """Whether this is part of an escaper, a duration format, a plural, or a measure of width."""
    match node:
        case ast.IfExp(test=ast.Call(func=ast.Attribute(attr="isprintable"))):
            return True
        case ast.Constant(value=str(text)):
            return text in ("ies", "unicode-escape") or bool(BIDIRECTIONAL.search(text))
        case ast.Call(func=ast.Name(id="divmod"), args=[_, ast.Constant(value=60)]):
            return True
        case ast.ImportFrom(module="rich.cells") | ast.alias(name="rich.cells"):
            return True
    return False


BIDIRECTIONAL = re.compile("[\u202a-\u202e\u2066-\u2069]|" + r"\\u(202[a-e]|206[6-9])")


def test_text_is_made_fit_for_people_in_one_module() -> None:
    """A second escaper would miss what the first has learnt; formats build upon the one."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if is_text_for_people(node)
    }
    assert found == {"text.py"}


def is_path_of_a_process(node: ast.AST) -> bool:
    """Whether this makes the name of a file of Linux about a process that is not this one."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), ast.FormattedValue(), *_]):
            return text == "/proc/"
    return False


def test_other_processes_are_read_in_one_place() -> None:
    """Which knows that they may end between two looks; a test that did not failed by chance."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if is_path_of_a_process(node)
    }
    assert found == {"tests/processes.py"}
