"""Keep results and receipt streams in this process's memory, for the in-memory stack.

The streams have the redis-py methods that the reading side calls, so that it reads both alike.
A process has one store, addressed by the scheme ``memory://`` alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import count
from threading import Condition
from typing import Final

from celery.backends.base import KeyValueStoreBackend

from pytest_manifest.process_state import ProcessState
from pytest_manifest.schema import stream_records
from pytest_manifest.worker.backend_base import ReceiptBackend, current_receipt

SCHEME: Final = "memory"

Row = tuple[bytes, dict[bytes, bytes]]
"""A record of a stream: its id, and its fields."""


class MemoryStore:
    """Values by key, and streams by name; every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._values: dict[bytes, bytes] = {}
        self._streams: dict[str, list[Row]] = {}
        self._numbers = count(1)

    def clear(self) -> None:
        """Forget everything."""
        with self._changed:
            self._values.clear()
            self._streams.clear()
            self._changed.notify_all()

    # Values

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        with self._changed:
            self._values[key] = value

    def incr(self, key: bytes) -> int:
        with self._changed:
            count = int(self._values.get(key, b"0")) + 1
            self._values[key] = b"%d" % count
            return count

    def delete(self, key: bytes) -> None:
        with self._changed:
            self._values.pop(key, None)

    # Streams, as redis-py has them

    def xadd(self, name: str, fields: Mapping[str, bytes | str], **_: object) -> bytes:
        """Append a record and return its id. Limits on a stream's length are ignored."""
        with self._changed:
            rows = self._streams.setdefault(name, [])
            identity = b"%d-0" % next(self._numbers)
            rows.append((identity, {k.encode(): _bytes(v) for k, v in fields.items()}))
            self._changed.notify_all()
            return identity

    def xread(
        self, streams: Mapping[str, str], count: int | None = None, block: int | None = None
    ) -> list[list[object]]:
        """Return the records after the given ids; wait up to ``block`` ms for the first one."""
        with self._changed:
            if block is not None:
                self._changed.wait_for(lambda: self._behind(streams), block / 1000)
            found = self._behind(streams)
        return [[name.encode(), rows[:count]] for name, rows in found.items()]

    def xrange(
        self,
        name: str,
        min: str = "-",  # noqa: A002
        max: str = "+",  # noqa: A002
        count: int | None = None,
    ) -> list[Row]:
        """Return the records from the id ``min`` to the id ``max``, both included."""
        first, last = _parse_id(min), None if max == "+" else _parse_id(max)
        with self._changed:
            rows = list(self._streams.get(name, ()))
        kept = [row for row in rows if first <= _parse_id(row[0])]
        return [row for row in kept if last is None or _parse_id(row[0]) <= last][:count]

    def xdel(self, name: str, *identities: str) -> int:
        """Delete records and return how many there were."""
        gone = {identity.encode() for identity in identities}
        with self._changed:
            before = self._streams.get(name, [])
            self._streams[name] = [row for row in before if row[0] not in gone]
            return len(before) - len(self._streams[name])

    def expire(self, name: str, seconds: int) -> bool:  # noqa: ARG002 - nothing outlives the stack
        return name in self._streams

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _behind(self, streams: Mapping[str, str]) -> dict[str, list[Row]]:
        rows = {name: self._after(name, _parse_id(at)) for name, at in streams.items()}
        return {name: found for name, found in rows.items() if found}

    def _after(self, name: str, after: tuple[int, int]) -> list[Row]:
        rows = self._streams.get(name, [])
        return rows[bisect_right(rows, after, key=lambda row: _parse_id(row[0])) :]


stores: Final = ProcessState(MemoryStore, is_of_worker=True)
"""The one of this process, or of the in-memory stack that runs in it."""


class MemoryBackend(ReceiptBackend, KeyValueStoreBackend):
    """Keep Celery's results in this process's store; a receipt is written before its result."""

    supports_autoexpire = True
    has_stream = True
    implements_incr = True
    original_class: type

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.thread_safe = True
        self._store = store = stores.now  # a job that outlives its stack has no other one's
        self.get, self.incr, self.delete = store.get, store.incr, store.delete

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._store.get(key) for key in keys]

    def set(self, key: bytes, value: str | bytes) -> None:
        pending = current_receipt()
        if pending is not None and pending.belongs_to(key):
            self.deliver(pending)
            pending.mark_sent()
        self._store.set(key, _bytes(value))

    def as_uri(self, *_: object, **__: object) -> str:
        return f"{SCHEME}://"

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:  # noqa: ARG002
        if stream:
            self._store.xadd(stream, {stream_records.STREAM_FIELD: record})


MemoryBackend.original_class = MemoryBackend


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _parse_id(identity: str | bytes) -> tuple[int, int]:
    """Parse an id into the two numbers by which Redis orders ids; the second defaults to 0."""
    text = identity.decode() if isinstance(identity, bytes) else identity
    first, _, second = text.partition("-")
    return int(first or 0), int(second or 0)
