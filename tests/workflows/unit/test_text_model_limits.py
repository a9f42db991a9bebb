"""Rate limits without a server: what is refused before one is asked, and how URLs are read."""

from __future__ import annotations

import threading

import pytest

from tasks.text_model.choosing import open_limiter, open_model
from tasks.text_model.failures import TextModelError, TooLong
from tasks.text_model.limits import NoLimit, Rates
from tasks.text_model.settings import TextModelSettings
from tasks.text_model.shared_limits import SharedLimit, plain_url


def test_no_limit_never_waits() -> None:
    """And can be closed like any other."""
    limiter = NoLimit()
    assert limiter.acquire(10**9, threading.Event()) == 0.0
    limiter.close()


def test_a_call_that_no_minute_has_room_for_is_refused_at_once() -> None:
    """It would wait for ever; nobody is asked, so no server is needed."""
    limiter = SharedLimit("redis://127.0.0.1:1/0", "m", Rates(tokens=1000))
    with pytest.raises(TooLong, match=r"1001 tokens.*TEXT_MODEL_TOKENS_PER_MINUTE \(1000\)"):
        limiter.acquire(1001, threading.Event())
    limiter.close()


def test_opening_a_limiter_connects_to_nothing() -> None:
    """The server may start later than the worker."""
    settings = TextModelSettings(
        choice="offline", requests_per_minute=1, limits_url="redis://:hush@127.0.0.1:1/0"
    )
    limiter = open_limiter(settings, open_model(settings))
    assert "hush" not in repr(limiter)
    assert "offline:extractive-1" in repr(limiter)
    limiter.close()


@pytest.mark.parametrize("url", ["redis://:hush@h:port/0", "redis://:hush@h/0?socket_timeout=x"])
def test_a_url_that_cannot_be_read_is_told(url: str) -> None:
    """Without its password."""
    with pytest.raises(TextModelError, match="TEXT_MODEL_LIMITS_URL") as caught:
        SharedLimit(url, "m", Rates(requests=1))
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis://:p%40ss@h:1/2", "redis://:p%40ss@h:1/2"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"),
        ("rediss://h/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
    ],
)
def test_urls_of_celery_are_read(url: str, plain: str) -> None:
    """Celery has words of its own for sockets and certificates."""
    assert plain_url(url) == plain
