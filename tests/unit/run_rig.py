"""A real engine in a simulated world: put together, driven, and held against what happened."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest
from loguru import logger

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.locating import Locator
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.ledger import AttemptRow, EntryVerdict, Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run import pressure
from pytest_manifest.run.connections import EngineContext, RunConnections, RunState, add_nodes
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.inflight import TIMEOUT_GRACE, PendingAttempt, PendingAttempts
from pytest_manifest.run.pressure import KeyRates
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.send_queue import Budget, KeyLimits
from pytest_manifest.run.settings import FailureLimit, Rate, RunSettings, Signals
from pytest_manifest.run.strategy import (
    Tracking,
    evaluate_kept_receipts,
)
from pytest_manifest.schema import Entry, VerdictStatus, exact
from pytest_manifest.schema.run_facts import Segment
from pytest_manifest.schema.statuses import BAD, INFERRED, STATUSES
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Costs
from tests.unit.ledger_support import INFO
from tests.unit.reloading import judged_twice
from tests.unit.run_clocks import replaced_clocks
from tests.unit.run_fakes import FakeLocator, FakePublisher, FakeResults, FakeStream
from tests.unit.run_world import Delivery, Execution, Record, VirtualEvent, Worker, World, result_of

RUN = INFO.run
FOREVER = 1e6
PACE = 0.25
"""Seconds of the virtual clock from one step of the engine to the next."""
BOUND = 600.0
"""Seconds in a fair world by which every entry must have its verdict."""
VISIBILITY = 60.0
"""Seconds until a fair broker gives back itself what a dead worker had taken."""
GIVEN_UP = frozenset({"lost", "crashed", "unknown"})
"""What is said of an attempt that nobody has any more; an idempotent entry is sent again for it."""


@dataclass(frozen=True)
class Plan:
    """What is run, and how. ``entries`` in the manifest's order."""

    entries: tuple[Entry, ...]
    owned: bool = True
    repair: bool = False
    unsafe: bool = False
    window: int = 10
    canary: int = 0
    max_failed: int | None = None
    revoke_on_max_failed: bool = False
    budget: float | None = None
    key_limits: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    queue_depth: int | None = None
    health: Callable[[], object] | None = None
    kills: int = 3
    deadline: float = 1e6


class StandIn(dict[str, Entry]):
    """As much of a manifest as a bench asks for."""

    @property
    def ids(self) -> Sequence[str]:
        return list(self)


class Connections(RunConnections):
    """Those of a run whose workers are all known."""

    def record_unknown_workers(self, ledger: Ledger) -> None: ...


