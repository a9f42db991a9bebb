"""Faults of the network between pytest or the workers and their broker or store."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from tests.chaos.proxy import End, Proxy
from tests.chaos.scenario import Fault
from tests.chaos.stage import Stage

ENTRY = b"manifest_entry"
"""In each message, once, whatever the broker."""
SILENT_SECONDS = 6.0
TIMES = 3
"""How often connections are spoilt."""


def throughout(slow: Callable[[Stage, Proxy], None]) -> Fault:
    """Make each way that leads through a proxy a slow one, from the first moment to the last."""

    def fault(stage: Stage) -> None:
        for proxy in stage.stack.proxies.values():
            slow(stage, proxy)
        stage.moment(1, 1, jitter=0.0)

    return fault


def at_once(spoil: Callable[[Stage, Proxy], None]) -> Fault:
    """Spoil each way that leads through a proxy: pytest's to its broker within a batch.

    The others from a random moment on.
    """

    def fault(stage: Stage) -> None:
        for way, proxy in stage.stack.proxies.items():
            if way == "pytest's broker":
                proxy.hold(ENTRY, stage.rng.randint(1, len(stage.members) - 1))
                stage.until(proxy.held.is_set, "a batch is half sent")
                stage.strike()
            else:
                stage.moment(1, len(stage.members) // 4)
            spoil(stage, proxy)

    return fault


def be_late(stage: Stage, proxy: Proxy) -> None:
    """All that passes is late, by a fixed time, a random one, or both."""
    proxy.delay, proxy.jitter = stage.rng.choice([(0.1, 0.0), (0.0, 0.2), (0.05, 0.1)])


def slice_bytes(stage: Stage, proxy: Proxy) -> None:
    """All that passes does so byte by byte."""
    proxy.slice = 1


def half_close(stage: Stage, proxy: Proxy) -> None:
    """One end of each connection sees the other's FIN, several times; new connections pass."""
    ends = list(get_args(End))
    stage.rng.shuffle(ends)
    for number in range(TIMES):
        if not stage.session.has_ended:
            proxy.half_close(ends[number % len(ends)])
            proxy.release()
            stage.pause(1.5)


def fall_silent(stage: Stage, proxy: Proxy) -> None:
    """Connections are reset, and new ones accepted without a word; these stay so for ever."""
    proxy.fall_silent()
    proxy.release()
    try:
        stage.session.wait(SILENT_SECONDS)
    finally:
        proxy.speak()
