"""Threads that tasks start: what is relied on of the standard library's, and of Celery's pools."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SENTRY = """
import threading
given = threading.Thread.start

def start(thread):
    function = getattr(thread.run, "__func__", thread.run)
    thread.run = lambda *a: function(threading.current_thread(), *a[1:])
    given(thread)

threading.Thread.start = start
"""
"""What Sentry does to threads, before or after us."""


@pytest.mark.parametrize("before", [True, False], ids=["before us", "after us"])
@pytest.mark.parametrize("other", ["", SENTRY], ids=["alone", "Sentry"])
def test_threads_run_in_the_context_of_who_starts_them(other: str, before: bool) -> None:
    """Also in a pool whose threads somebody else has started; doing it twice does it once."""
    program = """
        import gc, threading, weakref
        from concurrent.futures import ThreadPoolExecutor
        from contextlib import contextmanager
        from pytest_manifest.compat.threads import hand_on_to_threads

        here = threading.local()

        def capture():
            of = getattr(here, "name", None)
            @contextmanager
            def context():
                before = getattr(here, "name", None)
                here.name = of
                yield
                here.name = before
            return context

        hand_on_to_threads(capture)
        hand_on_to_threads(lambda: print("twice"))
        # AFTER

        class Own(threading.Thread):
            def run(self):
                print("own", here.name)

        def give(number):
            print("given", number, here.name)
            return number

        pool = ThreadPoolExecutor(1)
        for name in ("first", "second", None):
            here.name = name
            print(list(pool.map(give, [1])))
            for thread in (threading.Thread(target=give, args=(2,)), Own()):
                thread.start()
                thread.join()
        pool.shutdown()
        gc.disable()
        gone = weakref.ref(thread)
        del thread
        print(gone())
    """
    program = textwrap.dedent(program)
    program = other + program if before else program.replace("# AFTER", other)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    told = [
        line
        for name in ("first", "second", "None")
        for line in (f"given 1 {name}", "[1]", f"given 2 {name}", f"own {name}")
    ]
    assert done.stdout.splitlines() == [*told, "None"]
