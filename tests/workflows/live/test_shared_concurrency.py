"""Calls at a time found by a real Valkey server for all, and by a service that refuses."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest
from pydantic import SecretStr
from redis import Redis

from tasks.text_model.choosing import open_limiter
from tasks.text_model.failures import (
    AnswerCutOff,
    LimitsUnreachable,
    ModelTimeout,
    RateLimited,
    Stopped,
    TextModelError,
    Unavailable,
)
from tasks.text_model.google_genai import GoogleGenaiModel
from tasks.text_model.limits import Limiter, NoLimit, Rates
from tasks.text_model.offline import ExtractiveModel
from tasks.text_model.retrying import CallCounts, RetryPolicy, call
from tasks.text_model.settings import TextModelSettings
from tasks.text_model.shared_concurrency import ENTER, LEAVE, SharedConcurrency
from tasks.text_model.shared_limits import SharedLimit
from tests.live.broker_support import proxied
from tests.services import valkey_server
from tests.support import eventually
from tests.workflows.gemini_server.server import KEY, gemini_server
from tests.workflows.text_requests import refuses_calls, text_request

pytestmark = pytest.mark.live


@contextmanager
def concurrency(
    url: str, key: str = "", most: int = 100, rates: Limiter | None = None
) -> Iterator[SharedConcurrency]:
    limiter = SharedConcurrency(url, key or uuid.uuid4().hex, most, rates or NoLimit())
    try:
        yield limiter
    finally:
        limiter.close()


def enter(limiter: SharedConcurrency, held: ExitStack) -> int:
    """Take a place that is there; returns how many are allowed."""
    slot = held.enter_context(limiter.slot(threading.Event(), 60.0))
    assert slot.allowed is not None
    return slot.allowed


def allowed(limiter: SharedConcurrency) -> int:
    """How many are allowed at this moment; nothing is learnt by it."""
    found = 0
    with suppress(ModelTimeout), limiter.slot(threading.Event(), 60.0) as slot:
        found = slot.allowed or 0
        raise ModelTimeout("it says nothing of the service's room")
    return found


def answered(limiter: SharedConcurrency, calls: int) -> None:
    """So many calls at a time, all of which are answered."""
    with ExitStack() as held:
        for _ in range(calls):
            enter(limiter, held)


def refused(limiter: SharedConcurrency, calls: int, error: type[Exception] = RateLimited) -> None:
    """So many calls at a time, all of which are refused."""
    held = [limiter.slot(threading.Event(), 60.0) for _ in range(calls)]
    for one in held:
        one.__enter__()
    for one in held:
        assert not one.__exit__(error, error("too much"), None)


def test_it_doubles_until_it_is_refused(valkey: str) -> None:
    """One, two, four, eight; the first refusal halves, and from there on each round adds one."""
    with concurrency(valkey) as limiter:
        found = []
        for _ in range(4):
            found.append(allowed(limiter))
            answered(limiter, found[-1])
        assert found == [1, 2, 4, 8]
        refused(limiter, 16)
        assert allowed(limiter) == 8, "sixteen were told of the same moment: one cut"
        answered(limiter, 8)
        answered(limiter, 9)
        assert allowed(limiter) == 10
        refused(limiter, 1, Unavailable)
        assert allowed(limiter) == 8


def test_the_longer_it_is_not_refused_the_faster_it_grows(valkey: str) -> None:
    """From four on: by one in the time of a call, then by two, by three."""
    with concurrency(valkey) as limiter:
        for _ in range(3):
            answered(limiter, allowed(limiter))
        refused(limiter, 8)
        found = [allowed(limiter)]
        for _ in range(12):
            answered(limiter, found[-1])
            found.append(allowed(limiter))
        assert found[0] == 4
        assert found[3] - found[0] in (3, 4)
        assert found[12] - found[9] >= 2 * (found[3] - found[0])


def test_it_stays_within_its_bounds(valkey: str) -> None:
    """Never more than the setting, and never less than one."""
    with concurrency(valkey, most=3) as limiter:
        for _ in range(4):
            answered(limiter, min(3, allowed(limiter)))
        assert allowed(limiter) == 3
        for _ in range(6):
            refused(limiter, 1)
        assert allowed(limiter) == 1


def test_it_grows_only_while_it_is_used(valkey: str) -> None:
    """A single caller learns nothing of how many the service would bear."""
    with concurrency(valkey) as limiter:
        for _ in range(40):
            answered(limiter, 1)
        assert allowed(limiter) == 2


def test_places_taken_just_before_a_call_are_not_of_its_time(valkey: str) -> None:
    """Here the server runs both at once, so that no clock could tell one moment from the other."""
    key = uuid.uuid4().hex
    keys = [f"manifest:text_model:{{{key}}}:{name}" for name in ("concurrency", "places")]
    rule = (100, 0.5, 0.8, 4, 60_000)
    with Redis.from_url(valkey) as client, concurrency(valkey, key) as limiter:
        take, leave = client.register_script(ENTER), client.register_script(LEAVE)
        with client.pipeline() as together:
            take(keys, ("first", 60_000, 100, 60_000), together)
            leave(keys, ("first", "answered", 0, 1, *rule), together)
            take(keys, ("second", 60_000, 100, 60_000), together)
            _, learnt, (granted, most, round_, turn) = together.execute()
        assert (learnt, granted, most) == (1, 1, 2)
        leave(keys, ("second", "answered", round_, turn, *rule))
        assert allowed(limiter) == 2


def test_places_taken_after_a_call_began_are_of_its_time(valkey: str) -> None:
    """The first of two callers learns of the room as well as the one that filled it."""
    with concurrency(valkey) as limiter:
        answered(limiter, 1)
        answered(limiter, 2)
        assert allowed(limiter) == 4


def test_a_reply_that_is_lost_takes_no_second_place(valkey: str) -> None:
    """The client asks again, by a new connection, and gets the place that it has been given."""
    stop = threading.Event()
    with (
        proxied(valkey) as (proxy, url),
        concurrency(url) as limiter,
        ThreadPoolExecutor(1) as pool,
        ExitStack() as ended,
    ):
        ended.callback(stop.set)
        assert allowed(limiter) == 1
        proxy.arm(0, replies=True)
        assert pool.submit(lambda: _enter_and_leave(limiter, stop)).result(timeout=20) == 1
        assert proxy.cuts == 1


def test_a_place_that_was_granted_too_late_is_taken_over() -> None:
    """By the next call: nobody was there any more when the server, which stood still, went on."""
    key, stop = uuid.uuid4().hex, threading.Event()
    with (
        valkey_server() as url,
        Redis.from_url(url) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("tasks.text_model.shared_concurrency.REDIS_SECONDS", 0.1)
        with (
            concurrency(url, key) as limiter,
            ThreadPoolExecutor(1) as pool,
            ExitStack() as ended,
        ):
            ended.callback(stop.set)
            assert allowed(limiter) == 1
            server = client.info("server")["process_id"]
            os.kill(server, signal.SIGSTOP)
            try:
                with pytest.raises(LimitsUnreachable):
                    enter(limiter, ended)
            finally:
                os.kill(server, signal.SIGCONT)
            places = f"manifest:text_model:{{{key}}}:places"
            eventually(lambda: client.zcard(places) == 1, within=20, what="the place is granted")
            assert pool.submit(lambda: _enter_and_leave(limiter, stop)).result(timeout=20) == 1


def test_an_answer_that_is_told_twice_counts_once(valkey: str) -> None:
    """As it is where the reply to that was lost."""
    with proxied(valkey) as (proxy, url), concurrency(url) as limiter:
        for _ in range(2):
            answered(limiter, allowed(limiter))
        with ExitStack() as held:
            for _ in range(4):
                enter(limiter, held)
            proxy.arm(0, replies=True)
        assert proxy.cuts == 1
        assert allowed(limiter) == 8


def test_what_says_nothing_of_room_changes_nothing(valkey: str) -> None:
    """A timeout is no refusal and no answer; an answer that is of no use is one."""
    with concurrency(valkey) as limiter:
        assert allowed(limiter) == 1
        assert allowed(limiter) == 1
        with pytest.raises(AnswerCutOff), limiter.slot(threading.Event(), 60.0):
            raise AnswerCutOff("too long")
        assert allowed(limiter) == 2


def test_no_more_places_are_taken_than_there_are(valkey: str) -> None:
    """Two limiters, as two workers have them, share the places; who waits gets one in time."""
    key = uuid.uuid4().hex
    with concurrency(valkey, key) as one, concurrency(valkey, key) as other, ExitStack() as held:
        assert enter(one, held) == 1
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: _enter_and_leave(other, stop))
            assert not waiting.done()
            held.close()
            assert waiting.result(timeout=20) == 2


def _enter_and_leave(limiter: SharedConcurrency, stop: threading.Event) -> int | None:
    with limiter.slot(stop, 60.0) as slot:
        return slot.allowed


def test_a_stop_ends_the_wait_for_a_place(valkey: str) -> None:
    """At once, and nothing is left of it."""
    with concurrency(valkey) as limiter, ThreadPoolExecutor(1) as pool:
        stop = threading.Event()
        with ExitStack() as held:
            enter(limiter, held)
            waiting = pool.submit(lambda: _enter_and_leave(limiter, stop))
            stop.set()
            with pytest.raises(Stopped):
                waiting.result(timeout=20)
        assert allowed(limiter) == 2


def test_the_place_of_a_worker_that_died_is_free_again(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its call would have timed out long since."""
    monkeypatch.setattr("tasks.text_model.shared_concurrency.LEASE_SPARE", 0.2)
    key = uuid.uuid4().hex
    with concurrency(valkey, key) as dead, concurrency(valkey, key) as other:
        held = dead.slot(threading.Event(), 0.1)  # and never left
        held.__enter__()
        assert allowed(other) == 1
        held.__exit__(None, None, None)


