"""Turn Celery's result backends into ones that send receipts.

Celery looks backend classes up as "module:name": ``backends:redis`` is made here when asked for.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.app.backends import BACKEND_ALIASES
from kombu.utils.imports import symbol_by_name

from pytest_manifest.compat.celery import turn_store_into
from pytest_manifest.worker.backend_base import ReceiptBackend
from pytest_manifest.worker.backend_generic import GenericReceipts
from pytest_manifest.worker.backend_redis import RedisReceipts


@functools.cache  # a name `cache` here would hide Celery's scheme of that name, see __getattr__
def with_receipts(stock: type) -> type:
    """Return a subclass that sends receipts; classes that do, or store nothing, are unchanged."""
    from celery.backends.base import DisabledBackend

    if issubclass(stock, (ReceiptBackend, DisabledBackend)):
        return stock
    mixin = RedisReceipts if _is_redis(stock) else GenericReceipts
    return type(f"{stock.__name__}WithReceipts", (mixin, stock), {"original_class": stock})


def ensure_receipts(backend: object) -> object:
    """Make an existing backend send receipts; return the same object."""
    if not isinstance(backend, ReceiptBackend):
        stock: Any = type(backend)
        wanted = with_receipts(stock)
        if wanted is not stock:
            turn_store_into(backend, wanted)
    return backend


def _is_redis(stock: type) -> bool:
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return False
    return issubclass(stock, RedisBackend)


def overrides() -> dict[str, str]:
    """Return ``override_backends`` for a loader: every scheme by which Celery stores results."""
    return {alias: f"{__name__}:{alias}" for alias in BACKEND_ALIASES if alias != "disabled"}


def __getattr__(alias: str) -> type:
    if alias not in BACKEND_ALIASES:
        raise AttributeError(f"Celery has no result backend {alias!r}")
    stock: type = symbol_by_name(BACKEND_ALIASES[alias])
    return with_receipts(stock)
