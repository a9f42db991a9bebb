"""Have the package tell the time, and which processes live, by a simulated world."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

from pytest_manifest import ledger, results
from pytest_manifest.run import search as recovery
from tests.unit.run_world import HOST, World

RUN_PACKAGE = recovery.__name__.rpartition(".")[0]


@contextmanager
def replaced_clocks(world: World, *packages: str) -> Iterator[None]:
    """Replace every clock that a run looks at, and those of these packages of ours."""

    def has_ended(pid: int) -> bool:
        return not world.is_alive(pid)

    clock = world.clock
    times = SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
    prefixes = (RUN_PACKAGE, ledger.__name__, results.__name__, *packages)
    theirs = [module for name, module in sys.modules.items() if name.startswith(prefixes)]
    with ExitStack() as stack:
        for module in theirs:
            if getattr(module, "time", None) is time:
                stack.enter_context(mock.patch.object(module, "time", times))
            if hasattr(module, "utc_now"):
                stack.enter_context(mock.patch.object(module, "utc_now", clock.utc_now))
        stack.enter_context(mock.patch.object(recovery, "has_ended", has_ended))
        same = mock.patch.object(recovery, "means_the_same_here", lambda host, *_: host == HOST)
        stack.enter_context(same)
        yield