class Rig:
    """One run in one world. Use :func:`rig`."""

    def __init__(self, plan: Plan, ledger: Ledger, world: World) -> None:
        self.plan = plan
        self.world = world
        self.ledger = ledger
        self.attempts = [attempt_of(RUN, entry, 1) for entry in plan.entries]
        self.manifest = cast("Manifest", StandIn((entry.id, entry) for entry in plan.entries))
        self.findings: list[str] = []
        self.told: dict[str, list[VerdictStatus]] = {}
        self.done = False
        self.order: list[str] = []
        """Entries in the order of their first sending."""
        self.schedule = Schedule(
            self.attempts,
            canary=plan.canary,
            max_failed=None if plan.max_failed is None else FailureLimit(plan.max_failed),
            budget=None if plan.budget is None else Budget(plan.budget),
            key_limits=KeyLimits(plan.key_limits, KeyRates(plan.rates))
            if plan.key_limits or plan.rates
            else None,
        )
        self.locator = FakeLocator(self.world)
        self.publisher = FakePublisher(self.world)
        self.signals = self._signals()
        stream = cast("StreamReader", FakeStream(self.world))
        self.collector = ReceiptCollector(stream, cast("ResultReader", FakeResults(self.world)))
        self.collector.begin(1000)
        self.engine = Engine(self._parts(PendingAttempts()))
        self.world.on_publish = self._published

    def _signals(self) -> Signals:
        clock = self.world.clock
        return Signals(
            stop=VirtualEvent(clock),
            interrupted=VirtualEvent(clock),
            force_stop=VirtualEvent(clock),
            on_verdicts=self._told,
            lost_workers=lambda: list(self.world.losses),
            health=self.plan.health,
        )

    def _parts(self, pending: PendingAttempts) -> EngineContext:
        plan = self.plan
        settings = RunSettings(
            folder=self.ledger.path.parent,
            window=plan.window,
            deadline=plan.deadline,
            canary=plan.canary,
            kills=plan.kills,
            rates=plan.rates,
            queue_depth=plan.queue_depth,
            repair=plan.repair,
            unsafe=plan.unsafe,
            revoke_on_max_failed=plan.revoke_on_max_failed,
            no_worker=0,
        )
        self.facts = FactLog(self.ledger)
        segment = Segment(**stamp(), kills=plan.kills, lifetime=FOREVER, deadline=plan.deadline)
        self.facts.add(None, segment)
        self.facts.store("marked")
        address = StackAddress("", "", None, is_private=plan.owned)
        files = RunFiles(self.ledger.path)
        state = RunState(
            *(self.manifest, files, INFO, address, settings, self.signals),
            pending=pending,
            warnings=self.findings,
        )
        connections = Connections(state)
        connections.publisher = cast("Publisher", self.publisher)
        connections.locator = cast("Locator", self.locator)
        connections.queues = ["celery"]
        return EngineContext(
            *(state, connections, self.ledger, self.collector, self.facts, self.schedule)
        )

    def start_again(self) -> None:
        """Have another engine take up what the ledger says is under way, as a resumed run does."""
        pending = PendingAttempts()
        tracking = Tracking(pending, self.ledger, self.manifest, self.ledger.info.read())
        tracking.under_way(trees=True)
        evaluate_kept_receipts(self.ledger, pending, self.manifest, self.facts)
        self.schedule = Schedule(())
        self.engine = Engine(self._parts(pending))
        self.told.clear()  # another session tells of them
        self.engine.begin()

    # Driving

    def step(self, times: int = 1) -> None:
        """Step the engine, with the pace of its own loop, as long as it has work."""
        for _ in range(times):
            if self.done or self.signals.stop.is_set():
                return
            self.done = self.engine.step()
            self.world.clock.sleep(PACE)

    def run(self, seconds: float) -> None:
        """Step the engine for so long."""
        until = self.world.clock.now + seconds
        while self.world.clock.now < until and not self.done and not self.signals.stop.is_set():
            self.step()

    def finish(self) -> None:
        """Let everything go well from now on, until the run is over or should be."""
        self.world.become_fair()
        if not (self.plan.owned or self.plan.repair):
            self.world.gives_back_after = VISIBILITY
        if self.signals.stop.is_set():
            self.engine.wind_down()
            self.world.clock.sleep(BOUND)
            return
        self.run(BOUND)
        assert self.done, f"still without a verdict after {BOUND:g} s: {self.open_entries()}"

    def look(self) -> None:
        """One more look at what has come, also after the end."""
        self.engine.poll_once()

    def stop(self, *, by_a_person: bool) -> None:
        if by_a_person:
            self.signals.interrupted.set()
        self.signals.stop.set()

    # Reading

    def task_id(self, entry: str, number: int = 1) -> str:
        return self.ledger.attempts.of_entry(entry)[number - 1].task_id

    def flight(self, entry: str) -> PendingAttempt:
        """The entry's first attempt, as it is followed."""
        row = self.ledger.attempts.of_entry(entry)[0]
        return PendingAttempt(RUN, self.manifest[entry], 1, row.task_id, 0.0, row.sent_at)

    def kind(self, entry: str) -> VerdictStatus | None:
        settled = self.ledger.verdicts.of_entry(entry)
        return None if settled is None else settled.verdict.verdict

    def kinds(self) -> dict[str, VerdictStatus]:
        return self.ledger.verdicts.statuses()

    def sentence(self, entry: str) -> str:
        settled = self.ledger.verdicts.of_entry(entry)
        assert settled is not None
        return settled.verdict.sentence

    def open_entries(self) -> list[str]:
        return [row.entry for row in self.ledger.attempts.all(undecided=True)]

    # What must hold at every moment

    def _published(self, attempts: Sequence[Attempt]) -> None:
        """Nothing goes out that may not, now that it is about to."""
        assert not self.signals.stop.is_set(), "something was sent after the stop"
        assert self.schedule.closed is None, f"sent although {self.schedule.closed}"
        limit = self.plan.max_failed
        failed = [e for e, kinds in self.told.items() if STATUSES[kinds[0]].outcome in BAD]
        assert limit is None or len(failed) <= limit, f"sent after {failed} had failed"
        self._affordable(attempts)
        self._within_key_limits(attempts)
        self.order += dict.fromkeys(a.entry.id for a in attempts if a.entry.id not in self.order)
        canary = self.order[: min(self.plan.canary, sum(not e.after for e in self.plan.entries))]
        if canary and len(self.order) > len(canary):
            assert all("passed" in self.told.get(e, []) for e in canary), "not all canaries passed"
        for attempt in attempts:
            entry = attempt.entry
            for name in entry.after:
                assert "passed" in self.told.get(name, []), f"{entry.id} was sent before {name}"
            assert entry.id not in self.told, f"{entry.id} was sent after its verdict"
            if not entry.idempotent:
                assert attempt.number == 1, f"{entry.id} may have run and was sent again"
            if self.world.published[attempt.task_id]:
                assert not self.world.has(attempt.task_id), f"{entry.id} is there, and sent again"
                ran = self.world.of(attempt.task_id)
                assert entry.idempotent or not ran, f"{entry.id} ran, and was sent again"

    def _affordable(self, attempts: Sequence[Attempt]) -> None:
        """What was told or may have run, what is in flight, and these are within the budget."""
        if self.schedule.budget is None:
            return
        going = {flight.task_id: flight.entry for flight in self.engine.pending.by_task_id.values()}
        going |= {attempt.task_id: attempt.entry for attempt in attempts}
        known = self.costs.by_attempt(without=going.keys() | self._lost())
        spent = sum(cost for _, cost in known)
        likely = spent + sum(exact(entry.cost) for entry in going.values())
        assert likely <= self.schedule.budget.limit, f"{likely} would be spent"

    def _within_key_limits(self, attempts: Sequence[Attempt]) -> None:
        """What is awaited, and these, are within the limits of each value of a key."""
        pending = self.engine.pending
        going = {one.task_id: one.entry for one in [*pending.attempts(), *attempts]}
        counts = Counter(pair for entry in going.values() for pair in entry.key.items())
        for (name, value), count in counts.items():
            most = self.plan.key_limits.get(name, count)
            assert count <= most, f"{count} of {name} {value} are in flight"

    def _told(self, entries: Sequence[str]) -> None:
        for entry in entries:
            settled = self.ledger.verdicts.of_entry(entry)
            assert settled is not None, f"{entry} was told of before it was written down"
            kinds = self.told.setdefault(entry, [])
            kinds.append(settled.verdict.verdict)
            if len(kinds) > 1 and kinds[-1] != kinds[-2]:
                pairs = [(c.before, c.verdict.verdict) for c in self.engine.corrections]
                assert (kinds[-2], kinds[-1]) in pairs, f"{entry} went from {kinds} unmentioned"
            if settled.receipt is None:
                self._spoken_for(entry, settled)

    def _spoken_for(self, entry: str, settled: EntryVerdict) -> None:
        """Nobody has what is called lost or crashed, and no receipt of it was there to be read."""
        kind = settled.verdict.verdict
        row = self.ledger.attempts.of_entry(entry)[-1]
        if kind == "crashed" and row.task_id in self.world.meddled:
            return  # its worker did die, and the broker gave it back between look and verdict
        if kind in GIVEN_UP:
            mended = self.plan.owned or self.plan.repair
            assert not self.world.has(row.task_id, orphans=mended), f"{entry} is {kind}, and there"

    # What must hold at the end

    def check(self) -> None:
        """Hold the ledger against what truly happened."""
        for attempt in self.attempts:
            self._check_entry(attempt.entry)
        self._check_cost()
        rows = list(self.ledger.attempts.all())
        sent = {row.task_id for row in rows if row.state in ("sent", "uncertain", "withdrawn")}
        planned = {row.task_id for row in rows}
        assert set(self.world.published) <= planned
        withheld = {row.task_id for row in rows if row.state == "withheld"}
        assert set(self.world.published) - withheld == sent - withheld
        for row in rows:
            lands = self.world.landed[row.task_id]
            assert lands <= 1 or self.world.meddled >= {row.task_id}, f"{row.entry} landed {lands}x"

    def _check_cost(self) -> None:
        """The budget knows of every attempt what the ledger knows."""
        budget = self.schedule.budget
        # Whether what is lost may have run is seen otherwise once a store is emptied.
        if budget is None or self.engine.pending or self.signals.stop.is_set() or self._lost():
            return
        assert not budget.has_reservations
        assert budget.spent == sum(cost for _, cost in self.costs.by_attempt())

    def _lost(self) -> set[str]:
        return {row.task_id for row in self.ledger.attempts.all() if row.status == "lost"}

    @property
    def costs(self) -> Costs:
        return Costs(self.ledger, self.manifest)

    def _check_entry(self, entry: Entry) -> None:
        rows = self.ledger.attempts.of_entry(entry.id)
        assert [row.attempt for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) == 1 or (entry.idempotent and len(rows) <= 1 + entry.retries)
        assert all(row.status in GIVEN_UP for row in rows[:-1])
        settled = self.ledger.verdicts.of_entry(entry.id)
        if settled is None:
            assert self.signals.stop.is_set(), f"{entry.id} has no verdict"
            return
        kind = settled.verdict.verdict
        assert settled.verdict.attempt == rows[-1].attempt
        getattr(self, f"_check_{kind}")(entry, rows, settled)
        if settled.receipt is None and kind in INFERRED:
            self._check_silence(rows, kind)

    def _check_silence(self, rows: Sequence[AttemptRow], kind: VerdictStatus) -> None:
        """What the harness has spoken for has no receipt that could be believed.

        What it takes back once its time is over, or it is stopped, is revoked, which says no more.
        """
        task_id = rows[-1].task_id
        read = (one for one in self.world.read if one.raw["kind"] == "finished")
        said = [one for one in read if one.task_id == task_id]
        if kind in ("timed_out", "withdrawn"):
            said = [one for one in said if _state_of(one) != "revoked"]
        assert not said or self._may_be_forged(rows), f"{rows[-1].entry} has a receipt after all"

    def _runs(self, rows: Sequence[AttemptRow]) -> list[Execution]:
        return self.world.of(rows[-1].task_id)

    def _starts_read(self, task_id: str) -> int:
        """How often the engine could know that it was started, for one retry number."""
        starts = [one.raw for one in self.world.read if one.started and one.task_id == task_id]
        return max(Counter(str(start["retries"]) for start in starts).values(), default=0)

    def _check_passed(
        self, entry: Entry, rows: Sequence[AttemptRow], settled: EntryVerdict
    ) -> None:
        task_id, receipt = rows[-1].task_id, settled.receipt
        assert any(run.how == "succeeded" for run in self._runs(rows)), f"{entry.id} did not"
        read = self._starts_read(task_id)
        assert read <= 1, f"{entry.id} passed and was started {read} times"
        assert receipt is not None
        assert (receipt.task_id, receipt.entry) == (task_id, entry.id)
        assert receipt.result == result_of(entry)

    def _check_failed(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert any(run.how == "failed" for run in self._runs(rows))

    def _check_duplicated(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert self._starts_read(rows[-1].task_id) > 1
        assert rows[-1].task_id in self.world.meddled, f"the engine ran {entry.id} twice"

    def _check_forged(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert self._may_be_forged(rows), f"{entry.id} was no lie"

    def _may_be_forged(self, rows: Sequence[AttemptRow]) -> bool:
        """Somebody has changed it, or the clock was set back and forth again, which nobody saw."""
        return self.world.clock.turned_forth or rows[-1].task_id in self.world.forged

    def _check_quarantined(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        starts = sum(len(self.world.of(row.task_id)) for row in rows)
        assert starts >= self.plan.kills

    def _check_skipped(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert not self._runs(rows), f"{entry.id} ran, and was called skipped"
        gone = any(self.told.get(name, ["skipped"])[0] != "passed" for name in entry.after)
        assert gone or self.schedule.closed is not None

    def _check_revoked(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert self.signals.stop.is_set() or self.plan.revoke_on_max_failed
        ran = any(run.how == "succeeded" for run in self._runs(rows))
        # Of a message that there is twice, one may be dropped while the other one runs.
        assert not ran or rows[-1].task_id in self.world.meddled, f"{entry.id} ran"

    def _check_withdrawn(
        self, entry: Entry, rows: Sequence[AttemptRow], settled: EntryVerdict
    ) -> None:
        assert self.signals.stop.is_set()
        self._check_revoked(entry, rows, settled)

    def _check_crashed(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        runs = self._runs(rows)
        # Whoever takes a message that a retry has sent, and dies, seems to die while running it;
        # and so does who ran a job whose receipt somebody took away.
        dropped = rows[-1].task_id in self.world.dropped
        died = [run for run in runs if run.pid in self.world.dead]
        assert any(dropped or run.how == "died" for run in died) or any(
            run.how == "retried" for run in runs
        ), f"{entry.id} did not crash"
        deaths = sum(row.status == "crashed" for row in rows)
        assert deaths < self.plan.kills, f"{entry.id} killed {deaths} and is not quarantined"
        self._check_given_up(entry, rows)

    def _check_lost(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        succeeded = any(run.how == "succeeded" for run in self._runs(rows))
        gone = rows[-1].task_id in self.world.dropped
        assert not succeeded or gone, f"{entry.id} was lost, and its receipt was there"
        self._check_given_up(entry, rows)

    def _check_unknown(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        assert self.world.flushed, f"it was there to be known what became of {entry.id}"
        self._check_given_up(entry, rows)

    def _check_given_up(self, entry: Entry, rows: Sequence[AttemptRow]) -> None:
        """It was sent again as often as it may, unless its verdict came of a late receipt."""
        may = entry.idempotent and len(rows) <= entry.retries
        over = self.schedule.closed is not None or self.signals.stop.is_set()
        corrected = len(self.told[entry.id]) > 1
        assert not may or over or corrected, f"{entry.id} was not sent again"

    def _check_timed_out(self, entry: Entry, rows: Sequence[AttemptRow], _: EntryVerdict) -> None:
        now = self.world.clock.now
        slow = any(now - run.began > entry.timeout + TIMEOUT_GRACE for run in self._runs(rows))
        assert slow or entry.deadline is not None or self.plan.deadline < FOREVER


def _state_of(record: Record) -> object:
    """The state that a receipt in the stream tells."""
    receipt = record.raw.get("receipt")
    return receipt.get("state") if isinstance(receipt, Mapping) else None


def note_stock(ledger: Ledger, name: str) -> None:
    """Record a worker that reports no starts, as it is recorded when it is found."""
    add_nodes(ledger, [name], "stock")


def first(made: Rig) -> Worker:
    return made.world.workers["w1@box"]


def begun(made: Rig) -> Delivery:
    """The next job, begun by the first worker."""
    made.world.take(first(made))
    delivery = made.world.begin(first(made))
    assert delivery is not None
    return delivery


@contextmanager
def rig(plan: Plan) -> Iterator[Rig]:
    """A rig whose engine has begun, with every clock that it looks at replaced."""
    world = World()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manifest-test-")))
        info = replace(INFO, entries=len(plan.entries))
        ledger = stack.enter_context(Ledger.create(folder / "run.sqlite", info))
        ledger._db.connection.execute("PRAGMA synchronous = OFF")  # it is thrown away in a moment
        logger.disable("pytest_manifest")
        stack.callback(logger.enable, "pytest_manifest")
        stack.enter_context(replaced_clocks(world))
        stack.enter_context(judged_twice(pytest.fail))
        made = Rig(plan, ledger, world)
        with ledger.transaction():
            ledger.attempts.plan((a.task_id, a.entry.id, 1, n) for n, a in enumerate(made.attempts))
        made.engine.begin()
        yield made


@contextmanager
def in_turn() -> Iterator[None]:
    """Have questions for the health answered by the run's own thread."""

    class SameThread:
        def __init__(self, target: Callable[[], None], **_more: object) -> None:
            self.start = target

    with mock.patch.object(pressure, "threading", SimpleNamespace(Thread=SameThread)):
        yield
