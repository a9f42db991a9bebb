"""Write receipts into the run's Redis stream, in the round trip that stores the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import states
from celery.exceptions import BackendStoreError
from celery.utils.time import get_exponential_backoff_interval
from loguru import logger

from pytest_manifest import processes
from pytest_manifest.compat.celery import WithoutLook
from pytest_manifest.process_state import ProcessState
from pytest_manifest.schema import stream_records
from pytest_manifest.worker.backend_base import ReceiptBackend, current_receipt, current_receipt_for
from pytest_manifest.worker.receipt import PendingReceipt
from pytest_manifest.worker.spool import spool_directory

MAX_VALUE_BYTES: Final = 512 << 20
"""Largest size of a value in Redis, in bytes."""
MAX_EXPIRY_SECONDS: Final = 30.0
MAX_STREAMS: Final = 64
DISK_FULL: Final = "MISCONF"
"""How a server's error begins when it cannot write to its disk."""
IN_PIPELINE: Final = " of pipeline caused error: "
DISK_LOW: Final = 64 << 20
"""Bytes free on a private stack's disk, below which each written start is confirmed."""


_extended: Final[ProcessState[dict[str, float]]] = ProcessState(dict, is_of_worker=True)
"""When this process last renewed each stream's expiry: not every record does."""


def _is_due(stream: str, ttl: int) -> bool:
    now = time.monotonic()
    extended_at = _extended.now
    last = extended_at.get(stream)
    # Renew after a quarter of its lifetime at the latest, so that it never expires in use.
    if last is not None and now - last < min(ttl / 4, MAX_EXPIRY_SECONDS):
        return False
    if len(extended_at) >= MAX_STREAMS:
        extended_at.clear()
    extended_at[stream] = now
    return True


class RedisReceipts(WithoutLook, ReceiptBackend):
    """Add the record to the transaction that stores and publishes the result."""

    has_stream = True

    def needs_no_look(self, task_id: str) -> bool:
        # The write succeeds only where nothing is stored yet (NX).
        return current_receipt_for(task_id) is not None

    def set(
        self, key: bytes, value: str | bytes, expires: int | None = None, **policy: object
    ) -> object:
        pending = current_receipt()
        # Before 5.7 Celery's own ``set`` takes no lifetime.
        own = {} if expires is None else {"expires": expires}
        if pending is None or not pending.belongs_to(key):
            return super().set(key, value, **own, **policy)
        if len(value) > MAX_VALUE_BYTES:
            raise BackendStoreError("value too large for Redis backend")
        stored = self.ensure(self._store_with, (pending, key, value, expires), **policy)
        if not stored:
            # Found: a state that is not final, or the result of another execution of the task.
            earlier = self.ensure(self.earlier_meta, (pending.delivery.task_id,), **policy)
            if earlier["status"] != states.SUCCESS:
                super().set(key, value, **own, **policy)
        return None

    def _store_with(
        self, pending: PendingReceipt, key: bytes, value: str | bytes, expires: int | None
    ) -> object:
        from redis.exceptions import ClusterCrossSlotError

        lifetime = self.expires if expires is None else expires
        try:
            stored = self._store_by(pending, key, value, lifetime, is_atomic=True)
        except ClusterCrossSlotError:  # of a cluster, which has the two keys in different slots
            stored = self._store_by(pending, key, value, lifetime, is_atomic=False)
        pending.mark_sent()
        return stored

    def _store_by(
        self,
        pending: PendingReceipt,
        key: bytes,
        value: str | bytes,
        lifetime: int | None,
        *,
        is_atomic: bool,
    ) -> object:
        """Store result and record in one round trip; return whether the result was new."""
        expiry = ("EX", str(lifetime)) if lifetime else ()
        with self.client.pipeline(transaction=is_atomic) as pipe:
            pipe.execute_command("SET", key, value, *expiry, "NX")
            pipe.execute_command("PUBLISH", key, value)
            _add_record(pipe, pending.delivery.stream, pending.delivery.ttl, pending.record())
            stored: object = pipe.execute()[0]
        return stored

    def ensure(self, fun: Callable[..., Any], args: Sequence[object], **policy: object) -> Any:
        try:  # first without the cost of Celery's retrying
            return fun(*args)
        except self.connection_errors:
            return super().ensure(fun, args, **policy)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Retry also where the store or its disk is full: space may be freed."""
        from redis.exceptions import OutOfMemoryError, ResponseError

        # Before 5.5 Celery retries after none, also where always_retry asks it to.
        if isinstance(exc, (*self.connection_errors, OutOfMemoryError)):
            return True
        full = isinstance(exc, ResponseError) and _refusal(exc).startswith(DISK_FULL)
        return full or super().exception_safe_to_retry(exc)

    def deliver(self, pending: PendingReceipt) -> None:
        delivery = pending.delivery
        self._persist(self._send, delivery.stream, delivery.ttl, pending.record())

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        # Before the task's body, however long it takes: an unrecorded start is not known later
        # from a job that never started.
        self._persist(self._send, stream, ttl, record)
        if stream and _disk_is_low():
            self._persist(self._confirm, stream, ttl)

    def _persist(self, function: Callable[..., object], *args: object) -> None:
        """Call the function until it succeeds, as often as Celery would store a result."""
        tries = 0
        while True:
            try:
                self.ensure(function, args)
            except Exception as error:
                may_help = self.always_retry and self.exception_safe_to_retry(error)
                if tries >= self.max_retries or not may_help:
                    raise
                logger.warning("{} failed ({}), and is tried again", function.__name__, error)
            else:
                return
            tries += 1
            limits = self.base_sleep_between_retries_ms, tries, self.max_sleep_between_retries_ms
            time.sleep(get_exponential_backoff_interval(*limits, True) / 1000)

    def _confirm(self, stream: str, ttl: int) -> None:
        """Make one more change, which a server with a full disk refuses.

        It acknowledged the record before writing it, and would lose it with its process.
        """
        self.client.execute_command("EXPIRE", stream, str(ttl))

    def _send(self, stream: str | None, ttl: int, record: bytes) -> None:
        _add_record(self.client, stream, ttl, record)


def _refusal(error: Exception) -> str:
    """Return the server's message without the command's name that redis-py puts before it."""
    return str(error).rpartition(IN_PIPELINE)[2]


def _disk_is_low() -> bool:
    """Return whether the private stack's disk may be full; its workers' spool is on it."""
    if processes.SPOOL not in os.environ:
        return False
    try:
        disk = os.statvfs(spool_directory())
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < DISK_LOW


def _add_record(client: Any, stream: str | None, ttl: int, record: bytes) -> None:
    if stream:
        client.execute_command("XADD", stream, "*", stream_records.STREAM_FIELD, record)
        if _is_due(stream, ttl):
            client.execute_command("EXPIRE", stream, str(ttl))
