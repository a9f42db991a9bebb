"""Tell which tasks a run may send, by the patterns that its user gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from pytest_manifest.text import listed, middle, printable

CELERYS: Final = "celery."
UNSEEN: Final = frozenset(
    f"{CELERYS}{name}"
    for name in (
        "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap",
    )
)  # fmt: skip
"""Celery's own tasks, which every worker has, that run others, named in their arguments, or empty
the result store."""
_SHOWN: Final = 3
_NAME_LIMIT: Final = 60


def may_send(task: str, allowed: Sequence[str] | None) -> bool:
    """Tell whether a task may be sent; ``allowed``: patterns like ``shop.*``; None: any.

    One of Celery's own that runs others must be named as such: ``*`` does not mean it.
    """
    if task in UNSEEN:
        allowed = [one for one in allowed or () if one.startswith(CELERYS)]
    return allowed is None or any(fnmatchcase(task, one) for one in allowed)


def task_refusals(tasks: Iterable[str], allowed: Sequence[str] | None) -> list[str]:
    """Return a sentence about those of the tasks that may not be sent; none where all may be."""
    refused = [name for name in tasks if not may_send(name, allowed)]
    if not refused:
        return []
    names = listed([repr(middle(printable(name), _NAME_LIMIT)) for name in refused], _SHOWN)
    if UNSEEN.issuperset(refused):
        why = "Celery's tasks that run others, or clean up, are sent only where they are named"
    else:
        why = f"what may be sent is {' '.join(map(printable, allowed or ()))}"
    return [f"{names} may not be sent: {why}; name each task that is meant in --manifest-allow."]
