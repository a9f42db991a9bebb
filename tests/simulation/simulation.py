"""Play a program: sessions of pytest in one world, one by one and two at once, killed anywhere."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final
from unittest import mock

from loguru import logger
from pydantic import JsonValue

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.errors import LedgerError, ManifestToolError
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.manifest import write_manifest
from pytest_manifest.run import dispatch, engine
from pytest_manifest.run.audit import audit_run
from pytest_manifest.run.connections import CRASH_LOOP
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.pressure import BURST
from pytest_manifest.run.resume import resume_run
from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import FailureLimit, Rate, RunSettings
from pytest_manifest.schema import Header
from pytest_manifest.schema.run_facts import Action
from tests.simulation.later import NO_STACK, PARTNERS_ENTRY, LaterJudges
from tests.simulation.process import Process, belongings
from tests.simulation.program import Program, Step
from tests.simulation.redis_stack import connected_to_redis
from tests.simulation.redis_world import RedisWorld
from tests.simulation.script import Script
from tests.simulation.stack import address, connected
from tests.simulation.truth import Truth
from tests.simulation.world import Actions, SimulatedWorld
from tests.unit.reloading import judged_twice
from tests.unit.run_actions import SECONDS
from tests.unit.run_clocks import replaced_clocks
from tests.unit.run_world import VirtualEvent

PACE: Final = 0.25
"""Seconds of the virtual clock that an engine waits for a first record."""
VISIBILITY: Final = 60.0
"""Seconds until a fair broker gives back itself what a dead worker had taken."""
BOUND: Final = 600.0
"""Seconds in a fair world by which every session must have come to its end."""
MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files are made that need not outlive a power cut."""
FOREVER: Final = 1e6
LATER: Final = 5.0
"""Seconds after which a session that was refused is tried again."""
MOST_SESSIONS: Final = 12
LOOKED_AT: Final = 3
"""Of so many ends of sessions one is looked at by who comes later, beside the last of a program:
what they do takes longer than all else together."""
OFFLINE: Final = ("audit", "wait")
"""Sessions that need a stack of others; there is none where it was private."""


Order = tuple[Action, dict[str, JsonValue]]


