"""Read a run's receipts stream: one reader a run, many records a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, urlencode

from pydantic_core import from_json

from pytest_manifest.broker.client import load_app, result_backend
from pytest_manifest.broker.transports import redis_limits
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact_about, redact_url
from pytest_manifest.results.records import ReadErrors
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.urls import SENTINEL, is_in_process, is_redis, scheme_of, with_redis_scheme

if TYPE_CHECKING:
    from redis import Redis

    from pytest_manifest.urls import StackAddress

BATCH_SIZE = 5_000
"""Records taken in one round trip."""
TRIM_BATCH = 1_000
"""Records taken out of the store by one command; of old ones so many are looked for at once."""
BEGIN: Final = "begin"
SESSION: Final = "session"
CERT_REQS: Final = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}
"""Celery's words in a URL, and redis-py's."""
TRANSLATED: Final = ("ssl_cert_reqs", "virtual_host")


def has_stream(backend_url: str) -> bool:
    """Tell whether this result store can carry a receipts stream."""
    return is_redis(backend_url) or is_in_process(backend_url)


def open_client_at(address: StackAddress) -> Redis:
    """Open a client for the streams of this address's result store.

    Where its app is known, that app's settings say the rest, as they do for its workers: TLS, a
    user, time limits. Behind a Sentinel it is Celery's own: they have the master's name.
    """
    url = address.backend_url
    is_sentinel = scheme_of(url) == SENTINEL
    if not is_sentinel and (address.app is None or address.is_managed or not is_redis(url)):
        return open_client(url)
    backend: Any = result_backend(load_app(address), address)  # Celery's, which has no types
    if is_sentinel:
        return cast("Redis", backend.client)
    return _client_with(backend.connparams)


def open_client(backend_url: str) -> Redis:
    """Open a client for the store's streams; the in-memory store has the same methods."""
    if is_in_process(backend_url):
        from pytest_manifest.worker.backend_memory import stores

        return cast("Redis", stores.now)
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client: Redis = Redis.from_url(
            redis_url(backend_url),
            **redis_limits({}),
            health_check_interval=30,
            # The reader has a wait budget of its own; redis-py's retries would exceed it unseen.
            retry=Retry(NoBackoff(), 0),
        )
        # Not opened; but what a URL asks for that no connection has is told now.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        raise StackError(
            f"the result store {redact_url(backend_url)} cannot be used: "
            f"{redact_about(str(error), backend_url)}"
        ) from error
    return client


def _client_with(parameters: Mapping[str, Any]) -> Redis:
    """Open a client with the parameters that Celery's result store gives its own connections."""
    from redis import ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    limits = redis_limits({name for name, value in parameters.items() if value is not None})
    if "path" in parameters:  # a socket's connection has no such limit
        del limits["socket_connect_timeout"]
    # No retries: see open_client.
    ours = {"health_check_interval": 30, "retry": Retry(NoBackoff(), 0), "retry_on_timeout": False}
    client = Redis(connection_pool=ConnectionPool(**{**parameters, **limits, **ours}))
    client.auto_close_connection_pool = True  # as from_url has it: the pool is this client's alone
    return client


def close_client(client: Redis) -> None:
    """End a client's connections; the in-memory store has none."""
    client.close()
    pool = getattr(client, "connection_pool", None)
    if pool is not None:  # before redis-py 5.0 it is left, also where it is this client's alone
        pool.disconnect()


def redis_url(backend_url: str) -> str:
    """Translate a result store's URL for redis-py, which has other names for some options."""
    url = with_redis_scheme(backend_url)
    place, mark, query = url.partition("?")
    if not any(name in query for name in TRANSLATED):
        return url
    options = [_translated(*option) for option in parse_qsl(query, keep_blank_values=True)]
    return f"{place}{mark}{urlencode(options)}"


def _translated(name: str, value: str) -> tuple[str, str]:
    if name == "ssl_cert_reqs":
        return name, CERT_REQS.get(value, value)
    if name == "virtual_host":  # of a socket: a number, for Celery also one after a stroke
        return "db", value.strip("/") or "0"
    return name, value


