"""Make, start, stop and read a run.

It works in a thread of its own (see ``engine``) and knows nothing of pytest. ``Run`` is dispatched;
``audit`` and ``resume`` judge or resume an earlier run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Self

from loguru import logger

from pytest_manifest.broker.attempt import Attempt, new_run_id
from pytest_manifest.broker.bounded import BoundedCaller, WaitBudget
from pytest_manifest.broker.demand import demand_of
from pytest_manifest.broker.locating import Locator, open_locator, queues_of
from pytest_manifest.broker.preflight import preflight
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.errors import DispatchError, LedgerError, ManifestToolError
from pytest_manifest.ledger import (
    BUDGET,
    GAVE_UP,
    OVER_BUDGET,
    SHARD,
    STOCK_WORKERS,
    Ledger,
    RunInfo,
    next_run_number,
    utc_now,
)
from pytest_manifest.log import redact_url
from pytest_manifest.manifest import Manifest, Shard, receipt_line, write_receipt_lines
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.read_errors import ReadErrors
from pytest_manifest.results.stream import StreamReader, has_stream, open_client_at
from pytest_manifest.run.budget import Budget, without_estimate
from pytest_manifest.run.changes import files_of, keep_manifest
from pytest_manifest.run.context import EngineContext
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.evaluation import AttemptEvaluator, Correction, Evaluated
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.pending import PendingAttempt, PendingAttempts
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.send_queue import FirstAttempts, is_withheld
from pytest_manifest.run.settings import RunSettings, Signals, WorkerLoss
from pytest_manifest.run.task_metadata import OwnLimits, record_code, record_own_limits
from pytest_manifest.run.workers import record_known_workers, record_unknown_workers
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.verdict import evaluate

TTL_MARGIN = 24 * 3600
"""Seconds that receipts outlive the run's deadline, so that a late audit finds them."""
JOIN_SECONDS = 30.0
RECEIPTS_EXPORTED = "receipts_exported"
"""The ledger's key for what was exported last, and how its file looked then."""
NO_WORKER = "no worker that answered"


