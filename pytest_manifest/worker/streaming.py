"""Receipts for Redis: into the run's stream, in the round trip that stores the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from celery import states
from celery.exceptions import BackendStoreError
from celery.utils.time import get_exponential_backoff_interval
from loguru import logger

from pytest_manifest import variables
from pytest_manifest.compat.celery import WithoutLook
from pytest_manifest.schema import wire
from pytest_manifest.worker.handover import Handover
from pytest_manifest.worker.marking import Receipts, underway, underway_for
from pytest_manifest.worker.spool import spool_directory

MOST_BYTES: Final = 512 << 20
"""Of a value in Redis."""
MAX_EXPIRY_SECONDS: Final = 30.0
MAX_STREAMS: Final = 64
DISK_FULL: Final = "MISCONF"
"""What a server's refusal begins with that cannot write to its disk."""
IN_PIPELINE: Final = " of pipeline caused error: "
DISK_LOW: Final = 64 << 20
"""With fewer bytes left on the disk of a private stack, it is asked whether it wrote a start."""


class _Expiries:
    """When this process last put a stream's expiry off: every record need not do it."""

    def __init__(self) -> None:
        self._put_off: dict[str, float] = {}

    def is_due(self, stream: str, ttl: int) -> bool:
        now = time.monotonic()
        last = self._put_off.get(stream)
        # By a quarter of its life at the latest: a stream that this process knows of is alive.
        if last is not None and now - last < min(ttl / 4, MAX_EXPIRY_SECONDS):
            return False
        if len(self._put_off) >= MAX_STREAMS:
            self._put_off.clear()
        self._put_off[stream] = now
        return True


_expiries = _Expiries()


class StreamReceipts(WithoutLook, Receipts):
    """For Redis: the record joins the transaction that stores and publishes the result."""

    def needs_no_look(self, task_id: str) -> bool:
        # Our write only succeeds where there is nothing yet.
        return underway_for(task_id) is not None

    def set(
        self, key: bytes, value: str | bytes, expires: int | None = None, **policy: object
    ) -> object:
        handover = underway()
        if handover is None or not handover.belongs_to(key):
            return super().set(key, value, expires, **policy)
        if len(value) > MOST_BYTES:
            raise BackendStoreError("value too large for Redis backend")
        stored = self.ensure(self._store_with, (handover, key, value, expires), **policy)
        if not stored:
            # A state that is not final, or what another execution of the same task came to.
            earlier = self.ensure(self.earlier_meta, (handover.facts.task_id,), **policy)
            if earlier["status"] != states.SUCCESS:
                super().set(key, value, expires, **policy)
        return None

    def _store_with(
        self, handover: Handover, key: bytes, value: str | bytes, expires: int | None
    ) -> object:
        lifetime = self.expires if expires is None else expires
        expiry = ("EX", str(lifetime)) if lifetime else ()
        with self.client.pipeline() as pipe:
            pipe.execute_command("SET", key, value, *expiry, "NX")
            pipe.execute_command("PUBLISH", key, value)
            _add_record(pipe, handover.facts.stream, handover.facts.ttl, handover.record())
            stored: object = pipe.execute()[0]
        handover.mark_sent()
        return stored

    def ensure(self, fun: Callable[..., Any], args: Sequence[object], **policy: object) -> Any:
        try:  # once without all that it takes to try again
            return fun(*args)
        except self.connection_errors:
            return super().ensure(fun, args, **policy)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Also where the store, or its disk, is full: there may be room again."""
        from redis.exceptions import OutOfMemoryError, ResponseError

        full = isinstance(exc, OutOfMemoryError)
        full = full or (isinstance(exc, ResponseError) and _refusal(exc).startswith(DISK_FULL))
        return full or super().exception_safe_to_retry(exc)

    def deliver(self, handover: Handover) -> None:
        facts = handover.facts
        self._persist(self._send, facts.stream, facts.ttl, handover.record())

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        # Before the body, however long it takes: nobody could tell later whether a job was begun
        # that was not announced.
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
            shortest, longest = (
                self.base_sleep_between_retries_ms,
                self.max_sleep_between_retries_ms,
            )
            time.sleep(get_exponential_backoff_interval(shortest, tries, longest, True) / 1000)

    def _confirm(self, stream: str, ttl: int) -> None:
        """A server answers before it writes, and forgets that where its disk was full and it ends;
        but then it refuses whatever it is asked to change next."""
        self.client.execute_command("EXPIRE", stream, str(ttl))

    def _send(self, stream: str | None, ttl: int, record: bytes) -> None:
        _add_record(self.client, stream, ttl, record)


def _refusal(error: Exception) -> str:
    """What the server said: of a command among others redis-py names that one first."""
    return str(error).rpartition(IN_PIPELINE)[2]


def _disk_is_low() -> bool:
    """Whether the private stack's disk may be full; its workers' notes are there as well."""
    if variables.SPOOL not in os.environ:
        return False
    try:
        disk = os.statvfs(spool_directory())
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < DISK_LOW


def _add_record(client: Any, stream: str | None, ttl: int, record: bytes) -> None:
    if stream:
        client.execute_command("XADD", stream, "*", wire.STREAM_FIELD, record)
        if _expiries.is_due(stream, ttl):
            client.execute_command("EXPIRE", stream, str(ttl))
