"""Own what a session has started, its runs and its stack, until it is stopped and put away."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_manifest.files import copy_privately
from pytest_manifest.plugin.context import PluginContext
from pytest_manifest.redaction import registered_secrets

if TYPE_CHECKING:
    from pytest_manifest.plugin.interrupts import Interrupts
    from pytest_manifest.plugin.stack_choice import StackChoice
    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run import Run, WorkerLoss
    from pytest_manifest.signing.keys import Signer
    from pytest_manifest.stack.embedded import EmbeddedStack
    from pytest_manifest.stack.in_memory import MemoryStack


class SessionRuns:
    """Keep the runs of a session and the stack that it started, and end them.

    ``runs``: those of this process, in the order of their manifests; none in an xdist worker.
    ``changed``: set when a run has recorded verdicts. ``dispatch_begun``: the plugin's own fixture
    ``dispatch`` was evaluated. ``interrupts``: the owner of the signals, where this process handles
    them. ``stack_data_is_old``: an earlier run has left the folder ``stack_data``.
    ``stack_choice``: where the jobs go, once that is decided; ``stack_shown``: the user knows it.
    ``own_key``: what the workers of its own stack sign with, where they are asked to.
    """

    def __init__(self, context: PluginContext, report: RunReport) -> None:
        self.context = context
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
        form: Literal["text", "json"] = (
            "json" if self.context.options.log_format == "json" else "text"
        )
        try:
            self._log_handlers.append(add_run_log(run.files.log, format=form))
        except OSError as error:
            run.warnings.append(f"{run.files.log}: the run has no log ({error.strerror})")
        self.runs.append(run)

    def _lost_workers(self) -> Sequence[WorkerLoss]:
        from pytest_manifest.run import WorkerLoss

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

    def scratch_folder(self) -> Path:
        """Return a folder for ledgers that :meth:`release` removes."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="manifest-audit-"))
        return self._scratch

    # The end

    def take_signals(self) -> None:
        """Handle the signals that end the session from here on; do nothing in an xdist worker."""
        from pytest_manifest.plugin.interrupts import Interrupts

        if self.interrupts is None and self.context.role != "worker":
            self.interrupts = Interrupts(self.context, self.runs, self.interrupt)
            self.context.config.pluginmanager.register(self.interrupts)
            self.interrupts.install()

    def interrupt(self) -> None:
        """Stop the runs because the user wants the session to end.

        They send nothing more, and wait a while for the jobs that run.
        """
        self.interrupted = True
        for run in self.runs:
            run.begin_stop(interrupted=True)

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
        self._stop_stacks()

    def stop(self) -> None:
        """Stop runs and stack, whatever happened before; do nothing in an xdist worker."""
        if self.context.role != "worker":
            for run in self.runs:
                run.stop()
            self._stop_stacks()

    def release(self) -> None:
        """Compact the ledgers, close the logs and remove the scratch folder."""
        for run in self.runs:
            run.compact_ledger()
        self._remove_logs()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _export_artifacts(self) -> None:
        """Keep the workers' logs, and export the receipts while the stack is coming down."""
        if self.stack is not None:
            if self.runs:
                with self.report.writing("the workers' logs were not kept", self.runs[0]):
                    _keep_worker_logs(self.stack, self.runs[0])
                if not self._leaves_jobs:
                    _warn_of_children(self.stack, self.runs[0])
            self.stack.begin_stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None and self.runs:
            _warn_of(self.memory_stack.children_left(), self.runs[0], "in-memory stack")
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
        return any(run.leaves_jobs for run in self.runs)

    def _stop_stacks(self) -> None:
        if self.stack is not None:
            self.stack.stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None:
            self.memory_stack.stop()

    def _remove_logs(self) -> None:
        while self._log_handlers:
            from loguru import logger

            # ValueError: the project's own code may have removed all handlers.
            with contextlib.suppress(ValueError):
                logger.remove(self._log_handlers.pop())


def _keep_worker_logs(stack: EmbeddedStack, run: Run) -> None:
    """Copy the workers' logs beside the run's ledger, as the stack removes its folder."""
    from pytest_manifest.ledger.run_files import WORKER_LOGS

    for log in sorted(stack.directory.glob(WORKER_LOGS)) if stack.directory else ():
        copy_privately(log, run.files.worker_log(log.name))


def _warn_of_children(stack: EmbeddedStack, run: Run) -> None:
    """Add to the run's warnings the child jobs that end with its private stack, unfinished."""
    if stack.address is not None:
        from pytest_manifest.stack.queues import unfinished_children

        _warn_of(unfinished_children(stack.address.broker_url), run, "private stack")


def _warn_of(children: Counter[str], run: Run, stack: str) -> None:
    """Add a warning of the jobs that jobs have sent and that no job has waited for."""
    if children:
        from pytest_manifest.stack.queues import unfinished_message

        run.warnings.append(unfinished_message(children, stack))
