"""URLs of brokers and result stores: their schemes, and which of them mean a Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REDIS_SCHEMES: Final[Mapping[str, str]] = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "redis+socket": "unix",
    "unix": "unix",
    "sentinel": "",
}
"""The schemes that mean a Redis, or a server that speaks its protocol, by redis-py's names.

redis-py has no URL for Sentinel, which knows where the master is: Celery's own client asks it.
"""
SENTINEL: Final = "sentinel"
SOCKETS: Final = frozenset(scheme for scheme, name in REDIS_SCHEMES.items() if name == "unix")


def scheme_of(url: str) -> str:
    """Give the scheme of a URL in lower case, ``""`` where there is none."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def is_redis(url: str) -> bool:
    """Tell whether a broker or backend URL means Redis, or a server that speaks its protocol."""
    return scheme_of(url) in REDIS_SCHEMES


def is_redis_server(url: str) -> bool:
    """Tell whether a URL names the host of a Redis, and neither a socket nor who knows the host."""
    return is_redis(url) and scheme_of(url) not in (SENTINEL, *SOCKETS)


def with_redis_scheme(url: str) -> str:
    """Give the URL of a Redis with the scheme that redis-py has for it, else unchanged."""
    known = REDIS_SCHEMES.get(scheme_of(url))
    return f"{known}{url[url.index('://') :]}" if known else url
