"""A scenario: entries, a stack, a fault, and how one round of it is run."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import ManifestToolError
from tests.chaos.executions import count, read_lines
from tests.chaos.judge import Evidence, Outcome, judge, unlike_reports
from tests.chaos.operator_faults import steering_flaws
from tests.chaos.reconcile import Account, Books, reconcile
from tests.chaos.record import Told, read_outcomes, read_sendings, read_starts, read_verdicts
from tests.chaos.session import Family
from tests.chaos.stacks import NO_SERVERS, Embedded, External, Servers, Setup
from tests.chaos.stage import Stage
from tests.chaos.workload import QUEUE, Group, Json, build
from tests.disks import small_disk
from tests.records import broken_in

BOUND_SECONDS = 200.0
"""When waiting for a run's end stops; how long it took is in the report."""
HANG = "pytest did not end"
MOST_BROKEN = 20
DEADLINE = "--manifest-deadline=80s"
EMBEDDED = Setup()
Fault = Callable[[Stage], None]


def nothing(stage: Stage) -> None:
    """No fault from outside: what the entries do themselves is fault enough."""
    stage.moment(1, 1, jitter=0.0)


@dataclass(frozen=True)
class Scenario:
    """``then``: options of further sessions, after the first has ended (or was killed by the
    fault); ``damage``: entries that may at most not pass; ``forced``: the fault makes jobs run
    twice; ``app``: settings of the Celery app; ``manifests``: files that the entries are in;
    ``disk``: a folder of the project that is a small disk of its own; ``breaks``: what it breaks
    of all that the promises take for granted, so that what was called lost may come."""

    name: str
    groups: tuple[Group, ...]
    fault: Fault = nothing
    setup: Setup = EMBEDDED
    options: tuple[str, ...] = ()
    then: tuple[tuple[str, ...], ...] = ()
    damage: int | None = None
    forced: bool = False
    app: Mapping[str, Json] = field(default_factory=dict)
    bound: float = BOUND_SECONDS
    manifests: int = 1
    disk: str = ""
    breaks: str = ""


@contextmanager
def staged(
    scenario: Scenario,
    seed: int,
    folder: Path,
    servers: Servers = NO_SERVERS,
    prepare: Callable[[Stage], None] = lambda _: None,
) -> Iterator[Stage]:
    """The project and the stack, nothing launched; at the end no process is left, nor a message."""
    rng = random.Random(f"{scenario.name}/{seed}")
    family, setup = Family(), scenario.setup
    app = dict(scenario.app)
    queue = QUEUE
    if setup.kind == "rabbitmq":  # one server for all rounds, so each has a queue of its own
        queue = app["task_default_queue"] = f"chaos-{secrets.token_hex(4)}"
    members = build(folder, scenario.groups, rng, app=app, manifests=scenario.manifests)
    stack = (
        Embedded(setup, folder, family)
        if setup.kind == "embedded"
        else External(setup, folder, servers, queue)
    )
    stage = Stage(folder, rng, members, stack, family)
    try:
        prepare(stage)
        stack.start()
        yield stage
        stage.end()
        stage.counted = count(folder)
        stage.remains = stack.drain()
    finally:
        stage.end()
        stack.stop()


@dataclass(frozen=True)
class Round:
    """What came of one round; ``said``: the output of pytest and of the harness's stack."""

    outcome: Outcome
    stage: Stage
    verdicts: Mapping[str, Told]
    said: str


def play(
    scenario: Scenario,
    seed: int,
    folder: Path,
    servers: Servers = NO_SERVERS,
    prepare: Callable[[Stage], None] = lambda _: None,
) -> Round:
    """One round: run it with its fault, and judge it. ``prepare`` may add to the project first."""
    with small_disk(folder / scenario.disk) if scenario.disk else nullcontext():
        return _play(scenario, seed, folder, servers, prepare)


def _play(
    scenario: Scenario,
    seed: int,
    folder: Path,
    servers: Servers,
    prepare: Callable[[Stage], None],
) -> Round:
    flaws: list[str] = []
    with staged(scenario, seed, folder, servers, prepare) as stage:
        stage.launch((DEADLINE, *scenario.options))
        try:
            scenario.fault(stage)
        except AssertionError as error:  # the round is judged all the same
            flaws.append(f"the fault could not be injected: {error}")
        flaws += _finish(stage, scenario)
        said = "\n".join(f"-- {s.log.name}\n{s.output()[-6000:]}" for s in stage.sessions)
        said += "\n" + stage.stack.log()
    verdicts = read_verdicts(stage.ledgers())
    evidence = Evidence(
        stage.members,
        verdicts,
        stage.counted,
        afterwards=count(folder),
        announced=read_starts(stage.ledgers()),
        hits=stage.hits,
        hurried=stage.hurried,
        aimed=frozenset(stage.aimed),
        forced=scenario.forced,
        damage=scenario.damage,
        injected=stage.injected,
    )
    outcome = judge(scenario.name, seed, evidence)
    outcome.breaks = scenario.breaks
    outcome.add_account(_account(stage, scenario))
    outcome.record += _broken_promises(stage)
    outcome.hangs += [flaw for flaw in flaws if flaw.startswith(HANG)]
    flaws = [flaw for flaw in flaws if flaw not in outcome.hangs]
    outcome.other += flaws + [f"left behind: {name}" for name in stage.leftovers]
    last = stage.session
    outcome.other += unlike_reports(
        verdicts, read_outcomes(last.junit), last.output(), last.process.returncode
    )
    return Round(outcome, stage, verdicts, said)


def _broken_promises(stage: Stage) -> list[str]:
    """What ``manifest check`` would say of each record, in its words, or why it can say nothing."""
    found: list[str] = []
    for path in stage.ledgers():
        try:
            found += islice(broken_in(StoredRun.open(path)), MOST_BROKEN)
            found += steering_flaws(path)
        except ManifestToolError as error:
            found.append(f"{path.name} cannot be checked: {error}")
    return found


def _account(stage: Stage, scenario: Scenario) -> Account:
    books = Books(
        stage.members,
        read_lines(stage.folder),
        read_sendings(stage.ledgers()),
        stage.remains,
        killed=dict(stage.hits),
        forced=scenario.forced,
    )
    return reconcile(books)


def _finish(stage: Stage, scenario: Scenario) -> list[str]:
    """Wait for the end, hold the further sessions; what was not as it should be."""
    flaws = _await_end(stage, scenario)
    for further in scenario.then:
        # A session that was ended before it had begun a run has left none to go on with.
        options = tuple(one for one in further if one != "--manifest-resume" or stage.ledgers())
        stage.launch((DEADLINE, *options))
        flaws += _await_end(stage, scenario)
    if len(stage.ledgers()) > scenario.manifests:
        flaws.append(f"{len(stage.ledgers())} ledgers: a second run was begun")
    return flaws


def _await_end(stage: Stage, scenario: Scenario) -> list[str]:
    session = stage.session
    if not session.wait(scenario.bound):
        session.end()
        return [f"{HANG} within {scenario.bound:g} s"]
    flaws = []
    if "INTERNALERROR" in session.output():
        flaws.append("pytest had an internal error")
    if session.process.returncode in (0, 1) or session.pid in dict(stage.hits):
        return flaws
    return [*flaws, f"pytest ended with exit code {session.process.returncode}"]
