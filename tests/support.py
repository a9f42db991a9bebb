"""What tests of every kind share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.01


def eventually(check: Callable[[], T], *, within: float = 10.0, what: str = "") -> T:
    """Poll ``check`` every 10 ms until it returns something truthy, and return that.

    ``within`` is in seconds; when it is over, ``AssertionError`` says ``what`` and the last value.
    """
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            expected = what or getattr(check, "__name__", "the condition")
            raise AssertionError(f"not within {within:g} s: {expected} (last seen: {value!r})")
        time.sleep(POLL_SECONDS)
