"""Own what a session has started, its runs and its stack, until it is stopped and put away.

Handle the signals that end a session: Ctrl-C, and those that CI and a closed terminal send.

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
import shutil
import signal
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pytest

from pytest_manifest.console import begin_line, terminal_file
from pytest_manifest.files import copy_privately
from pytest_manifest.plugin.context import PluginContext
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.redaction.texts import redact_url, registered_secrets

if TYPE_CHECKING:
    from types import FrameType

    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run.run import Run
    from pytest_manifest.run.settings import WorkerLoss
    from pytest_manifest.signing import Signer
    from pytest_manifest.stack.client import EmbeddedStack
    from pytest_manifest.stack.in_memory import MemoryStack


NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"
UNNOTICED: Final = 1.0
"""Seconds after which pytest must have noticed an interruption, unless other code swallowed it."""


@dataclass(eq=False)
class Interrupts:
    """Own the signals of one session. ``number``: the first signal that has come.

    ``runs``: those of the session so far; ``interrupt`` stops them for the user. Handlers are
    installed from :meth:`install` to :meth:`remove`, in the main thread of the process that
    dispatches, and only for signals that no other code handles or ignores.
    """

    _context: PluginContext
    _runs: Sequence[Run]
    _interrupt: Callable[[], None]

    def __post_init__(self) -> None:
        self._config = self._context.config
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
        now, raised_at = time.monotonic(), self._raised_at
        is_over = self._is_ending or self._is_noticed
        if not is_over and (raised_at is None or now - raised_at > UNNOTICED):
            self._raised_at = now
            raise KeyboardInterrupt
        if self._wake_up is not None:
            with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread has enough
                os.write(self._wake_up, b"!")

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
        if self.number != signal.SIGHUP or reporter is None:
            return
        null = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor is none
            for descriptor in (1, 2, terminal_file(self._config).fileno()):
                try:
                    termios.tcgetattr(descriptor)
                except termios.error as error:  # ENOTTY of other files
                    if error.args[0] == errno.EIO:
                        os.dup2(null, descriptor)
        os.close(null)

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
            what, again = "interrupted", "Ctrl-C"
            if self.number not in (None, signal.SIGINT):
                what, again = f"ended by {self.number.name}", "a signal"
            then = "; the workers go on with what they have"
            if any(run.strategy.revokes_on_stop for run in self._runs):
                then = (
                    ", what waits is taken back, and what runs is waited for up to "
                    f"{self._context.options.grace:g} s; {again} again ends it at once"
                )
            reporter.write_line(f"{what}: nothing more is sent{then}", yellow=True)
            reporter.flush()  # a log or a pipe would have it when all is over


_SHOWN: Final = {
    "private": "private stack",
    "memory": "stack in memory",
    "app": "the app's own broker {}",
    "running": "the stack that 'manifest stack up' keeps running, {}",
    "named": "broker {}",
    "none": "no stack",
}

StackKind = Literal["private", "app", "named", "running", "memory", "none"]
"""``named``: by an option, the file or the environment; ``running``: that of ``manifest stack``;
``none``: the session needs a stack that outlives it, and there is none."""


@dataclass(frozen=True, slots=True, repr=False)
class StackChoice:
    """The stack of a session's jobs; ``broker``: the URL with its password, "" where not known.

    ``reason``: in a phrase, why this one. ``source``: what named the broker, for error messages.
    """

    kind: StackKind
    reason: str
    broker: str = ""
    source: str = ""

    @property
    def words(self) -> str:
        """Return what the user is shown: the stack, and the reason in brackets."""
        return f"{_SHOWN[self.kind].format(redact_url(self.broker))} ({self.reason})"


WAIT: Final = 0.5
"""Seconds after which a waiting loop reads the ledgers although no run has woken it."""


class SessionRuns:
    """Keep the runs of a session and the stack that it started, and end them.

    ``runs``: those of this process, in the order of their manifests; none in an xdist worker.
    ``changed``: set when a run has recorded verdicts. ``dispatch_begun``: the plugin's own fixture
    ``dispatch`` was evaluated. ``interrupts``: the owner of the signals, where this process handles
    them. ``stack_data_is_old``: an earlier run has left the folder ``stack_data``.
    ``stack_choice``: where the jobs go, once that is decided; ``stack_shown``: the user knows it.
    ``own_key``: what the workers of its own stack sign with, where they are asked to.
    """

    def __init__(self, context: PluginContext, report: RunReport, manifests: ManifestStore) -> None:
        self.context = context
        self.manifests = manifests
        self.report = report
        self.runs = report.runs
        self.notices = report.notices
        self.changed = threading.Event()
        self.dispatch_begun = False
        self.interrupted = False
        self.interrupts: Interrupts | None = None
        self.stack_choice: StackChoice | None = None
        self.stack_shown = False
        self.stack: EmbeddedStack | None = None
        self.memory_stack: MemoryStack | None = None
        self.stack_data: Path | None = None
        self.own_key: Signer | None = None
        self.stack_data_is_old = False
        self._log_handlers: list[int] = []
        self._exported = False
        self._scratch: Path | None = None

    def add(self, run: Run) -> None:
        """Take a run over, and write its log beside its ledger until the session closes."""
        from pytest_manifest.log import add_run_log

        if secrets := registered_secrets():
            run.keep_secrets(secrets)
        run.on_verdicts(lambda _entries: self.changed.set())
        run.watch_stack(self._lost_workers, self._stack_failure)
        # As by Ctrl-C, which wakes the main thread wherever it waits.
        run.signals.end_session = partial(os.kill, os.getpid(), signal.SIGINT)
        try:
            form = self.context.options.log_format
            self._log_handlers.append(add_run_log(run.files.log, format=form))
        except OSError as error:
            run.warnings.append(f"{run.files.log}: the run has no log ({error.strerror})")
        self.runs.append(run)

    def _lost_workers(self) -> Sequence[WorkerLoss]:
        from pytest_manifest.run.settings import WorkerLoss

        exits = [] if self.stack is None else self.stack.exits
        return [WorkerLoss(e.name, e.returncode, tuple(e.tail)) for e in exits]

    def _stack_failure(self) -> str | None:
        stack = self.stack or self.memory_stack
        return None if stack is None else stack.failure

    def forget_runs(self) -> None:
        """Forget all runs and their logs: they were refused, so there is nothing to report."""
        self.runs.clear()
        self._remove_logs()

    def ledgers(self) -> Mapping[Path, Path]:
        """Return the ledger of each run, by its manifest."""
        return {run.manifest.path.resolve(): run.ledger_path for run in self.runs}

    def all_ended(self) -> bool:
        """Return whether no run will record a further verdict."""
        return all(run.ended.is_set() for run in self.runs)

    def awaits_repeats(self) -> bool:
        """Return whether a run goes on for entries whose tests have run, and that an operator has
        sent again."""
        return any(run.signals.repeats and not run.ended.is_set() for run in self.runs)

    def await_repeats(self) -> None:
        """Wait for the verdicts of what an operator has sent again: its tests have run."""
        while self.awaits_repeats():
            self.wait_for_change()

    def wait_for_change(self) -> None:
        """Wait for new verdicts, or for the time to show the run's progress again."""
        if self.changed.wait(min(WAIT, self.report.poll())):
            self.report.poll()
        self.changed.clear()

    def scratch_folder(self) -> Path:
        """Return a folder for ledgers that :meth:`release` removes."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="manifest-audit-"))
        return self._scratch

    # The end

    def take_signals(self) -> None:
        """Handle the signals that end the session from here on; do nothing in an xdist worker."""

        if self.interrupts is None and self.context.role != "worker":
            self.interrupts = Interrupts(self.context, self.runs, self.interrupt)
            self.context.config.pluginmanager.register(self.interrupts)
            self.interrupts.install()

    def interrupt(self) -> None:
        """Stop the runs because the user wants the session to end.

        They send nothing more, and wait a while for the jobs that run.
        """
        self.interrupted = True
        self.begin_stop()

    def begin_stop(self) -> None:
        """Tell the runs that still go on to stop, without waiting for them."""
        for run in self.runs:
            run.begin_stop(interrupted=self.interrupted)

    def stop_everything(self) -> None:
        """Stop runs and stack, and export the receipts; safe to call more than once."""
        self.begin_stop()
        for run in self.runs:
            run.stop()
        if not self._exported:
            self._exported = True
            self._export_artifacts()
        self.stop()

    def stop(self) -> None:
        """Stop runs and stack, whatever happened before."""
        for run in self.runs:
            run.stop()
        if self.stack is not None:
            self.stack.stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None:
            self.memory_stack.stop()

    def release(self) -> None:
        """Compact the ledgers, close the logs and remove the scratch folder."""
        for run in self.runs:
            run.compact_ledger()
        self._remove_logs()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _export_artifacts(self) -> None:
        """Keep the workers' logs, and export the receipts while the stack is coming down."""
        first, unfinished = next(iter(self.runs), None), Counter[str]()
        if self.stack is not None:
            from pytest_manifest.ledger.files import WORKER_LOGS
            from pytest_manifest.stack.queues import unfinished_children

            folder, address = self.stack.directory, self.stack.address
            if first is not None and folder is not None:  # which the stack removes
                with self.report.writing("the workers' logs were not kept", first):
                    for log in sorted(folder.glob(WORKER_LOGS)):
                        copy_privately(log, first.files.worker_log(log.name))
            if first is not None and address is not None and not self._leaves_jobs:
                unfinished = unfinished_children(address.broker_url)
            self.stack.begin_stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None:
            unfinished = self.memory_stack.children_left()
        if first is not None and unfinished:
            from pytest_manifest.stack.queues import unfinished_message

            stack = "private stack" if self.stack is not None else "in-memory stack"
            first.warnings.append(unfinished_message(unfinished, stack))
        for run in self.runs:
            if run.ledger_path.parent == self.context.options.ledgers:
                if secrets := registered_secrets():
                    run.keep_secrets(secrets)
                with self.report.writing("the receipts were not exported", run):
                    run.export_receipts()

    @property
    def _leaves_jobs(self) -> bool:
        """Return whether a run may still need what the broker holds."""
        if not self.runs:
            return self.stack_data_is_old
        return any(run.state.leaves_jobs for run in self.runs)

    def _remove_logs(self) -> None:
        while self._log_handlers:
            from loguru import logger

            # ValueError: the project's own code may have removed all handlers.
            with contextlib.suppress(ValueError):
                logger.remove(self._log_handlers.pop())
