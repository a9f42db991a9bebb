"""A receipts stream in a real store holds what is not committed yet, and its mark."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
import redis

from pytest_manifest.results.stream import StreamReader, close_client, open_client_at
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.urls import StackAddress
from tests.support import eventually
from tests.unit.test_results_collector import check_trimming

pytestmark = pytest.mark.ring(1)


def test_a_stream_in_valkey_is_trimmed(valkey: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one in memory is."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        check_trimming(valkey, client, monkeypatch)


def test_a_reader_learns_what_another_has_taken_out(valkey: str) -> None:
    """Of a copy of the ledger: what it never had is gone, so it must take nothing for complete."""
    key = "manifest:0123abcd:copied"
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        first, copy = StreamReader(valkey, key), StreamReader(valkey, key)
        first.begin(60)
        assert (first.is_intact(), copy.is_intact()) == (True, True)
        late = StreamReader(valkey, key)
        client.xadd(key, {STREAM_FIELD: json.dumps({"kind": "x"})})
        assert len(first.read()) == 1
        first.trim()
        assert (first.is_intact(), late.is_intact()) == (True, False)
        after = StreamReader(valkey, key, position=first.position)
        assert after.is_intact()
        for reader in (first, copy, late, after):
            reader.close()


def test_a_session_learns_that_another_one_goes_on_with_its_run(valkey: str) -> None:
    """By a copy of the ledger: of those before it and of itself it has known."""
    key = "manifest:0123abcd:overtaken"
    with redis.Redis.from_url(valkey) as client, ExitStack() as open_readers:
        client.flushall()

        def reader(session: str, position: str = "0") -> StreamReader:
            made = StreamReader(valkey, key, session=session, position=position)
            open_readers.callback(made.close)
            return made

        first = reader("first")
        first.announce()  # in a store that was emptied it leaves nothing that looks like a stream
        assert not client.exists(key)
        first.begin(60)
        assert (first.read(), first.is_overtaken) == ([], False)
        second, third = reader("second"), reader("third")
        second.announce()
        assert [second.read(), third.read(), first.read()] == [[], [], []]
        assert (first.is_overtaken, second.is_overtaken, third.is_overtaken) == (True, False, False)
        assert first.renewed(first.position).is_overtaken
        third.announce()
        late = second.renewed(second.position)
        assert (late.read(), late.is_overtaken, second.is_overtaken) == ([], True, False)
        assert first.is_intact()


def test_a_client_by_an_apps_settings_is_closed_whole(valkey: str) -> None:
    """Its pool of connections with it."""
    address = StackAddress(valkey, valkey, "tests.live.broker_app:app", is_private=False)
    client = open_client_at(address)
    ours = client.client_id()
    close_client(client)
    with redis.Redis.from_url(valkey) as other:
        eventually(
            lambda: ours not in {int(one["id"]) for one in other.client_list()},
            within=10,
            what="the server has seen it end",
        )
