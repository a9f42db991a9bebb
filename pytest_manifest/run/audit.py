"""Looking at an earlier run again: what it comes to now, and what has come since."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from loguru import logger

from pytest_manifest.dispatch.attempt import Attempt, task_id_for
from pytest_manifest.dispatch.locating import Located
from pytest_manifest.errors import LedgerError, StackError
from pytest_manifest.ledger import AttemptRow, Ledger, RunInfo, Settled, utc_now
from pytest_manifest.manifest import Manifest, read_receipts
from pytest_manifest.run.changes import change_of, kept_manifest
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.flights import Flights, InFlight
from pytest_manifest.run.judging import SPOKEN_FOR, Bench, Judged
from pytest_manifest.run.run import Run
from pytest_manifest.run.search import Search
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictKind
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.verdict import judge


class AuditRun(Run):
    """An earlier run, judged from its ledger and from what has come since; nothing is sent.

    Without a broker in its address the stack is not asked. Where the manifest is not the one that
    the run was made of, all verdicts go into ``scratch``, a copy of the ledger.
    """

    sends = False

    def __init__(
        self,
        manifest: Manifest,
        ledger_path: Path,
        info: RunInfo,
        address: StackAddress,
        settings: RunSettings,
        *,
        wait: bool = False,
        before: Manifest | None = None,
    ) -> None:
        super().__init__(manifest, ledger_path, info, address, settings)
        self._wait = wait
        self._before = before

    @classmethod
    def attach(
        cls,
        manifest: Manifest,
        ledger_path: Path,
        address: StackAddress,
        settings: RunSettings,
        *,
        wait: bool,
        scratch: Path | None = None,
    ) -> AuditRun:
        """The run with this ledger, judged by this manifest."""
        with Ledger.open(ledger_path) as ledger:
            info = ledger.info()
            before = kept_manifest(ledger_path, info.sha256)
            if scratch is not None:
                target = scratch / ledger_path.name
                ledger.copy_to(target)
        path = ledger_path if scratch is None else target
        return cls(manifest, path, info, address, settings, wait=wait, before=before)

    @property
    def asks(self) -> bool:
        """Whether the stack is asked."""
        return bool(self.address.broker_url)

    def _prepare(self, expected_workers: int | None) -> None:  # noqa: ARG002 - the base class's
        self._lock.acquire(self.info.run)
        with Ledger.open(self.ledger_path, write=True) as ledger:
            if self.asks:
                ledger.reopen()
            with ledger.transaction():
                again = judge_again(ledger, self.manifest, self._before, self._bench(ledger))
                ledger.settle(list(again))
            if self.asks:
                follow_unsettled(self._flights, ledger, self.manifest, self.info)
                for flight in list(self._flights.by_task_id.values()):
                    if ledger.settled(flight.entry.id) is not None:  # it is other work now
                        self._flights.land(flight.task_id)
                follow_spoken_for(self._flights, ledger, self.manifest, self.info)
                self._open_locator(self._open_publisher(), self._flights.entries())
                self._look_first(ledger)

    def _look_first(self, ledger: Ledger) -> None:
        """Read what has come since, so that no test sees a verdict that this replaces."""
        position = ledger.noted("stream_position") or "0"
        with contextlib.closing(self._open_gatherer(position)) as gatherer:
            engine = self._make_engine(ledger, gatherer)
            engine.send_nothing()
            engine.look_once()
        self._let_spoken_for_stand(ledger)
        waited_for = [flight.entry.id for flight in self._flights.by_task_id.values()]
        with ledger.transaction():
            ledger.reopen(waited_for)

    def finish_offline(self) -> None:
        """Judge what is there without a stack; instead of :meth:`start`."""
        with Ledger.open(self.ledger_path, write=True) as ledger:
            self._close(ledger, {})
        self.all_sent.set()
        self.ended.set()
        self._lock.release()

    def abandon(self) -> None:
        self._close_publisher()
        self._lock.release()

    def _work(self, engine: Engine, ledger: Ledger) -> None:
        engine.send_nothing()
        if self._wait:
            engine.work()
            found: dict[str, str] = {}
        else:
            found = self._look(engine)
        self._close(ledger, found)

    def _let_spoken_for_stand(self, ledger: Ledger) -> None:
        """What got its verdict for want of a receipt, and still has none, keeps it.

        Only what was given up as overdue may still be waited for.
        """
        for flight in list(self._flights.by_task_id.values()):
            settled = ledger.settled(flight.entry.id)
            overdue = settled is not None and settled.verdict.verdict == "timed_out"
            if settled is not None and not (overdue and self._wait):
                self._flights.land(flight.task_id)

    def _look(self, engine: Engine) -> dict[str, str]:
        """Where what has no verdict is: task id -> a phrase. What is nowhere is judged lost."""
        if self._locator is None or not engine.flights:
            return {}
        try:
            located = Search(self._locator, engine.flights).look_twice()
            engine.act_on(located)
        except StackError as error:
            logger.warning("the jobs could not be looked for: {}", error)
            return {}
        return phrases(located)

    def _close(self, ledger: Ledger, found: dict[str, str]) -> None:
        """What an audit finds unfinished is pending, expired or never sent: nothing final."""
        age = (utc_now() - self.info.created_at).total_seconds()
        judged: list[Judged] = []
        for row in ledger.attempts(unsettled=True):
            if row.entry not in self.manifest.ids or _is_told(ledger, row.entry):
                continue
            kind, note = _unfinished(row.state, expired=age > self.info.stream_ttl)
            if not note:
                note = found.get(row.task_id, "" if self.asks else "the stack was not asked")
            entry = self.manifest[row.entry]
            verdict = judge(entry, None, attempt=row.attempt, problem=kind, note=note)
            judged.append((verdict, None))
        with ledger.transaction():
            ledger.settle(judged)
        self._signals.settled([])
        if not ledger.has_unsettled() and ledger.status in ("running", "detached"):
            ledger.set_status("finished")


def phrases(located: Located) -> dict[str, str]:
    """Where two looks have found jobs, in words, by task id."""
    found = dict.fromkeys(located.queued, "it waits in its queue")
    found.update(dict.fromkeys(located.underway, "a worker has it"))
    found.update(dict.fromkeys(located.orphaned, "a worker that is gone had taken it"))
    return found


def judge_again(
    ledger: Ledger,
    manifest: Manifest,
    before: Manifest | None,
    bench: Bench,
    only: Container[str] | None = None,
) -> Iterator[Judged]:
    """Every final verdict anew, by this manifest's expectations; only those that differ.

    ``before`` is the manifest that the run was made of, where that is known; ``only`` are the
    entries to look at, all where it is None.
    """
    sent = {row.entry: row for row in ledger.last_attempts()}
    settled = {one.verdict.entry: one for one in ledger.all_settled()}
    for name, row in sent.items():
        if name not in manifest.ids or (only is not None and name not in only):
            continue
        entry, one = manifest[name], settled.get(name)
        old = entry if before is None or name not in before.ids else before[name]
        change, words = change_of(entry, old)
        if change == "job" and row.state not in ("planned", "withheld"):
            note = f"{words} since, so what the run says is of other work; --resume-changed runs it"
            yield judge(entry, None, attempt=row.attempt, problem="unknown", note=note), None
        elif one is not None and one.verdict.verdict not in ("pending", "unknown"):
            yield from _judge_again(bench, row, one, entry, old)


def _judge_again(
    bench: Bench, row: AttemptRow, settled: Settled, entry: Entry, old: Entry
) -> Iterator[Judged]:
    verdict = settled.verdict
    if settled.receipt is not None:
        flight = InFlight(bench.run, entry, row.attempt, row.task_id, 0.0, row.sent_at)
        again, receipt = bench.judge(flight, settled.receipt)
        if again != verdict:
            yield again, receipt
    elif change_of(entry, old)[0] is not None:
        yield _problem_again(verdict, entry, old), None


def _problem_again(verdict: Verdict, entry: Entry, old: Entry) -> Verdict:
    """The verdict on what there is no receipt of, by other expectations."""
    kind, expected = verdict.verdict, old.expect.state
    if kind == "passed" and expected != "succeeded" and expected != "ignored":
        kind = expected  # what became of it was what the old expectations wanted
    again = judge(entry, None, attempt=verdict.attempt, problem=kind)
    return verdict if again.verdict == verdict.verdict else again


def ledger_of_receipts(manifest: Manifest, file: Path, scratch: Path) -> tuple[Path, list[str]]:
    """A ledger made of exported receipts alone, and notes about what was odd in them.

    Raises LedgerError where the file cannot be read, or holds receipts of several runs.
    """
    receipts: dict[str, Receipt] = {}
    runs: set[str] = set()
    strange = doubled = 0
    for receipt in read_receipts(file):
        runs.add(receipt.run)
        if receipt.entry not in manifest.ids:
            strange += 1
            continue
        known = receipts.get(receipt.entry)
        doubled += known is not None and known.attempt == receipt.attempt
        if known is None or receipt.attempt >= known.attempt:
            receipts[receipt.entry] = receipt
    if len(runs) > 1:
        raise LedgerError(
            f"{file}: holds receipts of several runs ({', '.join(sorted(runs)[:3])}); "
            "give the receipts of one"
        )
    run = next(iter(runs), "no-receipts")
    info = RunInfo(
        run=run,
        manifest=manifest.path.resolve(),
        sha256=manifest.sha256,
        workflow=manifest.header.workflow,
        mode=manifest.header.mode,
        entries=len(manifest.ids),
        created_at=utc_now(),
        broker="",
        backend="",
        owned=False,
        stream_ttl=0,
    )
    path = scratch / f"{run}.sqlite"
    with Ledger.create(path, info) as ledger, ledger.transaction():
        for ordinal, entry in enumerate(manifest.ids):
            _add_receipt(ledger, run, entry, ordinal, receipts.get(entry))
        ledger.settle(_judge_receipts(manifest, receipts, file, run, ledger))
        ledger.set_status("finished")
    notes = []
    if strange:
        notes.append(f"{file.name}: {strange} receipts are of entries that are not in the manifest")
    if doubled:
        notes.append(f"{file.name}: {doubled} receipts are of an attempt that has another one")
    return path, notes


def _add_receipt(
    ledger: Ledger, run: str, entry: str, ordinal: int, receipt: Receipt | None
) -> None:
    number = 1 if receipt is None else max(receipt.attempt, 1)
    task_id = task_id_for(run, entry, number)
    ledger.plan([(task_id, entry, number, ordinal)])
    if receipt is not None:
        ledger.mark([task_id], "sent", sent_at=receipt.sent_at)
        ledger.add_receipts([(task_id, None, receipt)])


def _judge_receipts(
    manifest: Manifest, receipts: Mapping[str, Receipt], file: Path, run: str, ledger: Ledger
) -> Iterator[Judged]:
    bench = Bench(run, manifest, ledger, kills=1, lifetime=0)
    for entry in manifest:
        receipt = receipts.get(entry.id)
        if receipt is None:
            note = f"{file.name} has no receipt of it"
            yield judge(entry, None, attempt=None, problem="unknown", note=note), None
            continue
        number = max(receipt.attempt, 1)
        task_id = task_id_for(run, entry.id, number)
        flight = InFlight(run, entry, number, task_id, 0.0, receipt.sent_at)
        yield bench.judge(flight, receipt)


def follow_unsettled(flights: Flights, ledger: Ledger, manifest: Manifest, info: RunInfo) -> None:
    """Put in flight what was sent and has no final verdict, as old as it is."""
    for row in ledger.attempts(unsettled=True):
        if row.state not in ("planned", "withheld") and row.entry in manifest.ids:
            follow(flights, ledger, row, manifest[row.entry], info)


def follow_spoken_for(flights: Flights, ledger: Ledger, manifest: Manifest, info: RunInfo) -> None:
    """Put in flight also what got its verdict for want of a receipt: it may still be queued."""
    last = {row.entry: row for row in ledger.last_attempts()}
    for settled in ledger.all_settled():
        row = last.get(settled.verdict.entry)
        if settled.receipt is not None or settled.verdict.verdict not in SPOKEN_FOR:
            continue
        if row is None or row.state in ("planned", "withheld") or row.entry not in manifest.ids:
            continue
        follow(flights, ledger, row, manifest[row.entry], info)


def follow(flights: Flights, ledger: Ledger, row: AttemptRow, entry: Entry, info: RunInfo) -> None:
    """Put one attempt in flight, as old as it is."""
    attempt = Attempt(info.run, entry, row.attempt, row.task_id)
    flights.follow(attempt, _monotonic(row.sent_at), row.sent_at)
    for start in ledger.starts(row.task_id):
        flights.started(start, _monotonic(start.started_at))


def _is_told(ledger: Ledger, entry: str) -> bool:
    """Whether it has been said why nobody can tell: without a new look that is all there is."""
    settled = ledger.settled(entry)
    return settled is not None and settled.verdict.verdict == "unknown"


def _unfinished(state: str, *, expired: bool) -> tuple[VerdictKind, str]:
    if state == "planned":
        return "unknown", "it was never sent: the run ended before its turn came"
    if expired:
        return "unknown", "a receipt may have been, and be past its lifetime in the result store"
    return "pending", ""


def _monotonic(moment: datetime | None) -> float:
    """A moment of the past on this process's monotonic clock."""
    now = time.monotonic()
    return now if moment is None else now - max((utc_now() - moment).total_seconds(), 0.0)
