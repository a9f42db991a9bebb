"""Bound every wait on the network.

A peer that is gone refuses a connection at once. One that is frozen (a stopped process, a machine
behind a broken link) accepts and never answers, and the libraries between wait for it: redis-py
for ever or for its time-out times its retries, Celery's stores for two minutes, RabbitMQ's client
for ever. So connections get time limits of their own where a library has words for them; and, as no
library has them for everything (the good-bye of an AMQP connection, a database's driver, a store
that we do not know), calls are made by a thread that is abandoned when it takes too long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.urls import is_in_process

T = TypeVar("T")
Call = Callable[[], None]

CALL_TIMEOUT: Final = 30.0
"""Seconds for a call of many reads and writes: a batch, a read of every queue."""
SUSPECT_TIMEOUT: Final = 3.0
"""Seconds for a peer that has not answered the last time: who waits for it has others to serve."""
CLOSE_TIMEOUT: Final = 2.0  # s
OVERTIME: Final = 20.0
"""Seconds in all that one peer may keep us waiting in vain when time is over: to take back ten
thousand jobs takes a healthy one some. Of a silent one the sockets' limit comes first."""
SUSPECT_OVERTIME: Final = 1.0
"""As above, for one that has been silent before."""
MIN_TIMEOUT: Final = 0.1
POLL_INTERVAL: Final = 0.1
"""Seconds after which a waiting caller sees whether its time was cut short meanwhile."""


class PeerTimeoutError(StackError):
    """A peer that accepts and does not answer."""


class WaitBudget:
    """The time that the calls of a run may wait; ``until``: its end, of the monotonic clock (s).

    When that is over calls may still be made, as a healthy peer answers at once; but what they wait
    in vain is counted, by each :class:`BoundedCaller` for its own peer.
    """

    def __init__(self) -> None:
        self.until = float("inf")
        self.overtime = OVERTIME

    def end_at(self, until: float) -> None:
        """End the budget at ``until`` (monotonic clock, s), unless it ends earlier."""
        self.until = min(self.until, until)

    def expire(self) -> None:
        """Let no call wait any longer."""
        self.until, self.overtime = float("-inf"), 2 * MIN_TIMEOUT


class _Thread(threading.local):
    """The call that each thread is running, if it runs one."""

    job: Future[Any] | None = None  # whatever the call returns, nothing here reads it


_here = _Thread()


def refuse_if_abandoned() -> None:
    """Raise PeerTimeoutError in an abandoned thread: its connections belong to others now."""
    if _here.job is not None and _here.job.cancelled():
        raise PeerTimeoutError("nobody waits for this any more")


class BoundedCaller:
    """Call one peer, from a thread of its own. For one thread at a time.

    ``url``: whom it calls, for sentences; one in this process's memory is called directly.
    ``on_abandon`` is called when a call was abandoned: what it used must not be used again, as the
    abandoned thread may still have it.
    """

    def __init__(
        self,
        url: str,
        budget: WaitBudget | None = None,
        on_abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._budget = budget or WaitBudget()
        self._on_abandon = on_abandon
        self._direct = is_in_process(url.removeprefix("cache+"))
        self._calls: queue.SimpleQueue[Call | None] | None = None
        self._ident = 0
        self._timeouts = 0
        self._overtime = 0.0

    def call(self, function: Callable[[], T], seconds: float = CALL_TIMEOUT) -> T:
        """Run the function; return or raise what it does within ``seconds`` and the budget.

        Raises:
            PeerTimeoutError: it did not end in time; it may still do its work later.
        """
        if self._direct or threading.get_ident() == self._ident:
            return function()
        refuse_if_abandoned()
        job: Future[T] = Future()
        self._submit(partial(_run, job, function))
        began = time.monotonic()
        try:
            self._wait(job, began, seconds)
        finally:
            if job.cancel():  # it is left to its daemon thread, which ends when it does, if ever
                self._end_thread()
                self._on_abandon()
        if job.cancelled():
            self._record_timeout(began)
            raise PeerTimeoutError(
                f"{redact_url(self._url)} accepts connections and does not answer "
                f"(for {time.monotonic() - began:.1f} s)"
            )
        try:
            result = job.result()
        except Exception as error:
            if _is_timeout(error):  # a socket's time limit was shorter than ours
                self._record_timeout(began)
            else:
                self._timeouts = 0
            raise
        self._timeouts = 0
        return result

    def close(self, function: Callable[[], object]) -> None:
        """Make the last call, which says good-bye: how that ends is no matter any more."""
        with suppress(Exception):
            self.call(function, CLOSE_TIMEOUT)
        self._end_thread()

    def _end_thread(self) -> None:
        calls, self._calls, self._ident = self._calls, None, 0
        if calls is not None:
            calls.put(None)

    def _submit(self, call: Call) -> None:
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            name = f"calls {redact_url(self._url)}"
            arguments = (self._calls,)
            thread = threading.Thread(target=_serve, args=arguments, name=name, daemon=True)
            thread.start()
            self._ident = thread.ident or 0
        self._calls.put(call)

    def _wait(self, job: Future[T], began: float, seconds: float) -> None:
        """Return when the job is done, or its time is over."""
        left = seconds
        while left > 0 and not job.done():
            left = began + self._time_limit(began, seconds) - time.monotonic()
            wait([job], max(0.0, min(left, POLL_INTERVAL)))

    def _time_limit(self, began: float, seconds: float) -> float:
        """Give the seconds that a call which began at ``began`` may take."""
        most, closing = seconds, self._budget.overtime
        if self._timeouts:
            # Twice as long each time: a healthy peer may need more for what is asked of it.
            most = min(most, SUSPECT_TIMEOUT * 2 ** min(self._timeouts - 1, 10))
            closing = min(closing, SUSPECT_OVERTIME)
        borrowed = max(MIN_TIMEOUT, closing - self._overtime)
        return min(most, max(0.0, self._budget.until - began) + borrowed)

    def _record_timeout(self, began: float) -> None:
        self._timeouts += 1
        self._overtime += max(0.0, time.monotonic() - max(began, self._budget.until))


def _serve(calls: queue.SimpleQueue[Call | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # what it has brought is the caller's


def _run(job: Future[T], function: Callable[[], T]) -> None:
    _here.job = job
    with suppress(InvalidStateError):  # it was abandoned meanwhile
        try:
            job.set_result(function())
        except BaseException as error:  # the caller's, in whose thread it is raised
            job.set_exception(error)


def _is_timeout(error: BaseException | None) -> bool:
    """Tell whether a time limit caused ``error``; redis-py has its own exception for that."""
    while error is not None:
        if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
            return True
        error = error.__cause__
    return False