def order_of(number: int, names: Sequence[str]) -> Order:
    """Return what an operator wants, by a number."""
    some: list[JsonValue] = [name for n, name in enumerate(names) if number >> n & 1]
    orders: tuple[Order, ...] = (
        ("cancel", {"entries": some or [names[0]]}),
        ("cancel", {"entries": list[JsonValue](names[:1]), "running": True}),
        ("requeue", {"entries": some or list(names)}),
        ("requeue", {"entries": list[JsonValue](names), "unsafe": True}),
        ("pause", {}),
        ("resume", {}),
        ("set", {"window": str(1 + number % 3), "deadline": str(60 + number)}),
        ("set", {"max-failed": str(number % 3)}),
        ("drain", {}),
        ("stop", {"how": ("take-back", "leave")[number // 10 % 2]}),
    )
    return orders[number % len(orders)]


@dataclass
class Outcome:
    """What an execution of a program came to."""

    violations: Sequence[str]
    steps: int
    """Actions of the world, and steps of engines."""
    reached: Counter[str] = field(default_factory=Counter)
    """Situation -> how often it was reached."""


def play(program: Program) -> Outcome:
    """Play it from its first session until every entry has its verdict."""
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="manifest-simulation-", dir=MEMORY)
        )
        logger.disable("pytest_manifest")
        stack.callback(logger.enable, "pytest_manifest")
        simulation = Simulation(program, Path(folder))
        with simulation.in_place():
            simulation.play()
        simulation.truth.close()
    simulation.bury()
    return Outcome(simulation.violations, simulation.steps, simulation.reached)


class Simulation:
    """One execution of a program. Use :func:`play`."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.violations: list[str] = []
        self.world = RedisWorld() if program.redis else SimulatedWorld()
        self.world.complain = self.violations.append
        self.world.clock.passed = self._time_passed
        self.world.has_deadline = program.deadline < FOREVER
        self.actions = Actions(self.world)
        header = Header(workflow="simulation")
        others = () if program.partner is None else (PARTNERS_ENTRY,)
        entries = (*program.entries, *others)
        self.manifest = write_manifest(folder / "plan.jsonl", header, entries)
        self.names = [entry.id for entry in program.entries]
        self.runs = folder / "runs"
        self.reached = self.world.reached
        self.steps = 0
        self.truth = Truth(
            self.world,
            self.manifest,
            self.names,
            self._ledger,
            self._outside,
            self.violations.append,
            self.reached,
            moves_orphans=program.is_private or program.repair,
        )
        self.later = LaterJudges(
            self.manifest, folder, program.partner, self.violations.append, self.reached
        )
        self.world.on_publish = self._published
        self._health = iter(program.health)
        self._said: dict[Process | None, str] = {}
        """What each session was told of the project's health last."""
        self._first: dict[Process, tuple[float, int]] = {}
        """When the first messages of a session were sent, and how many had been before."""
        self._processes: list[Process] = []
        self._alive: list[Process] = []
        self._current: Process | None = None
        self._run_of: dict[Process, Run] = {}
        self._script = Script(program.steps)
        self._turn = 0
        self._fair_since: float | None = None
        self._found: Path | None = None
        self._gap = 0
        """Steps that happen while no pytest lives."""
        self._ends = 0
        """Ends of sessions after which no pytest lived."""
        self._orders: deque[Order] = deque()
        """What operators want, and have not been able to write down yet."""

    # The whole

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the simulated world in the place of the real one."""
        with ExitStack() as stack:
            stack.enter_context(replaced_clocks(self.world, "pytest_manifest.ledger"))
            if isinstance(self.world, RedisWorld):
                stack.enter_context(connected_to_redis(self.world, self._moment))
            else:
                stack.enter_context(connected(self.world, self._moment))
            stack.enter_context(belongings(lambda: self._current, self._moment))
            stack.enter_context(mock.patch.object(engine, "POLL_PERIOD", PACE))
            # Names with chance in them would make another execution of the same program.
            names = (f"20261124T150000-{number:08x}" for number in count(1))
            stack.enter_context(mock.patch.object(dispatch, "new_run_id", names.__next__))
            stack.enter_context(mock.patch.object(engine.Engine, "step", self._counting_step()))
            stack.enter_context(judged_twice(self.violations.append, self._outside))
            yield

    def _counting_step(self) -> object:
        step = engine.Engine.step

        def counted(one: engine.Engine) -> bool:
            self.steps += 1
            return step(one)

        return counted

    def play(self) -> None:
        """Play all sessions; what is wrong is in ``violations``."""
        kinds = iter(self.program.sessions)
        for number in range(MOST_SESSIONS):
            if self.violations:
                return
            if self._script.is_over:
                break
            self._session("dispatch" if number == 0 else next(kinds, "resume"))
            self._between_sessions()
        self._script.clear()
        self._become_fair()
        ledger = self._ledger()
        done = self._session("resume" if ledger is not None else "dispatch", is_last=True)
        if done is not None and not self.violations:
            self.truth.complete()
        for kind in OFFLINE if not self.violations else ():
            self._session(kind, is_last=True)
        self._judge_later()

    def bury(self) -> None:
        """Let go of what was killed, once its files are gone."""
        self._current = None
        for process in self._processes:
            process.bury()

    # Sessions

    def _session(self, kind: str, *, is_last: bool = False) -> Process | None:
        """Run one session, and what was started beside it, until none of them lives."""
        ledger = self._ledger()
        kind = kind if ledger is not None else "dispatch"
        if self.program.is_private and kind not in OFFLINE:
            self.world.start_stack()
        known = self.truth.known()
        first = self._spawn(kind, is_last=is_last)
        while self._alive:
            self._turn %= len(self._alive)
            process = self._alive[self._turn]
            self._current = process
            process.go_on()
            self._current = None
            if process.is_over:
                self._alive.remove(process)
                self._ended(process)
            if self.violations:
                for one in self._alive:
                    one.kill()
                self._alive.clear()
        if kind in OFFLINE and not self.violations:
            self.truth.audited(known)
        return None if first.is_dead else first

    def _spawn(self, kind: str, *, is_last: bool = False) -> Process:
        process = Process(kind, partial(self._live, kind, is_last))
        self._processes.append(process)
        self._alive.append(process)
        self.reached[f"session: {kind}"] += 1
        return process

    def _live(self, kind: str, is_last: bool, process: Process) -> None:
        """Live the life of a pytest, as its plugin has it."""
        made: Run | None = None
        try:
            made = self._make(kind, is_last=is_last)
            self._prepare(made, process)
        except ManifestToolError as error:
            if made is not None:
                made.abandon()
            self._refused(process, kind, error, is_last=is_last)
            return
        except BaseException:
            if made is not None:
                made.abandon()
            raise
        self.truth.begin(process, made)
        made.start()
        self._done(made, is_last=is_last)

    def _make(self, kind: str, *, is_last: bool) -> Run:
        settings, at = self._settings(is_last=is_last), address(is_private=self.program.is_private)
        names = self.names
        ledger = self._ledger()
        if kind == "dispatch":
            return dispatch_run(self.manifest, names, at, settings)
        assert ledger is not None
        if kind in OFFLINE:
            settings = replace(settings, kills=RunSettings(self.runs).kills)  # as nobody names them
        if kind in OFFLINE and self.program.is_private:
            return audit_run(self.manifest, ledger, NO_STACK, settings, wait=False)
        if kind in OFFLINE:
            return audit_run(self.manifest, ledger, at, settings, wait=kind == "wait")
        if kind == "part":
            names = names[::2]
        settings = replace(settings, unsafe=kind == "unsafe")
        return resume_run(self.manifest, ledger, names, at, settings)

    def _prepare(self, made: Run, process: Process) -> None:
        self._run_of[process] = made
        signals = made.signals  # before anything waits for them
        signals.stop = VirtualEvent(self.world.clock)
        signals.interrupted = VirtualEvent(self.world.clock)
        signals.force_stop = VirtualEvent(self.world.clock)
        made.on_verdicts(partial(self.truth.told, process))
        made.watch_health(self._answer if self.program.health else None)
        if self.program.is_private:
            before = len(self.world.losses)
            made.watch_stack(lambda: self.world.losses[before:], lambda: None)
        made.prepare()
        made.take_effect()

    def _answer(self) -> object:
        """Say how well the project does; all is well once the world is fair."""
        answer = next(self._health, "ok") if self._fair_since is None else "ok"
        self.reached[f"health: {answer}"] += 1
        if answer == "raise":
            raise OSError("no answer")
        if answer != "nonsense":
            self._said[self._current] = answer
        return answer, "as it is drawn"

    def _published(self, attempts: Sequence[Attempt]) -> None:
        """Nothing is sent faster than it may be, nor while the project says stop."""
        process, program = self._current, self.program
        self.reached["sent at a rate"] += program.rate is not None
        self.reached["sent by the depth of the queue"] += program.depth is not None
        if process is not None and program.rate is not None:
            now, all_sent = self.world.clock.now, sum(self.world.published.values())
            first, before = self._first.setdefault(process, (now, all_sent))
            sent = all_sent - before + len(attempts)
            if sent > (now - first) * program.rate + 1.0 + program.rate * BURST + 1e-6:
                self.violations.append(f"pressure: {sent} were sent within {now - first:g} s")
        if self._said.get(process) == "stop":
            self.violations.append("pressure: it was sent while the project's health said stop")
        self.truth.published(attempts)

    def _refused(
        self, process: Process, kind: str, error: ManifestToolError, *, is_last: bool
    ) -> None:
        """A session ended before it began, which it may for a reason."""
        alone = len(self._alive) == 1
        if "followed by another pytest" in str(error):
            self.reached["session: refused beside another"] += 1
            if alone:
                self.violations.append(f"S6 a dead pytest still holds the run: {error}")
        elif is_last:
            self.violations.append(f"L1 in a fair world {kind} was refused: {error}")
        else:
            self.reached["session: refused"] += 1
            self._gap = 3
            self.world.clock.sleep(LATER)

    def _done(self, made: Run, *, is_last: bool) -> None:
        if made.error is not None:
            sentence = str(made.error)
            if "internal error" in sentence:
                self.violations.append(f"fault {sentence}")
            elif is_last and not self._dies_again_and_again(sentence):
                self.violations.append(f"L1 in a fair world the run gave up: {sentence}")
            cause = "a worker does not stay up" if "times in a row" in sentence else "out of reach"
            self.reached[f"session: gave up, {cause}"] += 1
        made.compact_ledger()

    def _dies_again_and_again(self, sentence: str) -> bool:
        return "times in a row" in sentence and len(self.world.losses) >= CRASH_LOOP

    def _ended(self, process: Process) -> None:
        """A process is no more: its stack goes with it, and its ledger must be right."""
        self.world.forget_process()
        if process.error is not None and not process.is_dead:
            lines = "".join(traceback.format_exception(process.error))
            self.violations.append(f"fault in {process.name}: {lines}")
        run = self._run_of.get(process)
        if self.program.is_private and not self._alive:
            leaves = process.is_dead or run is None or run.state.leaves_jobs
            self.world.end_stack(forget=not leaves and run is not None and run.strategy.sends)
        if not self._alive:
            self.truth.consistent()
            self._ends += 1
            if self._ends % LOOKED_AT == 1:
                self._judge_later()

    def _judge_later(self) -> None:
        ledger = self._ledger()
        if ledger is not None and not self.violations:
            with self._outside():
                self.later.look(ledger)

    def _settings(self, *, is_last: bool) -> RunSettings:
        program = self.program
        limit = program.max_failed
        return RunSettings(
            folder=self.runs,
            window=program.window,
            deadline=FOREVER if is_last else program.deadline,
            canary=program.canary,
            max_failed=None if limit is None else FailureLimit(limit),
            revoke_on_max_failed=program.revoke_on_max_failed,
            budget=None if is_last else program.budget,
            kills=program.kills,
            repair=program.repair,
            rates={} if program.rate is None else {"": Rate(program.rate)},
            queue_depth=program.depth,
        )

    def _ledger(self) -> Path | None:
        """Find the run that a later session would take up."""
        if self._found is None or not self._found.exists():
            with self._outside():
                found = find_runs(self.runs) if self.runs.is_dir() else []
            self._found = found[-1] if found else None
        return self._found

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Do what no simulated process does: nothing of it is a moment, or dies with one."""
        current, self._current = self._current, None
        try:
            yield
        finally:
            self._current = current

    # What happens

    def _time_passed(self) -> None:
        self.world.tick()
        self._moment("clock")

    def _moment(self, kind: str) -> None:
        """The current process has done something, or is about to: whatever is due happens."""
        process = self._current
        if process is None or process.is_dead:
            return
        self._end_what_is_over(process)
        for step in self._script.due():
            self._happen(step, process, kind)
            if process.is_dead:
                break
        self._give_orders()
        self._script.pass_moment()
        if self._script.is_over and self._fair_since is None:
            self._become_fair()
        if self.violations and not process.is_dead:
            process.kill()
        if process.is_dead:
            process.pause()
        elif len(self._alive) > 1:
            self._turn += 1
            process.pause()

    def _end_what_is_over(self, process: Process) -> None:
        since = self._fair_since
        if since is not None and self.world.clock.now > since + BOUND * MOST_SESSIONS:
            self.violations.append(f"L1 {process.name} does not come to its end in a fair world")

    def _happen(self, step: Step, process: Process | None, kind: str) -> None:
        """Do what a step says; without a process, what can happen to the world alone."""
        self.steps += 1
        if step.act == "crash":
            if process is not None:
                where = "between two replies of Redis" if kind == "reply" else f"at: {kind}"
                self.reached[f"killed {where}"] += 1
                self._gap = step.number % 4
                process.kill()
        elif step.act == "second":
            if process is not None and len(self._alive) == 1 and self._ledger() is not None:
                self._spawn(("resume", "wait", "audit")[step.number % 3])
        elif step.act == "stop":
            if process is not None and process in self._run_of:
                self._run_of[process].begin_stop(interrupted=step.number % 2 == 1)
                self.reached["session: stopped"] += 1
        elif step.act == "operator":
            self._orders.append(order_of(step.number, self.names))
        elif step.act == "idle":
            self._script.wait(int(SECONDS[step.number % len(SECONDS)] / PACE))
        elif step.act == "fair":
            self.world.fair = True
            self.world.later(SECONDS[step.number % len(SECONDS)], self._unfair)
        else:
            worker = self.world.workers[f"w{step.worker}@box"]
            getattr(self.actions, step.act)(worker, step.number)

    def _give_orders(self) -> None:
        """Write down what operators want, as soon as no other process is writing."""
        path = self._ledger() if self._orders else None
        if path is None:
            return
        with self._outside(), suppress(LedgerError), Ledger.open(path, write=True) as ledger:
            while self._orders:
                action, data = self._orders[0]
                ledger.commands.add(action, "operator", "", data)
                self._orders.popleft()
                self.reached[f"operator: {action}"] += 1
                self.world.has_deadline |= "deadline" in data

    def _unfair(self) -> None:
        self.world.fair = self._fair_since is not None

    def _between_sessions(self) -> None:
        """Let go on what goes on without a pytest."""
        for step in self._script.skip_to(self._gap):
            self._happen(step, None, "nobody")
        self._give_orders()
        self._gap = 0

    def _become_fair(self) -> None:
        if self._fair_since is None:
            self._fair_since = self.world.clock.now
            self._orders.clear()  # what could not be written so far never is
            self._orders.append(("resume", {}))
            self.world.refuses = 0.0
            self.world.become_fair()
        if not self.program.is_private:  # what may have begun is not put back by pytest
            self.world.gives_back_after = VISIBILITY
