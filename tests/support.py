"""What tests of every kind share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

NOT_NEEDED = ("hypothesispytest", "anyio", "valkey", "platformdirs", "xdist.looponfail")
"""Plugins that no session is about which tests run; importing them is half of a short one."""
T = TypeVar("T")

POLL_SECONDS = 0.01
SLOWEST = 3
"""How many times slower than the machine that tests are written on one may be."""


def lean(*others: str) -> str:
    """Return options that keep a session from plugins that are here for other reasons."""
    return " ".join(f"-p no:{name}" for name in (*NOT_NEEDED, *others))


def eventually(check: Callable[[], T], *, within: float = 10.0, what: str = "") -> T:
    """Poll ``check`` every 10 ms until it returns something truthy, and return that.

    ``within`` is in seconds of a usual machine; when they are over on a slow one as well,
    ``AssertionError`` says ``what`` and the last value.
    """
    deadline = time.monotonic() + SLOWEST * within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            expected = what or getattr(check, "__name__", "the condition")
            raise AssertionError(f"not within {within:g} s: {expected} (last seen: {value!r})")
        time.sleep(POLL_SECONDS)
