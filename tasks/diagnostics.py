"""Run tasks that show whether a stack works at all."""

from __future__ import annotations

import math
import time

from pydantic import JsonValue

from tasks import task

LONGEST_SLEEP_SECONDS = 3600.0


@task
def debug_task(msg: JsonValue) -> dict[str, JsonValue]:
    """Return ``{"echo": msg}``."""
    return {"echo": msg}


@task
def sleep_task(sec: float) -> dict[str, float]:
    """Sleep for ``sec`` seconds; return ``{"slept": SECONDS}``, measured, never less."""
    return {"slept": sleep_for(sec)}


def sleep_for(sec: float) -> float:
    """Sleep, and return the seconds it took. Raises ValueError for what is no time to sleep."""
    if isinstance(sec, bool) or not isinstance(sec, int | float) or not math.isfinite(sec):
        raise ValueError(f"sec must be a number of seconds, not {sec!r}")
    if not 0 <= sec <= LONGEST_SLEEP_SECONDS:
        raise ValueError(f"sec must be from 0 to {LONGEST_SLEEP_SECONDS:g} seconds, not {sec!r}")
    begin = time.monotonic()
    while (left := begin + sec - time.monotonic()) > 0:
        time.sleep(left)
    return time.monotonic() - begin
