"""Find tests by their names, without collecting them: whether they are there, and their ring."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.rings import ring_of

TESTS: Final = Path(__file__).parent


class Node(NamedTuple):
    """A test function: its file below the tests, and its name; a method's after its class."""

    file: str
    function: str

    @classmethod
    def read(cls, text: str) -> Node:
        """Read a node id below the tests, like ``unit/test_x.py::test_y``."""
        file, _, function = text.partition("::")
        return cls(file, function)

    @property
    def text(self) -> str:
        """Return the source of its file, "" where there is none."""
        path = TESTS / self.file
        return path.read_text("utf-8") if path.is_file() else ""

    @property
    def is_there(self) -> bool:
        """Return whether there is such a test."""
        return self.function in functions(self.file)

    @property
    def ring(self) -> int:
        """Return its ring; of one whose examples are of several the lowest."""
        return ring_of(f"tests/{self.file}", functions(self.file).get(self.function))


def missing(nodes: Iterable[str]) -> list[str]:
    """Return the node ids of which there is no test."""
    return [node for node in sorted(nodes) if not Node.read(node).is_there]


def outside_ring_1(nodes: Iterable[str]) -> list[str]:
    """Return the node ids of tests that are not in ring 1."""
    return [one for one in sorted(nodes) if Node.read(one).is_there and Node.read(one).ring != 1]


@lru_cache
def functions(file: str) -> Mapping[str, int | None]:
    """Return the ring that each test function of a file is marked with, None where it has none."""
    path = TESTS / file
    return dict(marked(path.read_text("utf-8"))) if path.is_file() else {}


def marked(source: str) -> Iterator[tuple[str, int | None]]:
    """Yield the test functions of a module, each with the ring of its innermost mark.

    Where an example of a test is marked with ring 1, the test is.
    """
    tree = ast.parse(source)
    known: dict[str, int] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                rings = _rings(value, known)
                known.update((name, one) for one in rings if one == 1 or not _has_examples(value))
    yield from _functions(tree, "", known.get("pytestmark"), known)


def _functions(
    parent: ast.Module | ast.ClassDef, before: str, outer: int | None, known: Mapping[str, int]
) -> Iterator[tuple[str, int | None]]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        marks = {ring: one for one in node.decorator_list for ring in _rings(one, known)}
        own = [ring for ring, one in marks.items() if ring == 1 or not _has_examples(one)]
        ring = min(own, default=outer)
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{before}{node.name}::", ring, known)
        elif node.name.startswith("test"):
            yield f"{before}{node.name}", ring


def _rings(node: ast.expr, known: Mapping[str, int]) -> list[int]:
    """Return the rings of all marks within an expression, and of names that stand for one."""
    found = [
        known[one.id] for one in ast.walk(node) if isinstance(one, ast.Name) and one.id in known
    ]
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.ring":
            found += [int(ast.literal_eval(given)) for given in one.args]
    return found


def _has_examples(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith("pytest.mark.parametrize")
