"""Hold the running in-memory stack's app, as ``pytest_manifest.testing.current:app``.

An address names its app as text, like a command line does; an app that a test has made has none.
"""

from __future__ import annotations

from typing import Final

from celery import Celery

NAME: Final = f"{__name__}:app"
running: list[Celery] = []


def __getattr__(name: str) -> Celery:
    if name == "app" and running:
        return running[-1]
    raise AttributeError(f"no in-memory stack runs, so {__name__} has no attribute {name!r}")
