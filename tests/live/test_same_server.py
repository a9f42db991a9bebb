"""Two names of one Redis, a proxy's and its own: one store, where the server can be asked."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from celery import Celery

from pytest_manifest.broker.stores import refusals
from pytest_manifest.broker.workers import Worker
from pytest_manifest.urls import StackAddress
from tests import services
from tests.live.broker_support import database, proxied

pytestmark = pytest.mark.live


def is_refused(broker: str, backend: str, store: str, theirs: str) -> bool:
    """Whether a run is refused whose worker has this broker and this store, by its own word."""
    where = urlsplit(theirs)
    worker = Worker("w@here", store=store, broker=("localhost", where.port))
    with Celery("a", broker=broker, set_as_current=False) as app:
        address = StackAddress(broker, backend, None, is_private=False)
        refused, told = refusals(app, address, (), [worker])
    assert told == []
    return bool(refused)


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
