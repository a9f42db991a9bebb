"""A simulated pytest process: a greenlet, which dies by never being switched to again.

Then no ``finally`` of it runs. What a system does for a process that is gone is done for it: its
ledgers are cut off, with what was not committed, and its locks are released.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from greenlet import getcurrent, greenlet

from pytest_manifest.run import connections as states
from pytest_manifest.run import pressure
from pytest_manifest.run import run as running
from pytest_manifest.run.locks import RunLock

Body = Callable[["Process"], None]


class Process:
    """One pytest, which runs until it says that something has happened, or is over."""

    def __init__(self, name: str, body: Body) -> None:
        self.name = name
        self.ledgers: list[LedgerConnection] = []
        self.locks: list[RunLock] = []
        self.is_dead = False
        self.error: BaseException | None = None
        """What left its body: a fault of the code or of the simulation."""
        self._body = body
        self._greenlet = greenlet(self._run)

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended, by itself or by force."""
        return self.is_dead or self._greenlet.dead

    def go_on(self) -> None:
        """Let it run until its next pause, or to its end."""
        # Not who made it: that may be another process, and dead.
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def pause(self) -> None:
        """Let whoever lets it run go on; called from inside."""
        getcurrent().parent.switch()

    def kill(self) -> None:
        """Take from it all that it could leave a trace with; it must not go on any more."""
        self.is_dead = True
        for ledger in self.ledgers:
            ledger.cut_off()
        for lock in self.locks:
            lock.release()

    def bury(self) -> None:
        """Let go of its frames, once there is nothing left that they could do harm to."""
        with suppress(BaseException):
            self._greenlet.throw()

    def _run(self) -> None:
        try:
            self._body(self)
        except Exception as error:
            self.error = error


class LedgerConnection(sqlite3.Connection):
    """A connection of a process, whose commits are moments, before and after."""

    process: Process | None = None
    moment: Callable[[str], None] = staticmethod(lambda _kind: None)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # as the base class has it
        if sql == "PRAGMA synchronous = FULL":
            sql = "PRAGMA synchronous = OFF"  # it is thrown away in a moment
        if sql != "COMMIT":
            return super().execute(sql, *values)
        self.moment("commit")
        done = super().execute(sql, *values)
        self.moment("commit")
        return done

    def cut_off(self) -> None:
        """Close it: SQLite rolls back what is not committed."""
        with suppress(sqlite3.Error):
            self.close()


@contextmanager
def belongings(
    current: Callable[[], Process | None], moment: Callable[[str], None]
) -> Iterator[None]:
    """Give ledgers, locks and run threads that are made inside to the process that makes them."""
    connect = sqlite3.connect

    def connected(database: str | Path, **more: Any) -> sqlite3.Connection:
        more["timeout"] = 0.0  # who has to wait here would wait for ever
        made = connect(database, factory=LedgerConnection, **more)
        process = current()
        if process is not None:
            process.ledgers.append(made)
            made.moment = moment
        return made

    class OwnLock(RunLock):
        """A lock that its process has."""

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            process = current()
            if process is not None:
                process.locks.append(self)

    class SameThread:
        """A run's thread, which is the process itself: it does nothing else meanwhile."""

        def __init__(self, target: Callable[[], None], **_more: object) -> None:
            self.start = target

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sqlite3, "connect", connected))
        stack.enter_context(mock.patch.object(states, "RunLock", OwnLock))
        threads = SimpleNamespace(Thread=SameThread)
        stack.enter_context(mock.patch.object(running, "threading", threads))
        stack.enter_context(mock.patch.object(pressure, "threading", threads))
        yield
