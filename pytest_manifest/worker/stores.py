"""Celery's result backends by their URL schemes, each handing in receipts: ``stores:redis``.

Celery looks its backend classes up by "module:name"; the names here are made when asked for.
"""

from __future__ import annotations

from celery.app.backends import BACKEND_ALIASES
from kombu.utils.imports import symbol_by_name

from pytest_manifest.worker.backends import with_receipts


def overrides() -> dict[str, str]:
    """For a loader's ``override_backends``: every scheme that Celery knows and stores by."""
    return {alias: f"{__name__}:{alias}" for alias in BACKEND_ALIASES if alias != "disabled"}


def __getattr__(alias: str) -> type:
    if alias not in BACKEND_ALIASES:
        raise AttributeError(f"Celery has no result backend {alias!r}")
    plain: type = symbol_by_name(BACKEND_ALIASES[alias])
    return with_receipts(plain)
