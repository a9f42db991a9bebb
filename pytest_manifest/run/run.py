"""Follow a run: prepare it, start its thread, stop it, read what it has written.

It knows nothing of pytest. What a run does is its strategy: see ``dispatch``, ``resume`` and
``audit``, which make runs; how it does it in its thread: see ``engine``.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loguru import logger

from pytest_manifest.errors import DispatchError, LedgerError, ManifestToolError
from pytest_manifest.ledger import OVER_BUDGET, SECRETS, Ledger
from pytest_manifest.log import log_failure
from pytest_manifest.manifest.writer import write_receipt_lines
from pytest_manifest.redaction.texts import redact
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.casebook import Correction
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.exports import exported_lines
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.run.send_queue import names_of
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.run.strategy import Strategy
from pytest_manifest.schema import Receipt
from pytest_manifest.verdict.problems import RunGaveUp

JOIN_SECONDS = 30.0


class Run:
    """Hold one run's thread, its signals and its end. First :meth:`prepare`, then :meth:`start`."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.state, self.signals = strategy, strategy.state, strategy.state.signals
        state = strategy.state
        self.manifest = state.manifest
        self.files, self.ledger_path = state.files, state.files.ledger
        self.info = state.info
        self.address = state.address
        self.notices = state.notices
        self.live_warnings = state.live_warnings
        self.warnings = state.warnings
        self.error: ManifestToolError | None = None
        self.corrections: Sequence[Correction] = ()
        """Verdicts that were changed after they had been reported."""
        self.all_sent = state.signals.all_sent
        self.ended = state.signals.ended
        self._thread: threading.Thread | None = None

    @property
    def to_send(self) -> Sequence[str]:
        """Return the ids of the entries that are to be sent, once it is prepared."""
        return [entry for _, entry in names_of(self.state.to_send)]

    # Before it starts

    def on_verdicts(self, listener: Callable[[Sequence[str]], None]) -> None:
        """Call ``listener`` from the run's thread with the entries that have just got a verdict."""
        self.signals.on_verdicts = listener

    def watch_stack(
        self, losses: Callable[[], Sequence[WorkerLoss]], failure: Callable[[], str | None]
    ) -> None:
        """Set the sources of news about our own stack: workers that died, and its own end."""
        self.signals.lost_workers = losses
        self.signals.stack_failure = failure

    def watch_health(self, ask: Callable[[], object] | None) -> None:
        """Set who says whether sending may go on; see ``run.pressure.Health``."""
        self.signals.health = ask

    def prepare(self, *, expected_workers: int | None = None) -> None:
        """Query the stack for what it can do; send nothing, and decide nothing.

        Raises DispatchError or StackError where nothing should be sent; then all is as it was.
        """
        try:
            self.strategy.prepare(expected_workers)
        except BaseException:
            self.abandon()
            raise

    def take_effect(self) -> None:
        """Let what was prepared count, now that no other run of the session is refused.

        Between :meth:`prepare` and :meth:`start`; raises LedgerError where it cannot be written.
        """
        self.strategy.take_effect()

    def abandon(self) -> None:
        """Undo what was prepared, as the run will not be started."""
        self.strategy.abandon()

    # Its thread

    def start(self) -> None:
        """Begin, in a thread, what has been prepared; without a stack, finish it here and now."""
        if not self.strategy.queries_stack:
            self.strategy.finish_offline()
            self.signals.end()
            self.state.lock.release()
            return
        self.state.leaves_jobs = self.strategy.sends and self.state.address.is_private
        name = f"manifest-run-{self.info.run}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def begin_stop(self, *, interrupted: bool = False) -> None:
        """Send no more, and end; does not wait.

        What has been sent is taken back or left to the workers, as the settings say. Where a person
        ``interrupted``, jobs that run are waited for, as long as the settings say.
        """
        if interrupted:
            self.signals.interrupted.set()
        self.state.wait_budget.end_at(time.monotonic())
        self.signals.stop.set()

    def force_stop(self) -> None:
        """Stop at once, and wait for nothing that runs."""
        self.state.wait_budget.expire()
        self.signals.force_stop.set()
        self.signals.stop.set()

    def stop(self) -> None:
        """Stop the run as :meth:`begin_stop` does, and wait for its thread to end."""
        self.begin_stop()
        if self._thread is not None:
            # Not join(): where Ctrl-C interrupts it, CPython 3.11 takes the thread for ended.
            ended = self.ended.wait(JOIN_SECONDS + self.state.settings.grace)
            self._thread = None
            if not ended:
                self.warnings.append(
                    f"run {self.info.run} did not end within {JOIN_SECONDS:g} s; its ledger may "
                    "lack the last reports"
                )

    def _main(self) -> None:
        """Run the thread's body; however it ends, notify whoever waits for the run."""
        connections = self.strategy.connections
        try:
            with contextlib.ExitStack() as open_parts:
                open_parts.callback(self.state.lock.release)
                open_parts.callback(connections.close)
                ledger = open_parts.enter_context(Ledger.open(self.files.ledger, write=True))
                position = ledger.info.get_meta("stream_position") or "0"
                collector = connections.open_collector(position)
                open_parts.enter_context(contextlib.closing(collector))
                self._run_engine(ledger, collector)
        except ManifestToolError as error:
            self.error = self.error or error
        except Exception as error:  # a thread has no caller: the run itself must carry its fault
            fault = self._log_fault("the run's thread failed", error)
            self.error = self.error or fault
        finally:
            self.signals.end()

    def _run_engine(self, ledger: Ledger, collector: ReceiptCollector) -> None:
        engine = self.strategy.make_engine(ledger, collector)
        self.corrections = engine.corrections
        try:
            self.strategy.work(engine, ledger)
            collector.trim()
        except ManifestToolError as error:
            self._give_up(engine, ledger, error)
        except Exception as error:  # as above; here the entries can still be given a verdict
            fault = self._log_fault("the run failed", error)
            self._give_up(engine, ledger, fault)

    def _log_fault(self, what: str, error: Exception) -> DispatchError:
        """Log a fault of this package's, and return the error to stop with."""
        log_failure(f"{what}, its traceback is in {self.files.log}", error, run=self.info.run)
        return DispatchError(f"the run stopped on an internal error: {redact(repr(error))}")

    def _give_up(self, engine: Engine, ledger: Ledger, error: ManifestToolError) -> None:
        self.error = error
        logger.bind(run=self.info.run).error("{}", error)
        # What was only sent has workers, and an audit will judge it.
        if not self.state.settings.send_only:
            with self._failure_logged("not all verdicts were written"):
                engine.record_rest(RunGaveUp(error=str(error)))
        with self._failure_logged("the run's end was not written"):
            self.strategy.end_unrevoked(ledger)

    @contextlib.contextmanager
    def _failure_logged(self, what: str) -> Iterator[None]:
        """Record the failure of one of the last steps, and let it stop no other."""
        try:
            yield
        except ManifestToolError as error:
            logger.bind(run=self.info.run).error("{}: {}", what, error)
            self.warnings.append(f"{what}: {error}")

    # What it has written

    def read(self) -> Ledger:
        """Open the ledger for reading, in the calling thread."""
        return Ledger.open(self.files.ledger)

    def receipts(self) -> Iterator[Receipt]:
        """Yield the receipts on which verdicts rest, one in memory, in the manifest's order."""
        with self.read() as ledger:
            for found in ledger.queries.all_verdicts():
                if found.receipt is not None:
                    yield found.receipt

    def set_meta(self, key: str, value: str) -> None:
        """Record a value about the run in its ledger, before it starts."""
        with self.strategy.writing() as ledger:
            ledger.info.set_meta(key, value)

    def keep_secrets(self, secrets: Sequence[str]) -> None:
        """Keep registered values in the ledger, for other processes that show something of the run.

        It is for its owner's eyes, and holds what they were used for anyway.
        """
        if not self._is_unwritable:
            with contextlib.suppress(LedgerError):  # then only this session hides them
                self.set_meta(SECRETS, json.dumps(secrets))

    def in_flight(self) -> list[PendingAttempt]:
        """Return what has been sent and has no final receipt; call it from any thread."""
        # Made in one step, whatever else goes on.
        return list(self.state.pending.by_task_id.values())

    def is_over_budget(self) -> bool:
        """Return whether the run is incomplete for want of budget."""
        with contextlib.suppress(LedgerError), self.read() as ledger:
            return bool(ledger.info.get_meta(OVER_BUDGET))
        return False

    def export_receipts(self) -> Path:
        """Write the receipts beside the ledger, and return their file's path."""
        with self.read() as ledger:
            write_receipt_lines(self.files.receipts, exported_lines(ledger))
        return self.files.receipts

    @property
    def _is_unwritable(self) -> bool:
        """Return whether the run ended as its ledger failed: what holds it may hold it yet."""
        return isinstance(self.error, LedgerError)

    def compact_ledger(self) -> None:
        """Leave the ledger as one file, once nobody of this session reads it any more."""
        if self.ended.is_set() and not self._is_unwritable:
            # Where that cannot be done, the ledger is as good as it was before.
            with (
                contextlib.suppress(LedgerError),
                Ledger.open(self.files.ledger, write=True) as ledger,
            ):
                ledger.compact()
