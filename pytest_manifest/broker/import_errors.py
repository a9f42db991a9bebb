"""Say why a Celery app cannot be imported: what is missing or fails, and in which line."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

from pytest_manifest.log import redact

_MACHINERY: Final = (
    "<frozen",
    f"{os.sep}importlib{os.sep}",
    f"{os.sep}celery{os.sep}app{os.sep}utils.py",
    f"{os.sep}celery{os.sep}utils{os.sep}imports.py",
    f"{os.sep}kombu{os.sep}utils{os.sep}imports.py",
)
"""Of files through which an import goes, and in which nobody has to look for its fault."""


def import_failure(name: str, error: BaseException) -> str:
    """Word the failed import of the app ``name`` (``module:attribute``) in a sentence."""
    module, _, attribute = name.partition(":")
    cause = error
    if getattr(error, "name", None) == name and isinstance(error.__context__, AttributeError):
        # Celery then looks for a module of the whole name; the first error is the true one.
        cause = error.__context__
    place = _place(cause)
    missing = getattr(cause, "name", None) if isinstance(cause, ModuleNotFoundError) else None
    if missing and not place and (module == missing or module.startswith(f"{missing}.")):
        return (
            f"there is no module {missing!r} for the Celery app {name!r}; name the app as "
            f"module:attribute, importable from the folder where pytest is started ({Path.cwd()}) "
            "or from pytest's root folder"
        )
    if missing:
        where = place or "what it imports"
        return (
            f"the Celery app {name!r} cannot be imported, as {where} imports {missing!r}, and "
            "this Python has no such module; install what has it, or correct the import"
        )
    if isinstance(cause, AttributeError) and not place:
        return (
            f"the module {module!r} has no {attribute or 'app'!r}, so {name!r} names no Celery "
            "app; name it as module:attribute, for instance proj.celery:app"
        )
    reason = redact(f"{type(cause).__name__}: {cause}")
    at = f" at {place}" if place else ""
    return (
        f"the Celery app {name!r} cannot be imported: {reason}{at}; mend that, or name another app "
        "as module:attribute"
    )


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the innermost line that is not of the import machinery, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        ours = frame.filename.startswith(str(Path(__file__).parents[1]))
        if not ours and not any(part in frame.filename for part in _MACHINERY):
            return f"{_short(frame.filename)}:{frame.lineno}"
    return ""


def _short(filename: str) -> str:
    """Return a path below the working directory relative to it, any other as it is."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
