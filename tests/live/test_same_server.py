"""Two names of one Redis, a proxy's and its own: one store, where the server can be asked."""

from __future__ import annotations

from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from celery import Celery

from pytest_manifest.broker.stores import refusals
from pytest_manifest.broker.workers import Worker
from pytest_manifest.urls import StackAddress
from tests import services
from tests.conftest import missing
from tests.live.broker_support import database, proxied
from tests.services import ServiceUnavailableError
from tests.stacks.servers import Settings, redis_tls

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]


def is_refused(
    broker: str, backend: str, store: str, theirs: str, settings: Settings | None = None
) -> bool:
    """Whether a run is refused whose worker has this broker and this store, by its own word."""
    where = urlsplit(theirs)
    worker = Worker("w@here", store=store, broker=("localhost", where.port))
    with Celery("a", broker=broker, set_as_current=False) as app:
        app.conf.update(settings or {})
        address = StackAddress(broker, backend, None, is_private=False)
        refused, told = refusals(app, address, (), [worker])
    assert told == []
    return bool(refused)


@pytest.mark.ring(1)
def test_one_server_by_two_ports_is_one_store(valkey: str) -> None:
    """In whichever way it is called; another database, another server, and silence are not."""
    direct, other = database(valkey, 11), database(valkey, 12)
    with proxied(direct) as (proxy, tunnel):
        assert not is_refused(direct, direct, tunnel, direct)
        assert not is_refused(tunnel, tunnel, direct, direct)
        assert not is_refused(direct, tunnel, direct, direct)
        assert is_refused(direct, direct, tunnel.replace("/11", "/12"), direct)
        assert is_refused(direct, tunnel, other, direct)
        with services.valkey_server() as elsewhere:
            there = urlsplit(elsewhere)._replace(path="/11").geturl()
            assert is_refused(direct, direct, there, direct)
            # Its store is its broker, so it is ours; its name leads to another server from here.
            assert not is_refused(direct, tunnel, there, there)
            assert is_refused(direct, there, tunnel, direct)
        proxy.pause()
        assert is_refused(direct, direct, tunnel, direct)


def test_a_server_by_tls_is_asked_as_the_app_asks_it() -> None:
    """Its authority is in the app's settings alone: those of the broker, and those of the store."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(redis_tls(by_settings=True))
        except ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        settings = {**server.broker_settings, **server.store_settings}
        _, store = stack.enter_context(proxied(server.store))
        _, broker = stack.enter_context(proxied(server.broker))
        direct = server.broker, server.store
        assert not is_refused(*direct, store, server.broker, settings)
        assert not is_refused(*direct, store, broker, settings)
        # Where its store is its broker, both are asked, each by settings of its own.
        assert not is_refused(server.broker, store, server.store, server.broker, settings)
        without = dict(server.broker_settings)
        assert is_refused(server.broker, store, server.store, server.broker, without)
