"""Check within a bounded time that an existing stack answers."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from celery import Celery
from celery.app.backends import by_url
from kombu import Connection

from pytest_manifest.broker.bounded import BoundedCaller, PeerTimeoutError
from pytest_manifest.broker.transports import transport_of
from pytest_manifest.compat.older import way_to_redis
from pytest_manifest.errors import ResultStoreError, StackError
from pytest_manifest.redaction.texts import redact_about, redact_url
from pytest_manifest.results.django_results import WorkersDatabases, is_of_django
from pytest_manifest.results.stream import open_client_at
from pytest_manifest.urls import SENTINEL, StackAddress, is_redis, is_tls, kind_of, scheme_of

if TYPE_CHECKING:
    from redis import Redis

DATABASES: Final = ("db+", "database+")
UNKNOWN_AUTHORITY: Final = (18, 19, 20, 21)
"""OpenSSL's codes of a chain that ends with nobody who is trusted, or with itself."""
# Result stores that are the broker itself, or none at all.
NOTHING_TO_REACH: Final = ("", "rpc", "disabled", "cache+memory")


def check_stack(
    address: StackAddress,
    timeout: float = 5.0,
    *,
    app: Celery | None = None,
    broker_hint: str = "check --manifest-broker",
    store_hint: str = "check --manifest-backend",
) -> None:
    """Return when broker and result store have both answered.

    ``app``: whose settings say the rest of how they are reached: a master's name, TLS, a user.
    StackError, of a result store ResultStoreError, names the one that did not within ``timeout``
    seconds, and why; the hints say what to do about each.
    """
    broker, backend = address.broker_url, address.backend_url
    reason = _failure(broker, timeout, lambda: _broker_probe(broker, timeout, app))
    if reason:
        raise StackError(_sentence("broker", broker, reason, broker_hint))
    if backend != broker and kind_of(backend) not in NOTHING_TO_REACH:
        reason = _failure(backend, timeout, lambda: _backend_probe(address, timeout, app))
        if reason:
            raise ResultStoreError(_sentence("result store", backend, reason, store_hint))


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of a Redis server, as it reports it; bytes of memory, 0: no limit.

    ``refuses``: why it takes no writes, in a phrase, "" where it does; ``ahead``: seconds by which
    its clock is ahead of this machine's, ``within`` so many.
    """

    memory: int
    most: int
    policy: str
    evicted: int
    refuses: str
    ahead: float
    within: float


def server_state(client: Redis) -> ServerState:
    """Ask a server for its state. Raises what redis-py does, also where this user may not ask."""
    told = client.info()
    began = time.time()
    seconds, microseconds = client.time()
    ended = time.time()
    refuses = ""
    if told.get("role") == "slave":
        refuses = "it is a replica"
    elif told.get("loading"):
        refuses = "it is loading its data"
    elif told.get("aof_last_write_status") == "err" or told.get("rdb_last_bgsave_status") == "err":
        refuses = "it could not write its data to its disk the last time"
    return ServerState(
        memory=int(told.get("used_memory", 0)),
        most=int(told.get("maxmemory", 0)),
        policy=str(told.get("maxmemory_policy", "")),
        evicted=int(told.get("evicted_keys", 0)),
        refuses=refuses,
        ahead=seconds + microseconds / 1e6 - (began + ended) / 2,
        within=(ended - began) / 2,
    )


def _sentence(what: str, url: str, reason: str, hint: str) -> str:
    return f"{what} {redact_url(url)} cannot be used: {reason} ({way_to_redis(reason) or hint})"


def _failure(url: str, seconds: float, make: Callable[[], Callable[[], None]]) -> str:
    """Say why a probe failed, "" when it did not; it is given so many seconds.

    What it imports while it is made takes seconds on a busy machine, and is no peer's silence.
    """
    caller = BoundedCaller(url)
    try:
        caller.call(make(), seconds)
    except PeerTimeoutError:
        tls = f", which a server without TLS never does to {scheme_of(url)}://" * is_tls(url)
        return f"it did not answer within {seconds:g} s{tls}"
    except Exception as error:
        return _reason(error, url)
    finally:
        caller.close(lambda: None)
    return ""


def _broker_probe(url: str, timeout: float, app: Celery | None) -> Callable[[], None]:
    """Make a probe of a broker; of several that a URL names, one that answers is enough."""
    seconds = timeout if scheme_of(url) == SENTINEL else timeout / (url.count(";") + 1)
    options = transport_of(url).probe_options(seconds)
    connect = Connection if app is None else app.connection_for_write
    connection = connect(url, connect_timeout=seconds, transport_options=options)
    others = max(0, len(connection.transport.client.alt) - 1)  # imports the transport

    def probe() -> None:
        with connection:
            connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)

    return probe


def _backend_probe(address: StackAddress, timeout: float, app: Celery | None) -> Callable[[], None]:
    url = address.backend_url
    kind = kind_of(url)
    if is_redis(url) and app is None:  # reached like such a broker
        return _broker_probe(url, timeout, None)
    if is_redis(url) and kind != SENTINEL:
        client = open_client_at(address)

        def ping() -> None:
            with client:
                client.ping()

        return ping
    if kind.startswith(DATABASES):
        return _database_probe(url.partition("+")[2])
    by_url(url, None if app is None else app.loader)  # imports it
    return lambda: _query_backend(address, app)


def _database_probe(url: str) -> Callable[[], None]:
    """Probe by connecting; Celery's backend would create tables first, and try ten times."""
    from sqlalchemy import create_engine

    engine = create_engine(url)

    def probe() -> None:
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    return probe


def _query_backend(address: StackAddress, app: Celery | None) -> None:
    """Ask for an unknown result, as the app would: it may have settings for its store."""
    urls = {"broker": address.broker_url, "backend": address.backend_url}
    with Celery("manifest-reach", set_as_current=False, **urls) as plain:
        asking = app or plain
        backend_class, url = by_url(address.backend_url, asking.loader)
        backend = backend_class(app=asking, url=url)
        with WorkersDatabases() if is_of_django(backend) else nullcontext():
            backend.get_task_meta(str(uuid.uuid4()))  # stores may check what an id is


def _reason(error: BaseException, url: str) -> str:
    """Word the innermost cause in a line: libraries wrap refused connections several times.

    ``url``: what was tried to be reached.
    """
    if (refused := _refused_certificate(error)) is not None:
        return refused
    cause = error
    while isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    if type(cause).__name__.endswith(("TimeoutError", "timeout")):
        return "it did not answer in time"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    # str() of a KeyError is its argument's repr.
    text = str(cause.args[0]) if isinstance(cause, KeyError) and cause.args else str(cause)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return redact_about(lines[0], url).rstrip(".") if lines else type(cause).__name__


def _refused_certificate(error: BaseException) -> str | None:
    """Word a certificate that is not accepted; None where the cause is another one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message.rstrip(".")
            if cause.verify_code in UNKNOWN_AUTHORITY:
                why = f"no authority that is known here vouches for it ({why})"
            return f"its certificate is refused: {why}"
        cause = cause.__cause__ or cause.__context__
    return None
