"""Signals that end a session: Ctrl-C, and what CI and a closed terminal send.

One owner of all of them. The first one interrupts pytest where it is, whatever its name: nothing
more is sent, and what runs is waited for. From then on, and from the end of the tests on, nothing
breaks off what is being written: another signal is a wish for haste, and all that is done there
ends in bounded time. SIGTERM and SIGHUP end with the status by which a shell tells of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias

import pytest

from pytest_manifest.console import begin_line, terminal_file

if TYPE_CHECKING:
    from types import FrameType

    from pytest_manifest.plugin.session import ManifestSession

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"
UNNOTICED: Final = 1.0
"""Seconds in which pytest has noticed an interruption, unless something on its way swallowed it."""


class Interrupts:
    """The owner, a plugin of one session. ``number``: the first signal that has come.

    Handlers are there from :meth:`install` to :meth:`remove`, in the main thread of the process
    that dispatches, and only for signals that nobody else has a handler for, or ignores.
    """

    def __init__(self, config: pytest.Config, state: ManifestSession) -> None:
        self._config = config
        self._state = state
        self._before: dict[signal.Signals, Handler] = {}
        self._raised_at: float | None = None
        self._is_noticed = False
        self._is_ending = False
        self._hurry: int | None = None
        self._process = os.getpid()
        self.number: signal.Signals | None = None

    def install(self) -> None:
        """Take the signals over; again does no harm."""
        if self._hurry is not None or threading.current_thread() is not threading.main_thread():
            return
        reader, self._hurry = os.pipe()
        os.set_blocking(self._hurry, False)
        threading.Thread(
            target=self._listen, args=(reader,), name="manifest-hurry", daemon=True
        ).start()
        for number in NUMBERS:
            before = signal.getsignal(number)
            if before in DEFAULTS:
                self._before[number] = before
                signal.signal(number, self.handle)

    def remove(self) -> None:
        """Give the signals back, and have the session's status tell of what came.

        Where the process ends with the session there are only Python's own last steps left, which
        Ctrl-C would turn into a traceback.
        """
        for number, before in self._before.items():
            if signal.getsignal(number) == self.handle:
                last = number == signal.SIGINT and self._state.owns_process
                signal.signal(number, signal.SIG_IGN if last else before)
        self._before.clear()
        self.report_status()
        hurry, self._hurry = self._hurry, None
        if hurry is not None:
            os.close(hurry)

    def report_status(self) -> None:
        """What pytest shall end with, once a signal has come."""
        session = self._config.pluginmanager.getplugin("session")
        if self.number is None or session is None:
            return
        of_shell = 128 + self.number
        interrupted = self.number == signal.SIGINT
        session.exitstatus = pytest.ExitCode.INTERRUPTED if interrupted else of_shell

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Takes no lock: the main thread may have been interrupted with any of them."""
        if os.getpid() != self._process:  # a fork of a test's, which is to end as any other does
            signal.signal(number, self._before[signal.Signals(number)])
            os.kill(os.getpid(), number)
            return
        self.number = self.number or signal.Signals(number)
        if self._may_raise():
            self._raised_at = time.monotonic()
            raise KeyboardInterrupt
        if self._hurry is not None:
            with contextlib.suppress(BlockingIOError):  # it has been told often enough
                os.write(self._hurry, b"!")

    def _may_raise(self) -> bool:
        if self._is_ending or self._is_noticed:
            return False
        return self._raised_at is None or time.monotonic() - self._raised_at > UNNOTICED

    def _listen(self, reader: int) -> None:
        """Elsewhere than in the main thread, for what a handler must not do."""
        while os.read(reader, 64):
            for run in list(self._state.runs):
                run.force_stop()
        os.close(reader)

    def begin_end(self) -> None:
        """From here on nothing is broken off: pytest's own reports would end with a traceback."""
        self._is_ending = True
        self._let_go_of_dead_terminal()

    def _let_go_of_dead_terminal(self) -> None:
        """Where the terminal is gone each line would be an error, and break off what is left."""
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if self.number == signal.SIGHUP and reporter is not None:
            _let_go(terminal_file(self._config))

    # pytest's hooks

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Around pytest's loop, ours and xdist's."""
        try:
            return (yield)
        finally:
            self.begin_end()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if not isinstance(excinfo.value, KeyboardInterrupt):
            return  # pytest.exit(): somebody's code wants it over
        self._is_noticed = True
        self._let_go_of_dead_terminal()
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        self._state.interrupt()
        going_on = [run for run in self._state.runs if not run.ended.is_set()]
        if going_on and reporter is not None and reporter.verbosity >= 0:
            begin_line(reporter)
            reporter.write_line(self._what_happens(), yellow=True)

    def _what_happens(self) -> str:
        what, again = "interrupted", "Ctrl-C"
        if self.number not in (None, signal.SIGINT):
            what, again = f"ended by {self.number.name}", "a signal"
        if any(run.revokes_on_stop for run in self._state.runs):
            return (
                f"{what}: nothing more is sent, what waits is taken back, and what runs is "
                f"waited for up to {self._state.options.grace:g} s; {again} again ends it at once"
            )
        return f"{what}: nothing more is sent; the workers go on with what they have"


def _let_go(written: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # what has no descriptor is no terminal
        for descriptor in (1, 2, written.fileno()):
            if _is_dead(descriptor):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_dead(descriptor: int) -> bool:
    """Whether this was a terminal; of other files it is said that they are none."""
    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False


def take_signals(config: pytest.Config, state: ManifestSession) -> None:
    """Make the owner, where there is none yet and the process is the one that dispatches."""
    if state.interrupts is None and state.role != "worker":
        state.interrupts = Interrupts(config, state)
        config.pluginmanager.register(state.interrupts)
        state.interrupts.install()
