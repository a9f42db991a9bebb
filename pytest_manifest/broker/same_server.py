"""Whether two names of a Redis lead to one server, by the server's own word.

A tunnel, a proxy or a forwarded port gives one server two names. A Redis says who it is (``INFO``
has an id that it makes when it starts); so where it can be asked, names need not be believed.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from loguru import logger

from pytest_manifest.log import redact_url
from pytest_manifest.urls import is_redis_server, with_redis_scheme

SERVER_ID_TIMEOUT: Final = 2.0
"""Seconds for each answer; who does not answer by then has not told."""


def server_id(url: str) -> str | None:
    """Who the server at this URL says that it is; None where it does not tell."""
    from redis import Redis, RedisError
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    if not is_redis_server(url):
        return None
    try:
        with Redis.from_url(
            with_redis_scheme(url),
            socket_connect_timeout=SERVER_ID_TIMEOUT,
            socket_timeout=SERVER_ID_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            said = client.info("server")
    except (RedisError, OSError, TypeError, ValueError) as error:
        logger.debug("{} does not say who it is: {}", redact_url(url), error)
        return None
    found = said.get("run_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and found else None


def with_host(url: str, host: str, port: int | None) -> str:
    """The same URL, for a server of another name: with our password, as theirs is not told."""
    parts = urlsplit(url)
    login, at_sign, _ = parts.netloc.rpartition("@")
    name = f"[{host}]" if ":" in host else host
    place = name if port is None else f"{name}:{port}"
    return parts._replace(netloc=f"{login}{at_sign}{place}").geturl()


def is_same_server(one: str, other: str) -> bool:
    """Whether both lead to one server, by its word."""
    first = server_id(one)
    return first is not None and first == server_id(other)