@dataclass(eq=False)
class StreamReader:
    """Read the records of one run in the order in which the store received them.

    ``position`` is the id of the last record read ("0" for none): keep it with the records, and an
    interrupted reader goes on where it was. Records that are kept elsewhere are taken out of the
    store by :meth:`trim`, unless this reader ``keeps_records``. ``opener`` makes a client of the
    store where its URL alone does not say how. ``is_overtaken``: another session than this one has
    announced itself after it, so it goes on with the run by another ledger.
    """

    _url: str
    _key: str
    _: KW_ONLY
    position: str = "0"
    keeps_records: bool = False
    flaws: ReadErrors = field(default_factory=ReadErrors)
    opener: Callable[[], Redis] | None = None
    session: str = ""

    def __post_init__(self) -> None:
        self._is_announced = self.is_overtaken = False
        self._mark: str | None = None
        self._is_truncated: bool | None = None
        """Whether another reader removed what this one never had; None: not checked yet."""
        self._is_read_anew = False
        self._read_ids: list[str] = []
        """Records that were read and are in the store yet."""
        self._before, self._trimmed_to = self.position, "-"
        """What lies before this position was read by an earlier reader, and may be there yet."""
        self._client = self._open()

    def _open(self) -> Redis:
        return open_client(self._url) if self.opener is None else self.opener()

    def renewed(self, position: str) -> StreamReader:
        """Make another reader of the stream from ``position`` on, with its own connection."""
        other = copy(self)
        other.position = other._before = position
        other._trimmed_to, other._read_ids, other._client = "-", [], self._open()
        return other

    def read(self, block_ms: int = 0) -> list[Mapping[str, object]]:
        """Read new records, waiting up to ``block_ms`` for the first; none where none came.

        Raises StackError where the store cannot be reached: nothing is lost, read again.
        """
        with self._stack_errors("read from"):
            self._look_for_gaps()
            answer = self._client.xread(
                {self._key: self.position}, count=BATCH_SIZE, block=block_ms or None
            )
        return self._records(answer)

    def begin(self, ttl: int) -> None:
        """Mark the stream as begun, for ``ttl`` s, so that it can be told when it was emptied.

        The mark names a server that has only what it held when it last saved it, once it is
        started anew. Raises StackError where the store cannot be reached.
        """
        with self._stack_errors("written to"):
            server, keeps_all = self._server()
            named = {} if keeps_all else {"server": server}
            named |= {"kind": BEGIN, "stream": self._key, "session": self.session}
            mark = self._client.xadd(self._key, {STREAM_FIELD: json.dumps(named)})
            self._client.expire(self._key, ttl)
        self._mark = cast("bytes", mark).decode()

    def announce(self) -> None:
        """Tell whoever reads the stream, if it is there, that this session goes on with the run.

        Raises StackError where the store cannot be reached, or is too old for that.
        """
        if not is_in_process(self._url):  # there are no others
            record = json.dumps({"kind": SESSION, "session": self.session})
            with self._stack_errors("written to"):
                self._client.xadd(self._key, {STREAM_FIELD: record}, nomkstream=True)

    def trim(self) -> None:
        """Take out what has been read: only to be called once all of that is kept for good.

        The mark of the beginning stays. What cannot be taken out now is the next time. Raises
        StackError where the store cannot be reached.
        """
        if self.keeps_records:
            return
        with self._stack_errors("trimmed in"):
            if not self._read_ids and self._trimmed_to != self._before:
                self._read_ids = self._earlier_ids()
            for first in range(0, len(self._read_ids), TRIM_BATCH):
                self._client.xdel(self._key, *self._read_ids[first : first + TRIM_BATCH])
            self._read_ids = []

    def _earlier_ids(self) -> list[str]:
        """List some records that an earlier reader has read and not removed."""
        if self._before == "0":
            self._trimmed_to = self._before
            return []
        rows = _rows(
            self._client.xrange(self._key, self._trimmed_to, self._before, count=TRIM_BATCH)
        )
        full = len(rows) == TRIM_BATCH
        self._trimmed_to = _after(rows[-1][0].decode()) if full else self._before
        return [
            identity.decode() for identity, fields in rows if not _is_mark(_parse_record(fields))
        ]

    def is_intact(self) -> bool:
        """Tell whether the mark is still there; without it the stream was emptied or expired.

        Nor is it intact where the mark names a server in whose place there is another one, or the
        same, started anew: what came after it last saved is gone. One without its mark is then read
        from its beginning, once. Raises StackError where the store cannot be reached.
        """
        with self._stack_errors("read from"):
            if self._look_for_gaps():
                return False
            mark = self._read_mark()
            if mark is None:
                self._read_anew()
                return False
            named = mark.get("server")
            return named is None or self._server()[0] in (None, named)

    def _read_mark(self) -> Mapping[str, object] | None:
        if self._mark is None:
            self._mark = self._find_mark()
        if self._mark is None:
            return None
        # Filled anew within the same millisecond, a stream has another record under that id.
        rows = _rows(self._client.xrange(self._key, self._mark, self._mark))
        found = (_parse_record(fields) for _, fields in rows)
        return next((record for record in found if _is_mark(record)), None)

    def _read_anew(self) -> None:
        """Begin again at the beginning: a server whose clock is behind that of the one before gives
        lower ids, below the position. Nothing that was read is there."""
        if not self._is_read_anew:
            self.position = self._before = "0"
            self._trimmed_to, self._read_ids, self._is_read_anew = "-", [], True

    def _server(self) -> tuple[str | None, bool]:
        """Return the id of the store's server since its start, None where it does not tell, and
        whether it keeps what it is told: in an append-only file."""
        from redis.exceptions import ResponseError

        ask = getattr(self._client, "info", None)  # the store in memory ends with its process
        try:
            said = ask() if ask is not None else {}
        except ResponseError:  # not for this user
            said = {}
        server = said.get("run_id")
        return server, server is None or bool(said.get("aof_enabled"))

    def was_read_on(self) -> bool:
        """Return whether records behind the first position were removed: another reader has them.

        No reader removes the mark: without it the stream was emptied. Raises StackError where the
        store cannot be reached.
        """
        with self._stack_errors("read from"):
            is_truncated = self._look_for_gaps()
            if is_truncated and self._mark is None:
                self._mark = self._find_mark()
        return is_truncated and self._mark is not None

    def _look_for_gaps(self) -> bool:
        """Return whether another reader has removed what this one never had; look once."""
        if self._is_truncated is None:
            self._is_truncated = self._was_truncated()
        return self._is_truncated

    def _was_truncated(self) -> bool:
        """Tell whether records behind the position were removed: by a copy of the ledger, or since
        an older ledger was brought back. Servers before Redis 7 do not tell."""
        from redis.exceptions import ResponseError

        ask = getattr(self._client, "xinfo_stream", None)  # the store in memory has no others
        if ask is None:
            return False
        try:
            last = ask(self._key).get("max-deleted-entry-id", b"0-0")
        except ResponseError:  # there is no such stream, of which the mark tells
            return False
        return _sort_key(last.decode()) > _sort_key(self.position)

    def _find_mark(self) -> str | None:
        """Find the id of the first mark: the first record of all, except in a resumed run."""
        start = "-"
        count = 1
        while rows := _rows(self._client.xrange(self._key, start, "+", count=count)):
            for identity, fields in rows:
                if _is_mark(_parse_record(fields)):
                    return identity.decode()
            start, count = _after(rows[-1][0].decode()), BATCH_SIZE
        return None

    @contextmanager
    def _stack_errors(self, doing: str) -> Iterator[None]:
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            raise StackError(
                f"the receipts cannot be {doing} {redact_url(self._url)}: "
                f"{redact_about(str(error), self._url)}"
            ) from error

    def _records(self, answer: object) -> list[Mapping[str, object]]:
        streams = answer.values() if isinstance(answer, dict) else [s[1] for s in _list(answer)]
        records: list[Mapping[str, object]] = []
        for stream in streams:
            for identity, fields in _rows(stream):
                self.position = identity.decode()
                record = _parse_record(fields)
                if record is not None and record.get("kind") in (BEGIN, SESSION):
                    self._note_session(record.get("session"))
                    continue
                self._read_ids.append(self.position)
                if record is None:
                    # Foreign, or cut short: the job's stored result still gives a verdict.
                    self.flaws.add_record(
                        f"record {self.position} of {self._key}", "it is no JSON object"
                    )
                else:
                    records.append(record)
        return records

    def _note_session(self, session: object) -> None:
        other = session not in (None, self.session)
        self.is_overtaken = self.is_overtaken or (other and self._is_announced)
        self._is_announced = self._is_announced or session == self.session

    def close(self) -> None:
        close_client(self._client)


def _list(answer: object) -> list[tuple[bytes, object]]:
    return answer if isinstance(answer, list) else []


def _rows(stream: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Flatten the rows of a stream, which redis-py gives bare or (RESP3) one list deeper."""
    if not isinstance(stream, list):
        return []
    if stream and isinstance(stream[0], list):
        return [row for rows in stream for row in rows]
    return stream


def _parse_record(fields: Mapping[bytes, bytes]) -> Mapping[str, object] | None:
    line = fields.get(STREAM_FIELD.encode(), b"")
    try:
        try:
            record = from_json(line)
        except ValueError:  # the json module reads more: halves of characters, say
            record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_mark(record: Mapping[str, object] | None) -> bool:
    return record is not None and record.get("kind") == BEGIN


def _sort_key(identity: str) -> tuple[int, int]:
    moment, _, number = identity.partition("-")
    return int(moment), int(number or 0)


def _after(identity: str) -> str:
    """Give the id that follows this one: milliseconds, and a number within them."""
    moment, _, number = identity.partition("-")
    return f"{moment}-{int(number) + 1}"
