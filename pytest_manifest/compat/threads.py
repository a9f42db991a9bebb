"""Threads that tasks start in a worker.

The standard library hands nothing on to a new thread, or can be asked to from Python 3.14 on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

from pytest_manifest.compat import _all_of, _put_in_place


def hand_on_to_threads(
    capture: Callable[[], Callable[[], AbstractContextManager[None]]],
) -> Callable[[], None]:
    """Have what threads are given to do run in the context of who gives it.

    ``capture`` is called there and returns what makes that context. Doing it again changes nothing.
    Returns what takes it back.
    Relies on ``Thread.start`` having the new thread call the object's ``run``, and on what
    ``ThreadPoolExecutor.submit`` is given being called once (Python 3.14).
    Test: ``test_compat_threads.py::test_threads_run_in_the_context_of_who_starts_them``.
    """
    given_start, given_submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start(thread: threading.Thread) -> None:
        context, run, own = capture(), thread.run, vars(thread)
        before = {"run": own["run"]} if "run" in own else {}

        # As a method: who has replaced Thread.start before (Sentry) calls its function.
        def run_within(_: threading.Thread) -> None:
            own.pop("run", None)  # else the thread would hold itself
            own.update(before)
            with context():
                run()

        own["run"] = MethodType(run_within, thread)
        try:
            given_start(thread)
        except RuntimeError:  # no more threads can be had
            own.pop("run", None)
            own.update(before)
            raise

    def submit(pool: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = capture()

        def call_within() -> Any:
            with context():
                return call(*args, **kwargs)

        return given_submit(pool, call_within)

    return _all_of(
        _put_in_place(threading.Thread, "start", start),
        _put_in_place(ThreadPoolExecutor, "submit", submit),
    )
