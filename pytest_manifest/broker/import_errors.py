"""Say why a Celery app cannot be imported: what is missing or fails, and in which line."""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from pathlib import Path
from typing import Final

import celery
import kombu

from pytest_manifest.redaction import redact
from pytest_manifest.text import short_path

_MACHINERY: Final = (
    "<frozen",
    *(str(Path(str(package.__file__)).parent) for package in (celery, kombu, importlib)),
    str(Path(__file__).parents[1]),
)
"""How the names of files begin through which an import goes, and in which no fault of it is."""
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")
"""Celery reads its settings by way of it; other packages may be installed below."""


def import_failure(name: str, error: BaseException) -> str:
    """Word the failed import of the app ``name`` (``module:attribute``) in a sentence."""
    module, _, attribute = name.partition(":")
    if module.endswith(".py"):
        named = module.removesuffix(".py").replace("/", ".")
        return f"{name!r} names a file; name its module: {named}:{attribute or 'app'}"
    cause = error
    if getattr(error, "name", None) == name and isinstance(error.__context__, AttributeError):
        # Celery then looks for a module of the whole name; the first error is the true one.
        cause = error.__context__
    place, missing = _place(cause), _missing(cause)
    if missing and not place and (module == missing or module.startswith(f"{missing}.")):
        return (
            f"there is no module {missing!r} for the Celery app {name!r}; name the app as "
            f"module:attribute, importable from the folder where pytest is started ({Path.cwd()}) "
            "or from pytest's root folder"
        )
    if isinstance(cause, AttributeError) and not place:
        return (
            f"the module {module!r} has no {attribute or 'app'!r}, so {name!r} names no Celery "
            "app; name it as module:attribute, for instance proj.celery:app"
        )
    return f"the Celery app {name!r} cannot be imported: {_reason(cause)}"


def tasks_failure(name: str, error: BaseException) -> str:
    """Word the failed import of the modules of tasks that the app ``name`` lists."""
    return (
        f"a module of tasks that {name} names (by include, imports or autodiscovery) cannot be "
        f"imported, so its workers do not start either: {_reason(error)}"
    )


def _reason(error: BaseException) -> str:
    """Say what is missing or was raised, where, and what to do."""
    place, missing = _place(error), _missing(error)
    if missing:
        who = f", which {place} imports" if place else ""
        return (
            f"there is no module {missing!r}{who}; install what has it into this Python, or "
            "correct its name"
        )
    at = f" at {place}" if place else ""
    if isinstance(error, SystemExit):
        said = "" if error.code is None else f" ({redact(str(error.code))})"
        return f"it ends the program while it is imported{at}{said}; move that out of the import"
    return f"{redact(f'{type(error).__name__}: {error}')}{at}; mend that"


def _missing(error: BaseException) -> str | None:
    return error.name if isinstance(error, ModuleNotFoundError) else None


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the innermost line that is not of the import machinery, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{short_path(Path(error.filename), Path.cwd())}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _is_machinery(frame.filename):
            return f"{short_path(Path(frame.filename), Path.cwd())}:{frame.lineno}"
    return ""


def _is_machinery(filename: str) -> bool:
    is_python = filename.startswith(_STANDARD_LIBRARY) and "-packages" not in filename
    return is_python or filename.startswith(_MACHINERY)
