"""Which workers of a private stack take jobs already, by their own word."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SUFFIX: Final = ".ready"
NEEDED_NEXT: Final = (
    "celery.app.base",
    "celery.app.control",
    "celery.backends.redis",
    "kombu.transport.redis",
)


def ready_file(directory: Path, worker: str) -> Path:
    """Where a worker writes its pid when it takes jobs."""
    return directory / f"{worker}{SUFFIX}"


def not_ready(directory: Path, pids: Mapping[str, int | None]) -> list[str]:
    """The workers, of those with these pids, that have not said so yet.

    One that was started anew has to say it again: the file tells of another pid.
    """
    return [name for name, pid in pids.items() if _said(directory, name) != str(pid)]


def import_meanwhile() -> None:
    """Import Celery, which takes as long as a worker takes to boot, and is needed next."""
    for name in NEEDED_NEXT:
        importlib.import_module(name)


def _said(directory: Path, worker: str) -> str:
    try:
        return ready_file(directory, worker).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
