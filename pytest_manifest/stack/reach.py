"""Whether an existing stack answers, found out within a bounded time."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

from celery import Celery
from kombu import Connection

from pytest_manifest.errors import StackError
from pytest_manifest.log import redact, redact_url
from pytest_manifest.stack.address import StackAddress

# Result stores that are reached like a broker of the same scheme.
BROKER_LIKE: Final = ("redis", "rediss", "sentinel", "redis+socket")
DATABASES: Final = ("db+", "database+")
# Result stores that are the broker itself, or none at all.
NOTHING_TO_REACH: Final = ("", "rpc", "disabled", "cache+memory")


def reach(address: StackAddress, timeout: float = 5.0) -> None:
    """Return when broker and result store have both answered.

    StackError, within ``timeout`` seconds, names the one that did not, and why.
    """
    deadline = time.monotonic() + timeout
    broker, backend = address.broker_url, address.backend_url
    attempts = [_Attempt("broker", "--manifest-broker", broker, _broker_probe(broker, timeout))]
    if backend != broker and _scheme(backend) not in NOTHING_TO_REACH:
        probe = _backend_probe(address, timeout)
        attempts.append(_Attempt("result store", "--manifest-backend", backend, probe))
    for attempt in attempts:
        reason = attempt.failure(max(0.0, deadline - time.monotonic()), timeout)
        if reason:
            raise StackError(
                f"{attempt.what} {redact_url(attempt.url)} cannot be used: {reason} "
                f"(check {attempt.option})"
            )


class _Attempt:
    """One probe in a thread of its own.

    Timeouts of the client libraries are set, too, but not all of them cover a peer that accepts a
    connection and then never says a word; such a thread is left behind, and dies with the process.
    """

    def __init__(self, what: str, option: str, url: str, probe: Callable[[], None]) -> None:
        self.what = what
        self.option = option
        self.url = url
        self._probe = probe
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name=f"reach {what}", daemon=True)
        self._thread.start()

    def failure(self, seconds: float, timeout: float) -> str:
        """Why it failed, empty when it did not; ``seconds`` are left of the ``timeout``."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return f"it did not answer within {timeout:g} s"
        return self._reason

    def _run(self) -> None:
        try:
            self._probe()
        except Exception as error:
            self._reason = _reason(error)


def _broker_probe(url: str, timeout: float) -> Callable[[], None]:
    scheme = _scheme(url)
    if scheme.startswith(BROKER_LIKE):
        options = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    elif scheme in ("amqp", "amqps", "pyamqp"):
        options = {"read_timeout": timeout, "write_timeout": timeout}
    else:
        options = {}

    def probe() -> None:
        connection = Connection(url, connect_timeout=timeout, transport_options=options)
        # Not connection.connect(), which tries again, and hides the reason. This logs in, and with
        # Redis it sends a PING.
        established = connection.transport.establish_connection()
        connection.transport.close_connection(established)

    return probe


def _backend_probe(address: StackAddress, timeout: float) -> Callable[[], None]:
    url = address.backend_url
    scheme = _scheme(url)
    if scheme in BROKER_LIKE:
        return _broker_probe(url, timeout)
    if scheme.startswith(DATABASES):
        return lambda: _ask_database(url.partition("+")[2])
    return lambda: _ask_backend(address)


def _ask_database(url: str) -> None:
    """Connect; Celery's own backend would create tables first, and try ten times."""
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _ask_backend(address: StackAddress) -> None:
    """Ask for a result that nobody has."""
    urls = {"broker": address.broker_url, "backend": address.backend_url}
    with Celery("manifest-reach", set_as_current=False, **urls) as app:
        app.backend.get_task_meta(f"manifest-reach-{uuid.uuid4()}")


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _reason(error: BaseException) -> str:
    """The innermost cause in a line: libraries wrap refused connections several times."""
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
    return redact(lines[0]).rstrip(".") if lines else type(cause).__name__
