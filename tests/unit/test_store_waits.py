"""How long a process of a worker that stops waits for its store."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_manifest.worker import store_waits


def test_a_worker_that_stops_waits_for_its_store_for_seconds_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Waits before the stop do not count; those after it count together, over all jobs."""
    clock = [100.0]
    monkeypatch.setattr(store_waits, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(store_waits._waits, "now", store_waits._Waits())
    with store_waits.waiting():
        clock[0] += 600
        assert not store_waits.has_given_up()
        store_waits.begin_stop()
        clock[0] += store_waits.STOP_SECONDS - 1
        assert not store_waits.has_given_up()
    clock[0] += 600  # a job that does not wait
    with store_waits.waiting():
        assert not store_waits.has_given_up()
        clock[0] += 2
        assert store_waits.has_given_up()
    assert store_waits.has_given_up()
