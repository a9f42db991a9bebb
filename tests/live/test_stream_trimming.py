"""A receipts stream in a real store holds what is not committed yet, and its mark."""

from __future__ import annotations

import pytest
import redis

from tests.unit.test_gatherer import check_trimming


def test_a_stream_in_valkey_is_trimmed(valkey: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one in memory is."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        check_trimming(valkey, client, monkeypatch)
