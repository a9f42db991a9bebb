"""No module of the package keeps state of its own: it belongs to a session, or ends with one.

Found in the source's tree: a ``global`` statement; what functions change of a name of a module, or
of one that it imports; a cache of something that is no plain value. What a
:class:`~pytest_manifest.process_state.ProcessState` holds is made anew for each session and ends
with it, so that is where else such state may be.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.house.conftest import ROOT

PACKAGE: Final = ROOT / "pytest_manifest"
EXCEPTIONS: Final = {
    "process_state.py: _places": "where the states of all modules are: each adds itself once",
    "broker/bounded.py: _here": "of one thread, and what it runs ends before its caller goes on",
    "broker/client.py: _complete": "weak: an app's loader takes its mark with it",
    "schema/wire.py: _digests": "weak: a module takes its digest with it",
    "log.py: _fork": "of one thread, while it forks",
    "worker/job.py: _current": "of one context, which is put back",
    "results/django_results.py: connections": "Django's, put back at the end of the block",
    "signing.py: _require_library": "whether a library is installed",
    "worker/backends.py: with_receipts": "a class for each class of result stores",
    "ledger/facts.py: _adapter": "the fields of a class of facts",
    "manifest/writer.py: _fields": "the fields of a class of documents",
}
"""Each name that may change, and why nothing of a session stays there."""
CHANGE: Final = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
        *("remove", "reset", "set", "setdefault", "update"),
    }
)
"""Methods that change what they are called on."""
PLAIN: Final = frozenset({"str", "int", "float", "bytes", "bool", "None", "tuple"})
"""Types whose values a cache may keep: nothing else is kept alive by them."""
PROCESS: Final = frozenset({"sys", "os", "logger"})
"""What is the process's own, and is put back where it is changed: sys.path, os.environ, logs."""
COMPAT: Final = "compat/"
"""Where functions of other packages are replaced; what replaces them is put back, or a worker's."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def changes(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the names of a module that its functions change, and the lines where they do."""
    tree = ast.parse(path.read_text("utf-8"))
    of_module = set(_names(tree.body))
    imported = {name for node in ast.walk(tree) for name in _imported(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from ((name, node.lineno) for name in node.names)
        elif isinstance(node, Function):
            known = (of_module | imported) - set(_local(node))
            yield from ((name, line) for name, line in _changed(node) if name in known)
            if _is_cached(node) and not _is_plain(node):
                yield node.name, node.lineno


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names of a module, but for those of what a session has for itself."""
    for node in body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "ProcessState":
            continue
        if isinstance(node, ast.Assign):
            yield from (one.id for one in node.targets if isinstance(one, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from ((one.asname or one.name).partition(".")[0] for one in node.names)


def _local(function: Function) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _changed(function: Function) -> Iterator[tuple[str, int]]:
    """Yield the names at the root of what a function changes."""
    for node in ast.walk(function):
        changed: ast.expr | None = None
        if not isinstance(node, ast.expr):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changed = node.func.value if node.func.attr in CHANGE else None
        elif isinstance(node, (ast.Subscript, ast.Attribute)):
            changed = None if isinstance(node.ctx, ast.Load) else node.value
        while isinstance(changed, (ast.Attribute, ast.Subscript)):
            changed = changed.value
        if isinstance(changed, ast.Name):
            yield changed.id, node.lineno


def _is_cached(function: Function) -> bool:
    return any(
        "cache" in ast.unparse(one) and "property" not in ast.unparse(one)
        for one in function.decorator_list
    )


def _is_plain(function: Function) -> bool:
    """Whether all that a cached function is given are plain values, and it does give a result."""
    given = [node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    names = {
        node.id
        for one in given
        if one is not None
        for node in ast.walk(one)
        if isinstance(node, ast.Name)
    }
    gives = function.returns is not None and ast.unparse(function.returns) != "None"
    return gives and names <= PLAIN


def found() -> dict[str, list[int]]:
    """Return the lines where each name is changed, by ``module: name``."""
    lines: dict[str, list[int]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        for name, line in changes(path):
            if name not in PROCESS and not (where.startswith(COMPAT) and name[0] != "_"):
                lines.setdefault(f"{where}: {name}", []).append(line)
    return lines


def test_modules_keep_no_state() -> None:
    """It belongs to the session, or to an object that a ProcessState makes anew for each."""
    others = {name: lines for name, lines in found().items() if name not in EXCEPTIONS}
    assert not others


def test_what_is_excepted_is_there() -> None:
    """So that the list gets no longer than it must be."""
    assert not EXCEPTIONS.keys() - found().keys()


@pytest.mark.parametrize(
    "source",
    [
        "_it = 0\ndef set_it():\n    global _it\n    _it = 1\n",
        "_seen = []\ndef see(one):\n    _seen.append(one)\n",
        "_by_name = {}\ndef keep(name, one):\n    _by_name[name] = one\n",
        "_state = Holder()\ndef keep(one):\n    _state.value = one\n",
        "_state = Holder()\ndef keep(one):\n    _state.values.add(one)\n",
        "from celery import Task\ndef patch(run):\n    Task.run = run\n",
        "from functools import cache\n@cache\ndef of(config: Config) -> int:\n    return 1\n",
        "from functools import cache\n@cache\ndef warn_once() -> None:\n    print('once')\n",
    ],
)
def test_state_is_found(source: str, tmp_path: Path) -> None:
    """In each of the ways in which a module may keep some."""
    path = tmp_path / "module.py"
    path.write_text(source)
    assert list(changes(path))


@pytest.mark.parametrize(
    "source",
    [
        "_it = ProcessState(Holder)\ndef keep(one):\n    _it.now.value = one\n    _it.now = one\n",
        "NAMES = {}\ndef of(name):\n    return NAMES[name]\n",
        "_seen = []\ndef see(one):\n    _seen = []\n    _seen.append(one)\n    return _seen\n",
        "from functools import cache\n@cache\ndef of(name: str) -> int:\n    return 1\n",
    ],
)
def test_what_is_no_state_is_not_found(source: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert not list(changes(path))
