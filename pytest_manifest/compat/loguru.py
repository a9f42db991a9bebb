"""The handlers of loguru: one that is removed cannot be had back in a public way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loguru import logger


def set_aside(handler: int) -> Callable[[], None] | None:
    """Take away the handler of this id; return what puts it back. None: there is none.

    Relies on ``logger._core`` having ``handlers`` by id, a dictionary that is replaced and never
    changed, ``min_level``, their lowest level, and ``lock`` (loguru 0.7).
    Test: ``test_compat_loguru.py::test_a_handler_is_set_aside``.
    """
    core: Any = logger._core  # type: ignore[attr-defined]  # loguru's types leave it out
    taken = core.handlers.get(handler)
    if taken is None:
        return None

    def replace(handlers: dict[int, Any]) -> None:
        core.min_level = min((one.levelno for one in handlers.values()), default=float("inf"))
        core.handlers = handlers

    def put_back() -> None:
        with core.lock:
            replace({handler: taken, **core.handlers})

    with core.lock:
        replace({number: one for number, one in core.handlers.items() if number != handler})
    return put_back
