"""The Celery app of this project: ``celery -A tasks worker``, ``--manifest-app=tasks:app``.

Importing it stays light: task modules are loaded by workers (``include``), and what is heavy in
them (SQLAlchemy) by the first task that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from celery import Celery

from pytest_manifest.worker import instrument
from tasks.config import configuration, task_modules
from tasks.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

settings = Settings()
app = Celery("tasks", include=task_modules(settings))
app.conf.update(configuration(settings))
instrument(app)


def task(function: Callable[P, R]) -> Callable[P, R]:
    """Register a function as a task under ``MODULE.FUNCTION``; called directly it stays itself."""
    return cast("Callable[P, R]", app.task(function))  # Celery's decorator has no types
