"""Rate limits shared by processes through a real Valkey server, and that server away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tasks.text_model.choosing import open_limiter
from tasks.text_model.failures import LimitsUnreachable, Stopped
from tasks.text_model.limits import Limiter, Rates
from tasks.text_model.offline import ExtractiveModel
from tasks.text_model.settings import TextModelSettings
from tasks.text_model.shared_limits import SharedLimit
from tests.services import valkey_server
from tests.workflows.crud_load import ROOT
from tests.workflows.text_requests import refuses_calls

pytestmark = pytest.mark.live

TAKER = """
import sys, threading
from tasks.text_model.failures import Stopped
from tasks.text_model.limits import Rates
from tasks.text_model.shared_limits import SharedLimit

class Impatient(threading.Event):
    def wait(self, timeout=None):
        self.set()
        return True

limiter, taken = SharedLimit(sys.argv[1], sys.argv[2], Rates(requests=30)), 0
sys.stdin.readline()
try:
    while True:
        limiter.acquire(1, Impatient())
        taken += 1
except Stopped:
    print(taken)
limiter.close()
"""


class Impatient(threading.Event):
    """Notes how long it should be waited for, and stops instead."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        self.set()
        return True


@contextmanager
def limit(url: str, rates: Rates, key: str = "") -> Iterator[SharedLimit]:
    limiter = SharedLimit(url, key or uuid.uuid4().hex, rates)
    try:
        yield limiter
    finally:
        limiter.close()


def test_processes_share_one_bucket(valkey: str) -> None:
    """Four processes together get what one would: the bucket, and what has flowed in meanwhile."""
    key = uuid.uuid4().hex
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, valkey, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    began = time.monotonic()
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("\n")
        taker.stdin.flush()
    taken = [int(taker.communicate(timeout=60)[0]) for taker in takers]
    seconds = time.monotonic() - began
    assert 5 <= sum(taken) <= 5 + seconds / 2 + 1


def test_a_full_bucket_says_how_long_to_wait(valkey: str) -> None:
    """No longer than a minute, in which it fills up."""
    with limit(valkey, Rates(tokens=600)) as limiter:
        limiter.acquire(600, threading.Event())
        stop = Impatient()
        with pytest.raises(Stopped):
            limiter.acquire(600, stop)
        (wait,) = stop.waits
        assert 0 < wait <= 60.1


def test_who_waits_gets_a_turn(valkey: str) -> None:
    """The bucket refills at its rate; the seconds waited are told."""
    with limit(valkey, Rates(requests=600, tokens=60_000)) as limiter:
        waited = [limiter.acquire(500, threading.Event()) for _ in range(125)]
    assert all(seconds >= 0 for seconds in waited)
    assert max(waited) > min(waited)


def test_a_stop_ends_the_wait_at_once(valkey: str) -> None:
    """However long it would have been."""
    stop = threading.Event()
    with limit(valkey, Rates(requests=1)) as limiter, ThreadPoolExecutor(1) as pool:
        limiter.acquire(1, stop)
        waiting = pool.submit(limiter.acquire, 1, stop)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(timeout=20)


def test_models_have_buckets_of_their_own(valkey: str) -> None:
    """The limits of one model are not used up by another."""
    name = uuid.uuid4().hex
    settings = TextModelSettings(choice="offline", requests_per_minute=1, limits_url=valkey)
    limiters: list[Limiter] = []
    for model in (f"{name}-a", f"{name}-b"):
        limiters.append(open_limiter(settings, ExtractiveModel(name=model)))
        limiters[-1].acquire(1, threading.Event())
    with pytest.raises(Stopped):
        limiters[0].acquire(1, Impatient())
    for limiter in limiters:
        limiter.close()


def test_threads_share_one_limiter(valkey: str) -> None:
    """Each take is counted once."""
    with limit(valkey, Rates(tokens=60)) as limiter, ThreadPoolExecutor(8) as pool:

        def take(_: int) -> bool:
            try:
                limiter.acquire(1, Impatient())
            except Stopped:
                return False
            return True

        began = time.monotonic()
        taken = sum(pool.map(take, range(200)))
        assert 60 <= taken <= 61 + (time.monotonic() - began)


def test_a_server_that_goes_away_stops_every_call() -> None:
    """Never without a limit: the failure is named, retried, and told; the password is not."""
    with valkey_server() as url:
        limiter = SharedLimit(url, "m", Rates(requests=600, tokens=60_000))
        limiter.acquire(1, threading.Event())
    refuses_calls(limiter, url)


def test_a_wrong_password_is_told_without_it(valkey: str) -> None:
    """As a server that cannot be used."""
    url = valkey.replace(valkey.split(":")[2].split("@")[0], "wrong-password")
    with (
        limit(url, Rates(requests=1)) as limiter,
        pytest.raises(LimitsUnreachable, match="AuthenticationError") as caught,
    ):
        limiter.acquire(1, threading.Event())
    assert "wrong-password" not in str(caught.value)
    assert caught.value.__context__ is None
