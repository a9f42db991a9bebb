"""Find the Celery apps of a project by reading its files: nothing of it is imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final
from warnings import catch_warnings, simplefilter

MOST_FILES: Final = 5_000
"""Python files that are looked at; a project's app is not behind so many."""
MOST_BYTES: Final = 1_000_000
_OTHERS: Final = frozenset({"node_modules", "site-packages", "build", "dist", "tests", "test"})
"""Folders whose apps are not the project's own."""
SOURCES: Final = "src"
"""The folder that packages may be in without being part of their names."""


@dataclass(frozen=True, slots=True)
class FoundApp:
    """A Celery app in a file; ``name``: like ``proj.celery:app``."""

    name: str
    path: Path
    below_sources: bool


def find_apps(folder: Path) -> list[FoundApp]:
    """Return the Celery apps that modules of this folder define, the likeliest first.

    An app that a function makes is not found; see ``unnamed_app``.
    """
    found = [
        app
        for path in islice(_python_files(folder), MOST_FILES)
        if (module := _module(folder, path)) is not None
        for app in _apps(path, *module)
    ]
    return sorted(found, key=_likelihood)


def unnamed_app(folder: Path) -> Path | None:
    """Return the first file that makes a Celery app somewhere, be it in a function; else None."""
    for path in islice(_python_files(folder), MOST_FILES):
        calls = (node for node in ast.walk(_parsed(path)) if isinstance(node, ast.Call))
        if any(_is_celery(call.func) for call in calls):
            return path
    return None


def _likelihood(app: FoundApp) -> tuple[bool, bool, int, str]:
    """Return a key that sorts packages' apps first, then those nearer to the folder."""
    is_package = (app.path.parent / "__init__.py").exists()
    return app.path.stem != "celery", not is_package, app.name.count("."), app.name


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__"))
            and name not in _OTHERS
            and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def _module(folder: Path, path: Path) -> tuple[str, bool] | None:
    """Return a file's module name and whether it is in ``src``; None: not importable from here."""
    top = path.parent
    while top != folder and (top / "__init__.py").exists():
        top = top.parent
    below_sources = path.is_relative_to(folder / SOURCES) and top != folder
    root = folder / SOURCES if below_sources else folder
    if top not in (root, path.parent):  # a package within another project of this one
        return None
    parts = path.relative_to(root).with_suffix("").parts
    names = parts[:-1] if parts[-1] == "__init__" else parts
    if not names or not all(name.isidentifier() for name in names):
        return None
    return ".".join(names), below_sources


def _apps(path: Path, module: str, below_sources: bool) -> Iterator[FoundApp]:
    for name in _assigned_apps(path):
        yield FoundApp(f"{module}:{name}", path, below_sources)


def _assigned_apps(path: Path) -> Iterator[str]:
    """Yield the names of a module that a call of ``Celery`` is assigned to."""
    for statement in _parsed(path).body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if isinstance(value, ast.Call) and _is_celery(value.func):
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree: an empty one where it calls no ``Celery``, or is no Python.

    Its bytes are parsed, as Python itself does: a file may begin with a BOM or name its encoding.
    """
    with suppress(OSError, ValueError, SyntaxError, RecursionError, MemoryError), catch_warnings():
        simplefilter("ignore")  # not ours to complain of, nor are what is suppressed above
        if path.stat().st_size <= MOST_BYTES and b"Celery(" in (source := path.read_bytes()):
            return ast.parse(source)
    return ast.Module([], [])


def _is_celery(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr == "Celery"
    return isinstance(function, ast.Name) and function.id == "Celery"
