"""Share rate limits among all workers by a Redis or Valkey server."""

from __future__ import annotations

import random
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry
from throttled import RateLimiterType, Throttled, rate_limiter
from throttled.exceptions import StoreUnavailableError
from throttled.store import RedisStore

from tasks.text_model.failures import LimitsUnreachable, Stopped, TextModelError, TooLong
from tasks.text_model.limits import Rates, Slot

REDIS_SECONDS: Final = 5.0
"""How long the server may take to connect, and to reply."""

KEY_PREFIX: Final = "manifest:text_model"
BURST_SHARE: Final = 6
SPREAD: Final = 0.05
"""Seconds over which those spread who wait for the same moment."""


class SharedLimit:
    """Token buckets, one for requests and one for tokens, that fill without steps (GCRA).

    All workers with the same ``key`` (the provider and the model) and server share them. The bucket
    of requests holds ten seconds' worth, so no minute sees more than a sixth above the limit; that
    of tokens holds a minute's worth, as one call may take as much, so after a pause a minute can
    see twice the limit. Waiting calls are not queued: small ones may overtake a large one.
    """

    def __init__(self, url: str, key: str, rates: Rates) -> None:
        self._rates = rates
        self._opened: list[ConnectionPool] = []
        self._key = key
        try:
            self._store = RedisStore(server=plain_url(url), options=_options(self._opened))
            self._requests = self._bucket("requests", rates.requests, BURST_SHARE)
            self._tokens = self._bucket("tokens", rates.tokens, 1)
        except ValueError as error:  # it may quote the URL, and the URL a password
            reason = type(error).__name__
        else:
            return
        raise bad_url(reason)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self._key!r}, rates={self._rates!r})"

    def _bucket(self, name: str, limit: int | None, share: int) -> Throttled | None:
        if limit is None:
            return None
        bucket = Throttled(
            key=f"{self._key}:{name}",
            using=RateLimiterType.GCRA.value,
            quota=rate_limiter.per_min(limit, burst=max(1, limit // share)),
            store=self._store,
            key_prefix=KEY_PREFIX,
        )
        _ = bucket.limiter  # made now, as a bad URL is to show now
        return bucket

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        """Wait until both buckets have room; the seconds waited. Raises as a Limiter does."""
        if self._rates.tokens is not None and tokens > self._rates.tokens:
            raise TooLong(
                f"a call of about {tokens} tokens is more than TEXT_MODEL_TOKENS_PER_MINUTE "
                f"({self._rates.tokens}) ever allows; ask for fewer passages at once, or raise it"
            )
        began = time.monotonic()
        for bucket, cost in ((self._requests, 1), (self._tokens, tokens)):
            if bucket is not None:
                _wait(bucket, cost, stop)
        return time.monotonic() - began

    def slot(self, stop: threading.Event, seconds: float) -> AbstractContextManager[Slot]:
        """Return a place at once: how many calls are made at a time is not limited here."""
        return nullcontext(Slot())

    def close(self) -> None:
        """Give the connections back."""
        for pool in self._opened:
            pool.disconnect()


class NotedPool(ConnectionPool):
    """Connections of one store, which are noted in ``opened``, so that they can be closed."""

    def __init__(self, *args: Any, opened: list[ConnectionPool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        opened.append(self)


def _options(opened: list[ConnectionPool]) -> dict[str, object]:
    return {
        "SOCKET_TIMEOUT": REDIS_SECONDS,
        "SOCKET_CONNECT_TIMEOUT": REDIS_SECONDS,
        "REUSE_CONNECTION": False,
        "CONNECTION_POOL_CLASS": f"{__name__}.{NotedPool.__name__}",
        # Once, for a connection that was closed while idle: waits are ours, and can be stopped.
        "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 1), "opened": opened},
    }


def _wait(bucket: Throttled, cost: int, stop: threading.Event) -> None:
    while not stop.is_set():
        seconds = _refused_for(bucket, cost)
        if seconds is None:
            return
        stop.wait(seconds + random.uniform(0, SPREAD))  # noqa: S311 - no secret
    raise Stopped


def _refused_for(bucket: Throttled, cost: int) -> float | None:
    """Take ``cost`` from the bucket and return None, or the seconds until it may have it."""
    try:
        result = bucket.limit(cost=cost)
    except StoreUnavailableError as error:
        reason = type(error.__cause__ or error).__name__
    else:
        return result.state.retry_after if result.limited else None
    raise unreachable(reason)


def unreachable(reason: str) -> LimitsUnreachable:
    """Make the failure of a server of the limits that cannot be asked."""
    return LimitsUnreachable(
        f"the server of the shared rate limits cannot be reached ({reason}), so nothing may be "
        "sent; check TEXT_MODEL_LIMITS_URL, or unset the limits"
    )


def bad_url(reason: str) -> TextModelError:
    """Make the error of a URL that is none, which may hold a password."""
    return TextModelError(
        f"the URL of the shared rate limits cannot be read ({reason}); "
        "set TEXT_MODEL_LIMITS_URL to redis://HOST:PORT/NUMBER"
    )


def plain_url(url: str) -> str:
    """Convert a URL that Celery reads to redis-py's form, which names some options otherwise."""
    parts = urlsplit(url)
    words = {"virtual_host": "db"}
    query = [
        (words.get(name, name), value.lower().removeprefix("cert_"))
        if name in {"virtual_host", "ssl_cert_reqs"}
        else (name, value)
        for name, value in parse_qsl(parts.query)
    ]
    scheme = "unix" if parts.scheme == "redis+socket" else parts.scheme
    end = f"?{urlencode(query)}" if query else ""
    return f"{scheme}://{parts.netloc}{parts.path}{end}"
