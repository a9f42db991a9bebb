"""Handle the signals that end a session: Ctrl-C, and those that CI and a closed terminal send.

One object owns all of them. The first signal interrupts pytest where it is, whatever its number:
the run sends nothing more and waits for the jobs that run. From then on, and from the end of the
tests on, no signal breaks off what is being written: it only asks the runs to stop faster, and all
that is done there ends in bounded time. SIGTERM and SIGHUP end the session with the exit status by
which a shell reports them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias

import pytest

from pytest_manifest.console import begin_line, terminal_file

if TYPE_CHECKING:
    from types import FrameType

    from pytest_manifest.plugin.context import PluginContext
    from pytest_manifest.run import Run

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"
UNNOTICED: Final = 1.0
"""Seconds after which pytest must have noticed an interruption, unless other code swallowed it."""


class Interrupts:
    """Own the signals of one session. ``number``: the first signal that has come.

    ``runs``: those of the session so far; ``interrupt`` stops them for the user. Handlers are
    installed from :meth:`install` to :meth:`remove`, in the main thread of the process that
    dispatches, and only for signals that no other code handles or ignores.
    """

    def __init__(
        self, context: PluginContext, runs: Sequence[Run], interrupt: Callable[[], None]
    ) -> None:
        self._context = context
        self._config = context.config
        self._runs = runs
        self._interrupt = interrupt
        self._before: dict[signal.Signals, Handler] = {}
        self._raised_at: float | None = None
        self._is_noticed = False
        self._is_ending = False
        self._wake_up: int | None = None
        self._process = os.getpid()
        self.number: signal.Signals | None = None

    def install(self) -> None:
        """Install the handlers; do nothing where they are installed already."""
        if self._wake_up is not None or threading.current_thread() is not threading.main_thread():
            return
        reader, self._wake_up = os.pipe()
        os.set_blocking(self._wake_up, False)
        threading.Thread(
            target=self._listen, args=(reader,), name="manifest-signals", daemon=True
        ).start()
        for number in NUMBERS:
            before = signal.getsignal(number)
            if before in DEFAULTS:
                self._before[number] = before
                signal.signal(number, self.handle)

    def remove(self) -> None:
        """Restore the former handlers, and set the session's exit status for a signal that came.

        Where the process ends with the session, Ctrl-C is ignored from here on: only Python's own
        last steps are left, which it would turn into a traceback.
        """
        for number, before in self._before.items():
            if signal.getsignal(number) == self.handle:
                last = number == signal.SIGINT and self._context.owns_process
                signal.signal(number, signal.SIG_IGN if last else before)
        self._before.clear()
        self.report_status()
        wake_up, self._wake_up = self._wake_up, None
        if wake_up is not None:
            os.close(wake_up)

    def report_status(self) -> None:
        """Set pytest's exit status for the signal that has come, if any."""
        session = self._config.pluginmanager.getplugin("session")
        if self.number is None or session is None:
            return
        of_shell = 128 + self.number
        interrupted = self.number == signal.SIGINT
        session.exitstatus = pytest.ExitCode.INTERRUPTED if interrupted else of_shell

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Interrupt pytest, or have the runs stop faster where that cannot be any more.

        Takes no lock: the signal may have come while the main thread holds any of them.
        """
        if os.getpid() != self._process:  # a test's fork, which must end as without this handler
            signal.signal(number, self._before[signal.Signals(number)])
            os.kill(os.getpid(), number)
            return
        self.number = self.number or signal.Signals(number)
        if self._may_raise():
            self._raised_at = time.monotonic()
            raise KeyboardInterrupt
        if self._wake_up is not None:
            with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread has enough
                os.write(self._wake_up, b"!")

    def _may_raise(self) -> bool:
        if self._is_ending or self._is_noticed:
            return False
        return self._raised_at is None or time.monotonic() - self._raised_at > UNNOTICED

    def _listen(self, reader: int) -> None:
        """Stop the runs faster for each byte from a handler, in a thread, as a handler must not."""
        while os.read(reader, 64):
            for run in list(self._runs):
                run.force_stop()
        os.close(reader)

    def begin_end(self) -> None:
        """Interrupt nothing from here on: pytest's own reports would end with a traceback."""
        self._is_ending = True
        self._let_go_of_dead_terminal()

    def _let_go_of_dead_terminal(self) -> None:
        """Redirect a terminal that is gone to the null device.

        Each line written to it would raise an error and break off what is left to do.
        """
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if self.number == signal.SIGHUP and reporter is not None:
            _let_go(terminal_file(self._config))

    # pytest's hooks

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Begin the end when the test loop is over: pytest's, the plugin's or xdist's."""
        try:
            return (yield)
        finally:
            self.begin_end()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if not isinstance(excinfo.value, KeyboardInterrupt):
            return  # pytest.exit(), called by a test or a plugin
        self.notice()

    def notice(self) -> None:
        """Stop the runs, and say what happens to them; doing it again changes nothing."""
        if self._is_noticed:
            return
        self._is_noticed = True
        self._let_go_of_dead_terminal()
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        self._interrupt()
        going_on = [run for run in self._runs if not run.ended.is_set()]
        if going_on and reporter is not None and reporter.verbosity >= 0:
            begin_line(reporter)
            reporter.write_line(self._what_happens(), yellow=True)

    def _what_happens(self) -> str:
        what, again = "interrupted", "Ctrl-C"
        if self.number not in (None, signal.SIGINT):
            what, again = f"ended by {self.number.name}", "a signal"
        if any(run.revokes_on_stop for run in self._runs):
            return (
                f"{what}: nothing more is sent, what waits is taken back, and what runs is "
                f"waited for up to {self._context.options.grace:g} s; {again} again ends it at once"
            )
        return f"{what}: nothing more is sent; the workers go on with what they have"


def _let_go(written: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor is no terminal
        for descriptor in (1, 2, written.fileno()):
            if _is_dead(descriptor):
                os.dup2(null, descriptor)
    os.close(null)


def _is_dead(descriptor: int) -> bool:
    """Check whether the descriptor was a terminal that is gone (EIO; other files give ENOTTY)."""
    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False
