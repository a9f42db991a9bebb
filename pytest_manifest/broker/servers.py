"""Tell Redis servers apart by their ids, each asked by a connection as the app makes its own.

A URL does not say all: an authority for TLS, a user or a time limit may be in the app's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from loguru import logger

from pytest_manifest.broker.client import connect, result_backend
from pytest_manifest.redaction import redact_about, redact_url
from pytest_manifest.urls import StackAddress, is_redis_server

if TYPE_CHECKING:
    from celery import Celery

TIMEOUT: Final = 2.0
"""Seconds for each answer; who does not answer by then has not told."""
LIMITS: Final = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}


class Servers:
    """Ask the servers behind URLs for their ids, each URL once."""

    def __init__(self, app: Celery, address: StackAddress) -> None:
        self._app = app
        self._address = address
        self._known: dict[tuple[str, str], str | None] = {}

    def id_of_broker(self, url: str) -> str | None:
        """Ask the server at a broker's URL for its run id; None where it does not tell."""
        return self._id("broker", url, self._ask_broker)

    def id_of_store(self, url: str) -> str | None:
        """Ask the server at a result store's URL for its run id; None where it does not tell."""
        return self._id("store", url, self._ask_store)

    def _id(self, role: str, url: str, ask: Callable[[str], object]) -> str | None:
        if not is_redis_server(url):
            return None
        if (role, url) not in self._known:
            self._known[role, url] = _run_id(url, ask)
        return self._known[role, url]

    def _ask_broker(self, url: str) -> object:
        place = replace(self._address, broker_url=url)
        with connect(self._app, place, LIMITS) as connection, connection.channel() as channel:
            return channel.client.info("server")

    def _ask_store(self, url: str) -> object:
        backend: Any = result_backend(self._app, replace(self._address, backend_url=url))
        backend.connparams.update(LIMITS, retry_on_timeout=False)  # of Celery, which has no types
        client = backend.client
        try:
            return client.info("server")
        finally:
            client.connection_pool.disconnect()


def _run_id(url: str, ask: Callable[[str], object]) -> str | None:
    try:
        said = ask(url)
    except Exception as error:  # of the app's settings, too, which another place may not suit
        logger.debug(
            "{} does not say who it is: {}", redact_url(url), redact_about(str(error), url)
        )
        return None
    found = said.get("run_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and found else None


def is_same(one: str | None, other: str | None) -> bool:
    """Tell whether two ids, each None where it is unknown, are of one server."""
    return one is not None and one == other


def with_host(url: str, host: str, port: int | None) -> str:
    """Exchange the host of a URL; our password stays, as workers do not tell theirs."""
    parts = urlsplit(url)
    login, at_sign, _ = parts.netloc.rpartition("@")
    name = f"[{host}]" if ":" in host else host
    place = name if port is None else f"{name}:{port}"
    return parts._replace(netloc=f"{login}{at_sign}{place}").geturl()
