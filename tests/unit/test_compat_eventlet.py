"""Greenthreads: what is relied on of eventlet."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
def test_greenthreads_are_prepared_where_they_are_spawned() -> None:
    """In each way, before they run; doing it twice does it once."""
    program = """
        import eventlet
        from eventlet.greenthread import getcurrent
        from pytest_manifest.compat.eventlet import before_greenthreads_run

        spawned = {}
        before_greenthreads_run(lambda thread: spawned.setdefault(thread, (bool(thread), here())))
        before_greenthreads_run(lambda _: print("twice"))
        here = lambda: getcurrent() is main
        main = getcurrent()

        def call(way, *_):
            print(way, spawned.pop(getcurrent(), None))

        eventlet.spawn(call, "spawn").wait()
        eventlet.spawn_after(0.001, call, "later").wait()
        eventlet.spawn_n(call, "spawn_n")
        eventlet.sleep(0)
        pool = eventlet.GreenPool(2)
        pool.spawn(call, "pool")
        pool.spawn_n(call, "pool_n")
        pool.waitall()
        list(pool.imap(call, ["map"]))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    ways = ("spawn", "later", "spawn_n", "pool", "pool_n")
    lines = done.stdout.splitlines()
    assert lines[:-1] == [f"{way} (False, True)" for way in ways]
    assert lines[-1] == "map (False, False)"  # in the greenthread that goes through the sequence
