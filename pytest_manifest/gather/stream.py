"""Reading a run's receipts stream: one reader a run, many records a sip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loguru import logger

from pytest_manifest.errors import StackError
from pytest_manifest.log import redact_url
from pytest_manifest.schema.wire import STREAM_FIELD

if TYPE_CHECKING:
    from redis import Redis

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+socket://", "valkey://", "valkeys://")
SIP = 5_000
"""Records taken in one round trip."""


def has_stream(backend_url: str) -> bool:
    """Whether this result store can carry a receipts stream."""
    return backend_url.startswith(REDIS_SCHEMES)


class StreamReader:
    """Reads the records of one run in the order in which the store received them.

    ``position`` is the id of the last record read ("0" for none): keep it with the records, and an
    interrupted reader goes on where it was.
    """

    def __init__(self, backend_url: str, key: str, *, position: str = "0") -> None:
        from redis import Redis

        self._url = backend_url
        self._key = key
        self.position = position
        url = backend_url.replace("redis+socket://", "unix://")
        url = url.replace("valkeys://", "rediss://").replace("valkey://", "redis://")
        self._client: Redis = Redis.from_url(
            url, socket_timeout=30, socket_connect_timeout=5, health_check_interval=30
        )

    def read(self, block_ms: int = 0) -> list[Mapping[str, object]]:
        """New records, waiting up to ``block_ms`` for the first; none where there is nothing new.

        Raises StackError where the store cannot be reached: nothing is lost, read again.
        """
        from redis.exceptions import RedisError

        try:
            answer = self._client.xread(
                {self._key: self.position}, count=SIP, block=block_ms or None
            )
        except (RedisError, OSError) as error:
            raise StackError(
                f"the receipts cannot be read from {redact_url(self._url)}: {error}"
            ) from error
        return self._records(answer)

    def _records(self, answer: object) -> list[Mapping[str, object]]:
        streams = answer.values() if isinstance(answer, dict) else [s[1] for s in _list(answer)]
        records: list[Mapping[str, object]] = []
        for stream in streams:
            for identity, fields in _rows(stream):
                self.position = identity.decode()
                try:
                    record = json.loads(fields[STREAM_FIELD.encode()])
                except (KeyError, ValueError) as error:
                    # Somebody else's, or cut short: the job's plain result still gives a verdict.
                    logger.warning("record {} of {}: {!r}", self.position, self._key, error)
                    continue
                if isinstance(record, dict):
                    records.append(record)
        return records

    def close(self) -> None:
        self._client.close()


def _list(answer: object) -> list[tuple[bytes, object]]:
    return answer if isinstance(answer, list) else []


def _rows(stream: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """redis-py gives the rows of a stream bare, or (in its RESP3 form) one list deeper."""
    if not isinstance(stream, list):
        return []
    if stream and isinstance(stream[0], list):
        return [row for rows in stream for row in rows]
    return stream