class Run:
    """Dispatch a manifest. Make one with :meth:`dispatch`, then :meth:`prepare` and :meth:`start`
    it."""

    sends = True

    def __init__(
        self,
        manifest: Manifest,
        ledger_path: Path,
        info: RunInfo,
        address: StackAddress,
        settings: RunSettings,
    ) -> None:
        self.manifest = manifest
        self.ledger_path = ledger_path
        self.info = info
        self.address = address
        self.settings = settings
        self.error: ManifestToolError | None = None
        self.notices: list[str] = []
        """Messages to be shown before the first test."""
        self.live_warnings: list[str] = []
        """Messages to be shown at once, while the run is going on."""
        self.warnings: list[str] = []
        """Messages for the summary."""
        self.corrections: Sequence[Correction] = ()
        """Verdicts that were changed after they had been reported."""
        self.leaves_jobs = False
        """Whether a stack of ours may still hold jobs for a resume to take up: from the start until
        an end in good order shows that it does not, however much goes wrong between."""
        self.workers: int | None = None
        self._slots = 0
        self._signals = Signals()
        self._to_send: Sequence[Attempt] = []
        self._costs: dict[str, Decimal] = {}
        """What attempts of an earlier part of the run have cost, by task id."""
        self._pending = PendingAttempts()
        self._nodes: set[str] = set()
        self._added_queues: list[str] = []
        self._queues: list[str] = []
        self._patience = WaitBudget()
        self._publisher: Publisher | None = None
        self._locator: Locator | None = None
        self._keeps_stream = False
        """Whether receipts are left in their stream: another ledger is to have them, too."""
        self._lock = RunLock(ledger_path.with_suffix(".lock"))
        self._thread: threading.Thread | None = None

    # Making one

    @classmethod
    def dispatch(
        cls,
        manifest: Manifest,
        selected: Sequence[str],
        address: StackAddress,
        settings: RunSettings,
        *,
        shard: Shard | None = None,
    ) -> Self:
        """Make a new run of the selected entries, all of the ``shard`` where one is named.

        Its ledger exists on return; nothing is sent.
        """
        run_id = new_run_id()
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = RunInfo(
            run=run_id,
            manifest=manifest.path.resolve(),
            sha256=manifest.sha256,
            workflow=manifest.header.workflow,
            mode=manifest.header.mode,
            entries=len(selected),
            created_at=utc_now(),
            broker=redact_url(address.broker_url),
            backend=redact_url(address.backend_url),
            is_private=address.is_private,
            stream_ttl=int(settings.deadline) + TTL_MARGIN,
            number=next_run_number(settings.folder),
        )
        run = cls(manifest, settings.folder / f"{run_id}.sqlite", info, address, settings)
        run._to_send, positions = _first_attempts(
            run_id, manifest, selected, on_disk=settings.low_memory
        )
        try:
            run._plan_all(positions, shard)
        except BaseException:
            run.abandon()
            raise
        return run

    def _plan_all(self, positions: Sequence[int], shard: Shard | None) -> None:
        """Make the ledger; ``positions`` of the entries in the manifest."""
        self._lock.acquire(self.info.run)
        self._lock.inscribe(str(self.info.number))
        keep_manifest(self.manifest, self.ledger_path)
        with Ledger.create(self.ledger_path, self.info) as ledger, ledger.transaction():
            ledger.begin_segment(self.info.created_at)
            rows = zip(_names(self._to_send), positions, strict=True)
            ledger.plan((task_id, entry, 1, place) for (task_id, entry), place in rows)
            if shard is not None:
                ledger.set_meta(SHARD, str(shard))
            self._record_budget(ledger)

    def _record_budget(self, ledger: Ledger) -> None:
        budget = self.settings.budget
        ledger.set_meta(BUDGET, "" if budget is None else str(budget))
        ledger.set_meta(OVER_BUDGET, "")

    # Its life

    def on_verdicts(self, listener: Callable[[Sequence[str]], None]) -> None:
        """Call ``listener`` from the run's thread with the entries that have just got a verdict."""
        self._signals.on_verdicts = listener

    def watch_stack(
        self, losses: Callable[[], Sequence[WorkerLoss]], failure: Callable[[], str | None]
    ) -> None:
        """Set the sources of news about our own stack: workers that died, and its own end."""
        self._signals.lost_workers = losses
        self._signals.stack_failure = failure

    @property
    def all_sent(self) -> threading.Event:
        return self._signals.all_sent

    @property
    def ended(self) -> threading.Event:
        return self._signals.ended

    @property
    def receipts_path(self) -> Path:
        return self.ledger_path.with_suffix(".receipts.jsonl")

    @property
    def log_path(self) -> Path:
        return self.ledger_path.with_suffix(".log")

    def prepare(self, *, expected_workers: int | None = None) -> None:
        """Query the stack for what it can do; send nothing, and decide nothing.

        Raises DispatchError or StackError where nothing should be sent; then all is as it was.
        """
        try:
            self._prepare(expected_workers)
        except BaseException:
            self.abandon()
            raise

    def _prepare(self, expected_workers: int | None) -> None:
        publisher = self._open_publisher()
        self._preflight(publisher, self._to_send, expected_workers)
        self._open_locator(publisher, ())
        with contextlib.closing(self._open_collector("0")) as collector:
            collector.begin(self.info.stream_ttl)

    def take_effect(self) -> None:
        """Let what was prepared count, now that no other run of the session is refused.

        Between :meth:`prepare` and :meth:`start`; raises LedgerError where it cannot be written.
        """

    def abandon(self) -> None:
        """Delete a run that will not be started, so that no later session finds it."""
        self._close_publisher()
        for path in files_of(self.ledger_path):
            path.unlink(missing_ok=True)
        self._lock.release()

    def set_meta(self, key: str, value: str) -> None:
        """Record a value about the run in its ledger."""
        with self._writing() as ledger:
            ledger.set_meta(key, value)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Ledger]:
        """Open the ledger for writing before the run has its thread."""
        with Ledger.open(self.ledger_path, write=True) as ledger:
            yield ledger

    def start(self) -> None:
        """Begin, in a thread, what has been prepared."""
        self.leaves_jobs = self.sends and self.address.is_private
        name = f"manifest-run-{self.info.run}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def begin_stop(self, *, interrupted: bool = False) -> None:
        """Send no more, and end; does not wait.

        What has been sent is taken back or left to the workers, as the settings say. Where a person
        ``interrupted``, jobs that run are waited for, as long as the settings say.
        """
        if interrupted:
            self._signals.interrupted.set()
        self._patience.end_at(time.monotonic())
        self._signals.stop.set()

    def force_stop(self) -> None:
        """Stop at once, and wait for nothing that runs."""
        self._patience.expire()
        self._signals.force_stop.set()
        self._signals.stop.set()

    def stop(self) -> None:
        """Stop the run as :meth:`begin_stop` does, and wait for its thread to end."""
        self.begin_stop()
        if self._thread is not None:
            # Not join(): where Ctrl-C interrupts it, CPython 3.11 takes the thread for ended.
            ended = self._signals.ended.wait(JOIN_SECONDS + self.settings.grace)
            self._thread = None
            if not ended:
                self.warnings.append(
                    f"run {self.info.run} did not end within {JOIN_SECONDS:g} s; its ledger may "
                    "lack what came last"
                )

    def compact_ledger(self) -> None:
        """Leave the ledger as one file, once nobody of this session reads it any more."""
        if self.ended.is_set():
            # Where that cannot be done, the ledger is as good as it was before.
            with (
                contextlib.suppress(LedgerError),
                Ledger.open(self.ledger_path, write=True) as ledger,
            ):
                ledger.compact()

    def in_flight(self) -> list[PendingAttempt]:
        """Return what has been sent and has no final receipt; call it from any thread."""
        return list(self._pending.by_task_id.values())  # made in one step, whatever else goes on

    def read(self) -> Ledger:
        """Open the ledger for reading, in the calling thread."""
        return Ledger.open(self.ledger_path)

    def is_over_budget(self) -> bool:
        """Return whether the run is incomplete for want of budget."""
        with contextlib.suppress(LedgerError), self.read() as ledger:
            return bool(ledger.get_meta(OVER_BUDGET))
        return False

    def export_receipts(self) -> Path:
        """Write the receipts beside the ledger, and return their file's path.

        A file that was exported earlier, and would be the same, is left as it is.
        """
        with self.read() as ledger:
            mark, known = ledger.verdicts_version(), ledger.get_meta(RECEIPTS_EXPORTED)
            if known == f"{mark} {_stamp(self.receipts_path)}":
                return self.receipts_path
            lines = map(receipt_line, ledger.raw_receipts())
            write_receipt_lines(self.receipts_path, lines)
        self.receipts_path.chmod(0o600)
        with contextlib.suppress(LedgerError):  # what is not noted is exported again
            self.set_meta(RECEIPTS_EXPORTED, f"{mark} {_stamp(self.receipts_path)}")
        return self.receipts_path

    # Before the first message

    def _open_publisher(self) -> Publisher:
        key = stream_key(self.info.run)
        self._publisher = Publisher(
            self.address, stream=key, ttl=self.info.stream_ttl, budget=self._patience
        )
        return self._publisher

    def _close_publisher(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()

    def _preflight(
        self, publisher: Publisher, attempts: Sequence[Attempt], expected_workers: int | None
    ) -> None:
        entries = (attempt.entry for attempt in attempts)
        demand = demand_of(entries, own_limit=publisher.own_limit)
        found = preflight(publisher, demand, expected_workers=expected_workers)
        self.notices += found.warnings + found.notices
        unforeseen = None
        if self.settings.budget is not None:
            unforeseen = without_estimate(attempt.entry for attempt in attempts)
        self.notices += [unforeseen] if unforeseen else []
        self.workers = len(found.workers) if found.answered else None
        self._slots = found.slots
        self._nodes = set(found.workers)
        self._added_queues = found.added_queues
        self._queues = found.queues
        if found.refusals:
            raise DispatchError("nothing was sent: " + " ".join(found.refusals))
        if found.unknown_tasks:
            hints = {name: _did_you_mean(near) for name, near in found.unknown_tasks.items()}
            if self.settings.strict:
                unknown = "; ".join(
                    f"no worker knows the task {name!r}{hint and f' ({hint})'}"
                    for name, hint in hints.items()
                )
                raise DispatchError(f"nothing was sent: {unknown}")
            self._withhold(hints)
            kept = (a.entry for a in self._to_send if a.entry.task in hints)
            self._queues = sorted({*self._queues, *queues_of(publisher, kept)})
        unseen = [f"whoever comes for queue {name!r}" for name in found.idle]
        seen = found.answered or self.address.is_private
        self._record_stock_workers([*found.stock, *unseen] if seen else [NO_WORKER])
        # These show where a worker runs other code of a task than is here.
        with self._writing() as ledger:
            if not self.address.is_private:
                record_known_workers(ledger, publisher, set(found.workers) - set(found.stock))
            record_code(ledger, (attempt.entry.task for attempt in self._to_send), publisher.tasks)
            samples = demand.samples.values()
            limits = {one.task: own for one in samples if (own := publisher.own_limit(one))}
            record_own_limits(ledger, limits)
            self._pending.with_own_limit = OwnLimits.read(ledger)

    def _record_stock_workers(self, nodes: Sequence[str]) -> None:
        """Record workers that do not report starts: what they had may have run."""
        if nodes:
            self.set_meta(STOCK_WORKERS, ", ".join(sorted(nodes)))

    def _withhold(self, notes: Mapping[str, str]) -> None:
        """Judge entries whose task no worker knows, and do not send them.

        Those that expect it are sent: there a worker has to report it.
        """
        withheld = [a for a in self._to_send if is_withheld(a.entry, notes)]
        if isinstance(self._to_send, FirstAttempts):
            self._to_send = self._to_send.without_tasks(notes)
        else:
            self._to_send = [a for a in self._to_send if not is_withheld(a.entry, notes)]
        with self._writing() as ledger, ledger.transaction():
            ledger.mark((a.task_id for a in withheld), "withheld", note="unknown task")
            ledger.record_verdicts(
                _without_receipt(a, "unknown_task", notes[a.entry.task]) for a in withheld
            )

    # The thread

    def _main(self) -> None:
        """Run the thread's body; however it ends, notify whoever waits for the run."""
        try:
            with contextlib.ExitStack() as parts:
                parts.callback(self._lock.release)
                parts.callback(self._close_publisher)
                ledger = parts.enter_context(Ledger.open(self.ledger_path, write=True))
                position = ledger.get_meta("stream_position") or "0"
                collector = self._open_collector(position)
                parts.enter_context(contextlib.closing(collector))
                self._run_engine(ledger, collector)
        except ManifestToolError as error:
            self.error = self.error or error
        except Exception as error:  # a thread has no caller: the run itself must carry its fault
            logger.bind(run=self.info.run).exception("the run's thread failed")
            fault = DispatchError(f"the run stopped on an internal error: {error!r}")
            self.error = self.error or fault
        finally:
            self._signals.all_sent.set()
            self._signals.ended.set()
            self._signals.on_verdicts([])

    def _run_engine(self, ledger: Ledger, collector: ReceiptCollector) -> None:
        engine = self._make_engine(ledger, collector)
        self.corrections = engine.corrections
        try:
            self._work(engine, ledger)
            collector.trim()
        except ManifestToolError as error:
            self._give_up(engine, ledger, error)
        except Exception as error:  # as above; here the entries can still be given a verdict
            logger.bind(run=self.info.run).exception("the run failed")
            fault = DispatchError(f"the run stopped on an internal error: {error!r}")
            self._give_up(engine, ledger, fault)

    def _make_engine(self, ledger: Ledger, collector: ReceiptCollector) -> Engine:
        return Engine(
            EngineContext(
                run=self.info.run,
                settings=self.settings,
                window=self.settings.window_for(self._slots),
                signals=self._signals,
                ledger=ledger,
                collector=collector,
                evaluator=self._make_evaluator(ledger),
                schedule=Schedule(
                    self._to_send,
                    verdicts=ledger.statuses(),
                    canary=self.settings.canary,
                    max_failed=self.settings.max_failed,
                    budget=self._budget(),
                ),
                pending=self._pending,
                publisher=self._publisher if self.sends else None,
                locator=self._locator,
                is_private=self.address.is_private,
                added_queues=self._added_queues,
                queues=self._queues,
                live_warnings=self.live_warnings,
                warnings=self.warnings,
                patience=self._patience,
                record_unknown_workers=partial(self._record_unknown_workers, ledger),
            )
        )

    def _record_unknown_workers(self, ledger: Ledger) -> None:
        """Record workers that this run has not seen; our own stack has none."""
        if self._publisher is not None and not self.address.is_private:
            record_unknown_workers(ledger, self._publisher)

    def _budget(self) -> Budget | None:
        limit = self.settings.budget if self.sends else None
        return None if limit is None else Budget(limit, self._costs)

    def _open_locator(self, publisher: Publisher, entries: Iterable[Entry]) -> Locator:
        """Open the job locator; ``entries`` are those whose queues no preflight has reported.

        Do not call it in the run's thread: it imports, and two threads of CPython 3.11 that parse
        at once disturb one another ("AST constructor recursion depth mismatch").
        """
        queues = sorted({*self._queues, *queues_of(publisher, entries)})
        self._locator = open_locator(publisher, queues, self._nodes)
        return self._locator

    def _make_evaluator(self, ledger: Ledger) -> AttemptEvaluator:
        return AttemptEvaluator(
            self.info.run,
            self.manifest,
            ledger,
            kills=self.settings.kills,
            lifetime=self._lifetime(),
        )

    def _lifetime(self) -> float:
        """Return the seconds for which the outcome of a job can be read."""
        expires = None if self._publisher is None else self._publisher.result_expires
        stream = float(self.info.stream_ttl)
        return stream if expires is None else min(stream, expires)

    def _open_collector(self, position: str) -> ReceiptCollector:
        stream, flaws = None, ReadErrors(self.warnings)
        if has_stream(self.address.backend_url):
            key = stream_key(self.info.run)
            stream = StreamReader(
                self.address.backend_url,
                key,
                position=position,
                keeps_records=self._keeps_stream,
                flaws=flaws,
                opener=partial(open_client_at, self.address),
            )
        caller = BoundedCaller(self.address.backend_url, self._patience)
        return ReceiptCollector(stream, ResultReader(self.address, flaws), caller, flaws)

    def _work(self, engine: Engine, ledger: Ledger) -> None:
        engine.work()
        self._close_dispatch(engine, ledger)

    def _close_dispatch(self, engine: Engine, ledger: Ledger) -> None:
        interrupted = self._signals.stop.is_set() and ledger.has_open()
        if not interrupted and not engine.pending:
            left = engine.given_up or ledger.has_open()  # of entries that were not selected
            may_go_on = left and not self.address.is_private
            ledger.set_status("detached" if may_go_on else "finished")
            self.leaves_jobs = False
        elif self.revokes_on_stop and not self.settings.send_only:
            ledger.set_status("stopped")
            engine.wind_down()
            ledger.stop_segment(utc_now())
            self.leaves_jobs = self.address.is_private and bool(engine.pending.unstarted())
        else:
            self._leave(ledger)

    def _leave(self, ledger: Ledger) -> None:
        """End with jobs that are not revoked: they go on, unless the stack is our own."""
        ledger.set_status("stopped" if self.address.is_private else "detached")
        if self.address.is_private:
            ledger.stop_segment(utc_now())

    @property
    def revokes_on_stop(self) -> bool:
        """Return whether the run, when it is stopped, takes back what it has sent."""
        chosen = self.settings.on_stop
        return self.address.is_private if chosen is None else chosen == "revoke"

    def _give_up(self, engine: Engine, ledger: Ledger, error: ManifestToolError) -> None:
        self.error = error
        logger.bind(run=self.info.run).error("{}", error)
        if not self.settings.send_only:  # what was sent has workers, and an audit will judge it
            with self._failure_logged("not all verdicts were written"):
                engine.record_rest("unknown", f"the run gave up: {error}")
        with self._failure_logged("that the run gave up was not written"):
            ledger.set_meta(GAVE_UP, str(error))
        with self._failure_logged("the run's end was not written"):
            self._leave(ledger)

    @contextlib.contextmanager
    def _failure_logged(self, what: str) -> Iterator[None]:
        """Record the failure of one of the last steps, and let it stop no other."""
        try:
            yield
        except ManifestToolError as error:
            logger.bind(run=self.info.run).error("{}: {}", what, error)
            self.warnings.append(f"{what}: {error}")


def _first_attempts(
    run: str, manifest: Manifest, selected: Sequence[str], *, on_disk: bool
) -> tuple[Sequence[Attempt], Sequence[int]]:
    """Return the first attempts of the selected entries, and their positions in the manifest.

    Positions are those in the whole manifest, as ledgers of its shards are merged in its order.
    """
    chosen = set(selected)
    positions = array("I", (n for n, name in enumerate(manifest.ids) if name in chosen))
    lazy = FirstAttempts(run, manifest, positions)
    return lazy if on_disk else list(lazy), positions


def _names(attempts: Sequence[Attempt]) -> Iterable[tuple[str, str]]:
    """Return ``(task id, entry)`` of each."""
    if isinstance(attempts, FirstAttempts):
        return attempts.names()
    return ((attempt.task_id, attempt.entry.id) for attempt in attempts)


def _stamp(path: Path) -> str:
    """Return what changes when a file is written to or replaced."""
    if not path.is_file():
        return "absent"
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _without_receipt(attempt: Attempt, status: VerdictStatus, note: str) -> Evaluated:
    verdict = evaluate(attempt.entry, None, attempt=attempt.number, problem=status, note=note)
    return verdict, None


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
