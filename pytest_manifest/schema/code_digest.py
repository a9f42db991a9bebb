"""Digest the code that a task runs, the same in the worker and on the dispatching side.

Both sides import this module, so it imports neither Celery nor any client.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import threading
import warnings
from functools import partial
from types import ModuleType
from weakref import WeakKeyDictionary

CODE_ATTRIBUTE = "manifest_code"
"""The attribute of a worker's tasks that tells the digest of their code to whoever asks for it."""

_digests: WeakKeyDictionary[ModuleType, str | None] = WeakKeyDictionary()
_NO_SOURCE = "no-source"
_making = threading.Lock()  # warnings.catch_warnings() is not thread-safe either


def code_digest(task: object) -> str | None:
    """Return ``py3.11:`` and the SHA-256, in hex, of the module that defines what ``task`` runs.

    ``task`` is a Celery task, or a plain function; wrappers that name what they wrap (autoretry,
    ``functools.wraps``) are unwrapped. Comments and layout do not count. Digests made by other
    Python versions, which have another syntax tree, cannot be compared. None where there is no
    source. The digest is made once for each module: what a process has loaded does not change with
    the file, so a worker makes it when it starts.
    """
    module = _defining_module(task)
    if module is None:
        return None
    with _making:
        if module not in _digests:
            _digests[module] = _module_digest(module)
        return _digests[module]


def told_digest(task: object) -> str:
    """Return the digest that a worker reports of its task's code, or a mark that it has no source.

    The mark tells such a receipt from one whose digest was removed.
    """
    return code_digest(task) or f"{_python()}:{_NO_SOURCE}"


def has_source(digest: str | None) -> bool:
    """Return whether a digest that was told is known, and one of a source."""
    return digest is not None and not digest.endswith(f":{_NO_SOURCE}")


def comparable(one: str | None, other: str | None) -> bool:
    """Return whether both digests are known and of the same Python version."""
    if one is None or other is None or _NO_SOURCE in (one[-9:], other[-9:]):
        return False
    return one.partition(":")[0] == other.partition(":")[0]


def _python() -> str:
    return f"py{sys.version_info.major}.{sys.version_info.minor}"


def _defining_module(task: object) -> ModuleType | None:
    function: object = getattr(task, "run", task)
    try:
        while callable(function):
            inner = function.func if isinstance(function, partial) else inspect.unwrap(function)
            if inner is function:
                break
            function = inner
    except ValueError:  # wrappers that wrap one another
        return None
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return module if isinstance(module, ModuleType) else None


def _module_digest(module: ModuleType) -> str | None:
    try:
        source = inspect.getsource(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source's own warnings, shown at its import
            try:
                tree = ast.dump(ast.parse(source))
            except SystemError:
                # Two threads of CPython 3.11 that parse at once disturb one another.
                tree = ast.dump(ast.parse(source))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # built in, without its source, or with a line that Python's own parser refuses
    return f"{_python()}:{hashlib.sha256(tree.encode('utf-8', 'surrogatepass')).hexdigest()}"