def test_a_server_that_goes_away_stops_every_call() -> None:
    """Before a call; a call that is under way keeps its answer. The password is not told."""
    with valkey_server() as url:
        limiter = SharedConcurrency(url, "m", 4, NoLimit())
        held = limiter.slot(threading.Event(), 60.0)
        held.__enter__()
    assert not held.__exit__(None, None, None)
    refuses_calls(limiter, url)


def test_a_url_that_cannot_be_read_is_told() -> None:
    """Without its password."""
    with pytest.raises(TextModelError, match="TEXT_MODEL_LIMITS_URL") as caught:
        SharedConcurrency("redis://:hush@h:port/0", "m", 1, NoLimit())
    assert "hush" not in str(caught.value)


def test_limits_a_minute_hold_as_well(valkey: str) -> None:
    """Both come from the settings; each model has numbers of its own."""
    name = uuid.uuid4().hex
    settings = TextModelSettings(
        choice="offline", most_at_once=2, requests_per_minute=1, limits_url=valkey
    )
    limiter = open_limiter(settings, ExtractiveModel(name=name))
    assert isinstance(limiter, SharedConcurrency)
    assert "SharedLimit" in repr(limiter)
    stop = threading.Event()
    limiter.acquire(1, stop)
    stop.set()
    with pytest.raises(Stopped):
        limiter.acquire(1, stop)
    limiter.close()
    rates = SharedLimit(valkey, name, Rates(requests=6000))
    with concurrency(valkey, rates=rates) as both:
        assert both.acquire(1, threading.Event()) >= 0.0


