"""Turning Celery's result backends into ones that hand in receipts."""

from __future__ import annotations

from functools import cache
from typing import Any

from pytest_manifest.compat.celery import turn_store_into
from pytest_manifest.worker.marking import Receipts
from pytest_manifest.worker.riding import ResultReceipts
from pytest_manifest.worker.streaming import StreamReceipts


@cache
def with_receipts(plain: type) -> type:
    """The backend class, handing in receipts; classes that do, or store nothing, are unchanged."""
    from celery.backends.base import DisabledBackend

    if issubclass(plain, (Receipts, DisabledBackend)):
        return plain
    mixin = StreamReceipts if _is_redis(plain) else ResultReceipts
    return type(f"{plain.__name__}{mixin.__name__}", (mixin, plain), {"plain_class": plain})


def ensure_receipts(backend: object) -> object:
    """Let a backend that was made already hand in receipts; returns the same object."""
    if not isinstance(backend, Receipts):
        plain: Any = type(backend)
        wanted = with_receipts(plain)
        if wanted is not plain:
            turn_store_into(backend, wanted)
    return backend


def _is_redis(plain: type) -> bool:
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return False
    return issubclass(plain, RedisBackend)
