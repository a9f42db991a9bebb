"""A run as the rest of the program sees it: made, started, stopped, read.

It works in a thread of its own (see ``engine``) and knows nothing of pytest.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from pytest_manifest.dispatch.attempt import Attempt, attempt_of, new_run_id
from pytest_manifest.dispatch.client import is_redis
from pytest_manifest.dispatch.demand import demand_of
from pytest_manifest.dispatch.orphans import OrphanSearch
from pytest_manifest.dispatch.preflight import preflight
from pytest_manifest.dispatch.publisher import Publisher
from pytest_manifest.errors import DispatchError, LedgerError, ManifestToolError
from pytest_manifest.gather.backend_results import ResultReader
from pytest_manifest.gather.gatherer import Gatherer
from pytest_manifest.gather.stream import StreamReader, has_stream
from pytest_manifest.ledger import Ledger, RunInfo, utc_now
from pytest_manifest.log import redact_url
from pytest_manifest.manifest import Manifest, write_receipts
from pytest_manifest.run.audit import close_audit, follow_unsettled
from pytest_manifest.run.engine import Engine, Judged, Signals
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.settings import RunSettings, WorkerLoss
from pytest_manifest.schema import VerdictKind
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.verdict import judge

TTL_MARGIN = 24 * 3600
"""Seconds that receipts outlive the run's deadline, so that a late audit finds them."""
JOIN_SECONDS = 30.0