def test_it_follows_a_service_whose_limit_moves(valkey: str) -> None:
    """Two workers of the real SDK: every call is answered, and the state follows the limit."""
    key = uuid.uuid4().hex
    with gemini_server({"latency": 0.2, "at_once": [6], "retry": None}) as server:
        settings = TextModelSettings(
            choice="google-genai", key=SecretStr(KEY), base_url=server.url, timeout=30.0
        )
        models = [GoogleGenaiModel(settings, SecretStr(KEY)) for _ in range(2)]
        counts = CallCounts()
        with (
            concurrency(valkey, key) as one,
            concurrency(valkey, key) as other,
            ThreadPoolExecutor(16) as pool,
        ):

            def ask(number: int) -> None:
                call(
                    models[number % 2],
                    text_request({"k": f"Text {number}."}),
                    policy=RetryPolicy(attempts=30, first_wait=0.02, longest_wait=0.2),
                    limiter=(one, other)[number % 2],
                    counts=counts,
                    stop=threading.Event(),
                )

            list(pool.map(ask, range(100)))
            high = [most for _, most in counts.allowed]
            server.use({"latency": 0.2, "at_once": [2], "retry": None})
            list(pool.map(ask, range(50)))
            low = [most for _, most in counts.allowed[len(high) :]]
        for model in models:
            model.close()
    # How many calls meet at the service also depends on how fast they are made.
    assert min(low) < 6 <= max(high)
    refusals = len(counts.refused)
    assert refusals == counts.failures["rate_limited"]
    assert 0 < refusals < counts.calls / 3, f"{refusals} of {counts.calls} calls were refused"
    with Redis.from_url(valkey) as client:
        assert client.zcard(f"manifest:text_model:{{{key}}}:places") == 0