class Run:
    """See the module. Make one with :meth:`dispatch` or :meth:`attach`, then :meth:`start` it."""

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
        self.workers: int | None = None
        self._signals = Signals()
        self._attached = False
        self._wait = True
        self._to_send: list[Attempt] = []
        self._added_queues: list[str] = []
        self._queues: list[str] = []
        self._publisher: Publisher | None = None
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
    ) -> Run:
        """A new run of the selected entries: its ledger exists on return, nothing is sent."""
        run_id = new_run_id()
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
            owned=address.owned,
            stream_ttl=int(settings.deadline) + TTL_MARGIN,
        )
        run = cls(manifest, settings.folder / f"{run_id}.sqlite", info, address, settings)
        run._to_send = [attempt_of(run_id, manifest[entry], 1) for entry in selected]
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        run._lock.acquire(run_id)
        with Ledger.create(run.ledger_path, info) as ledger, ledger.transaction():
            ledger.plan((a.task_id, a.entry.id, 1, n) for n, a in enumerate(run._to_send))
        return run

    @classmethod
    def attach(
        cls,
        manifest: Manifest,
        ledger_path: Path,
        address: StackAddress,
        settings: RunSettings,
        *,
        wait: bool,
    ) -> Run:
        """An earlier run, to gather what has arrived since; ``wait`` waits for what is pending."""
        with Ledger.open(ledger_path) as ledger:
            run = cls(manifest, ledger_path, ledger.info(), address, settings)
        run._attached = True
        run._wait = wait
        return run

    # Life

    def on_settled(self, call: Callable[[Sequence[str]], None]) -> None:
        """Have ``call`` called, in the run's thread, with the ids of entries whose verdict has just
        been committed, and with none when the run has ended."""
        self._signals.settled = call

    def watch_stack(
        self, losses: Callable[[], Sequence[WorkerLoss]], failure: Callable[[], str | None]
    ) -> None:
        """Name the sources of news about a stack of ours: workers that died, and its own end."""
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
        """Take hold of the ledger, and ask the stack what it can do; nothing is sent.

        Raises DispatchError or StackError where nothing should be sent.
        """
        if self._attached:
            self._lock.acquire(self.info.run)
            with Ledger.open(self.ledger_path, write=True) as ledger:
                ledger.reopen()
            return
        try:
            key = stream_key(self.info.run)
            self._publisher = Publisher(self.address, stream=key, ttl=self.info.stream_ttl)
            self._preflight(self._publisher, expected_workers)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """End a run that was prepared and will not be started."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()
        if not self._attached:
            with Ledger.open(self.ledger_path, write=True) as ledger:
                ledger.set_status("stopped")
        self._lock.release()

    def start(self) -> None:
        """Begin, in a thread, what has been prepared."""
        name = f"manifest-run-{self.info.run}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def begin_stop(self) -> None:
        """Send no more; on a stack of ours what is still queued is revoked. Does not wait."""
        self._signals.stop.set()

    def stop(self) -> None:
        """As :meth:`begin_stop`, and wait for the thread to end."""
        self.begin_stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                self.notices.append(
                    f"run {self.info.run} did not end within {JOIN_SECONDS:g} s; its ledger may "
                    "lack what came last"
                )

    def compact_ledger(self) -> None:
        """Leave the ledger as one file, once nobody of this session reads it any more."""
        if self.ended.is_set():
            # Where that cannot be done, the ledger is as good as it was before.
            with (
                contextlib.suppress(LedgerError, sqlite3.Error),
                Ledger.open(self.ledger_path, write=True) as ledger,
            ):
                ledger.compact()

    def read(self) -> Ledger:
        """The ledger for reading, in the calling thread."""
        return Ledger.open(self.ledger_path)

    def export_receipts(self) -> Path:
        """Write the receipts beside the ledger, and return their file's path."""
        with self.read() as ledger:
            receipts = (s.receipt for s in ledger.all_settled() if s.receipt is not None)
            write_receipts(self.receipts_path, receipts)
        self.receipts_path.chmod(0o600)
        return self.receipts_path

    # Before the first message

    def _preflight(self, publisher: Publisher, expected_workers: int | None) -> None:
        waiting = next((a.entry.id for a in self._to_send if a.entry.after), None)
        if waiting is not None:
            raise DispatchError(
                f"nothing was sent: entry {waiting!r} waits for others ('after'), which this "
                "version cannot do yet; take 'after' out, or put what comes first into a manifest "
                "of its own"
            )
        demand = demand_of(attempt.entry for attempt in self._to_send)
        found = preflight(publisher, demand, expected_workers=expected_workers)
        self.notices += found.warnings + found.notices
        self.workers = len(found.workers) if found.answered else None
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

    def _withhold(self, notes: dict[str, str]) -> None:
        """Judge entries whose task nobody knows, and do not send them."""
        withheld = [a for a in self._to_send if a.entry.task in notes]
        self._to_send = [a for a in self._to_send if a.entry.task not in notes]
        with Ledger.open(self.ledger_path, write=True) as ledger, ledger.transaction():
            ledger.mark((a.task_id for a in withheld), "withheld", note="unknown task")
            ledger.settle(
                _without_receipt(a, "unknown_task", notes[a.entry.task]) for a in withheld
            )

    # The thread

    def _main(self) -> None:
        """The thread's body: however it ends, whoever waits for the run is told."""
        try:
            with contextlib.ExitStack() as parts:
                parts.callback(self._lock.release)
                ledger = parts.enter_context(Ledger.open(self.ledger_path, write=True))
                gatherer = parts.enter_context(contextlib.closing(self._open_gatherer(ledger)))
                if self._publisher is not None:
                    parts.enter_context(contextlib.closing(self._publisher))
                self._run_engine(ledger, gatherer)
        except ManifestToolError as error:
            self.error = self.error or error
        except Exception as error:  # a thread has no caller: the run itself must carry its fault
            logger.bind(run=self.info.run).exception("the run's thread failed")
            fault = DispatchError(f"the run stopped on an internal error: {error!r}")
            self.error = self.error or fault
        finally:
            self._signals.all_sent.set()
            self._signals.ended.set()
            self._signals.settled([])

    def _run_engine(self, ledger: Ledger, gatherer: Gatherer) -> None:
        engine = Engine(
            self.info.run,
            self.manifest,
            self.settings,
            self._signals,
            ledger,
            gatherer,
            self._publisher,
            self._to_send,
            self._added_queues,
            self._orphan_search(self._publisher),
            self._queues,
        )
        try:
            self._work(engine, ledger)
        except ManifestToolError as error:
            self._give_up(engine, ledger, error)
        except Exception as error:  # as above; here the entries can still be given a verdict
            logger.bind(run=self.info.run).exception("the run failed")
            fault = DispatchError(f"the run stopped on an internal error: {error!r}")
            self._give_up(engine, ledger, fault)

    def _orphan_search(self, publisher: Publisher | None) -> OrphanSearch | None:
        """Only on a stack of our own: what another's workers hold is not ours to move."""
        ours = self.address.owned and is_redis(self.address.broker_url)
        if publisher is None or not ours or self.workers is None:
            return None
        return OrphanSearch(publisher, self.workers)

    def _open_gatherer(self, ledger: Ledger) -> Gatherer:
        stream = None
        if has_stream(self.address.backend_url):
            position = ledger.noted("stream_position") or "0"
            key = stream_key(self.info.run)
            stream = StreamReader(self.address.backend_url, key, position=position)
        return Gatherer(stream, ResultReader(self.address))

    def _work(self, engine: Engine, ledger: Ledger) -> None:
        if not self._attached:
            engine.work()
            self._close_dispatch(engine, ledger)
            return
        follow_unsettled(engine, ledger, self.manifest, self.info)
        engine.look_once()
        if self._wait:
            engine.work()
        close_audit(engine, ledger, self.manifest, self.info)

    def _close_dispatch(self, engine: Engine, ledger: Ledger) -> None:
        interrupted = self._signals.stop.is_set() and ledger.has_unsettled()
        if not interrupted and not engine.flights:
            ledger.set_status("finished")
        elif self.address.owned:
            ledger.set_status("stopped")
            engine.revoke_queued()
        else:
            ledger.set_status("detached")

    def _give_up(self, engine: Engine, ledger: Ledger, error: ManifestToolError) -> None:
        self.error = error
        logger.bind(run=self.info.run).error("{}", error)
        engine.settle_rest("unknown", f"the run gave up: {error}")
        ledger.set_status("stopped" if self.address.owned else "detached")


def _without_receipt(attempt: Attempt, kind: VerdictKind, note: str) -> Judged:
    verdict = judge(attempt.entry, None, attempt=attempt.number, problem=kind, note=note)
    return verdict, None


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
