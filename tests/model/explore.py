"""Explore the model of the promises whole with Spin, as it is and with each rule broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.c_compiler import COMPILER, can_compile

MODEL = Path(__file__).with_name("promises.pml")
MEMORY = 6000
"""MB that one exploration may take."""
DEPTH = 2_000_000
Settings = Mapping[str, int]

FAST: Settings = {"WHOLE_LOOKS": 1}
STEERED: Settings = {"WHOLE_LOOKS": 1, "WORKERS": 1, "CRASHES": 0, "ORDERS": 2}
RESUMED: Settings = {"WHOLE_LOOKS": 1, "WORKERS": 1, "SESSIONS": 2, "CRASHES": 0}


@dataclass(frozen=True)
class Exploration:
    """A variant of the model, and what is to come of it.

    ``red``: the promise that must be found broken, None where all must hold; 7 stands for L1, and 8
    for what is promised to an operator.
    """

    name: str
    settings: Settings = field(default_factory=dict)
    red: int | None = None
    rule: int = 0
    trust: int = 0

    @property
    def is_liveness(self) -> bool:
        return "LIVENESS" in self.settings

    @property
    def defines(self) -> list[str]:
        given = dict(self.settings)
        if self.rule:
            given["RULE"] = self.rule
        if self.trust:
            given["TRUST"] = self.trust
        if self.red is not None and not self.is_liveness:
            given["ONLY"] = self.red
        return [f"-D{name}={value}" for name, value in given.items()]


@dataclass(frozen=True)
class Explored:
    """What Spin has found: how many states, and whether a promise was broken."""

    exploration: Exploration
    states: int
    seconds: float
    is_red: bool
    is_whole: bool

    @property
    def as_expected(self) -> bool:
        return self.is_red if self.exploration.red is not None else self.is_whole


HOLDS: Sequence[Exploration] = (
    Exploration("a crash, each step of a look by itself"),
    Exploration("a crash, a redelivery", {**FAST, "REDELIVERIES": 1}),
    Exploration("a crash, a flush", {**FAST, "WORKERS": 1, "FLUSHES": 1}),
    Exploration("a crash, a worker paused", {**FAST, "PAUSES": 1}),
    Exploration(
        "a flush, the store away", {**FAST, "WORKERS": 1, "FLUSHES": 1, "OUTAGES": 1, "CRASHES": 0}
    ),
    Exploration("pytest killed, a crash, resumed", {**RESUMED, "KILLS": 1, "CRASHES": 1}),
    Exploration("pytest killed, a flush, resumed", {**RESUMED, "KILLS": 1, "FLUSHES": 1}),
    Exploration(
        "turned away, a redelivery, resumed", {**RESUMED, "REFUSALS": 1, "REDELIVERIES": 1}
    ),
    Exploration("two entries", {**FAST, "ENTRIES": 2, "ALIKE": 1, "WORKERS": 1, "CRASHES": 0}),
    Exploration("an operator's two commands", STEERED),
    Exploration(
        "an operator's command, pytest killed, resumed", {**RESUMED, "KILLS": 1, "ORDERS": 1}
    ),
    Exploration(
        "L1: every session ends", {**FAST, "WORKERS": 1, "CRASHES": 1, "OUTAGES": 1, "LIVENESS": 1}
    ),
)

BROKEN: Sequence[Exploration] = (
    Exploration("the intent is noted after the message", {**RESUMED, "KILLS": 1}, 1, rule=1),
    Exploration("two pytests have one ledger", RESUMED, 1, rule=2),
    Exploration("what is uncertain is sent again unsearched", FAST, 1, rule=4),
    Exploration("a look counts for what was sent just now", {**FAST, "CRASHES": 0}, 1, rule=23),
    Exploration("a resumed run searches nothing", {**RESUMED, "KILLS": 1}, 2, rule=5),
    Exploration(
        "a resumed run believes an emptied store", {**RESUMED, "KILLS": 1, "FLUSHES": 1}, 2, rule=6
    ),
    Exploration("what had begun is put back", FAST, 2, rule=7),
    Exploration("put back before the store is asked", {**FAST, "FLUSHES": 1}, 2, rule=18),
    Exploration(
        "resumed: put back before receipts are read",
        {**RESUMED, "KILLS": 1, "CRASHES": 1},
        2,
        rule=24,
    ),
    Exploration(
        "turned away is taken for gone",
        {**RESUMED, "REFUSALS": 1, "REDELIVERIES": 1},
        2,
        rule=17,
    ),
    Exploration("one look counts", FAST, 3, rule=3),
    Exploration("receipts are not read after the looks", FAST, 3, rule=8),
    Exploration("silence counts as a no", {**FAST, "PAUSES": 1, "CRASHES": 0}, 3, rule=9),
    Exploration("an emptied store counts", {**FAST, "FLUSHES": 1}, 3, rule=10),
    Exploration(
        "a store that is away counts as whole",
        {**FAST, "WORKERS": 1, "FLUSHES": 1, "OUTAGES": 1},
        3,
        rule=19,
    ),
    Exploration(
        "executions are not counted", {**FAST, "REDELIVERIES": 1, "CRASHES": 0}, 4, rule=12
    ),
    Exploration("an earlier attempt's receipt counts", {**FAST, "REDELIVERIES": 1}, 4, rule=21),
    Exploration("the deadline replaces verdicts", FAST, 5, rule=13),
    Exploration(
        "a correction fails no session", {**FAST, "REDELIVERIES": 1, "CRASHES": 0}, 5, rule=20
    ),
    Exploration("only what is out is judged at the end", FAST, 6, rule=14),
    Exploration(
        "a place seen before the end counts",
        {**RESUMED, "REFUSALS": 1, "REDELIVERIES": 1},
        6,
        rule=25,
    ),
    Exploration("a second message has a deadline of its own", FAST, 7, rule=16),
    Exploration(
        "a resume forgets what was cancelled", {**RESUMED, "KILLS": 1, "ORDERS": 1}, 8, rule=26
    ),
    Exploration("a retry forgets what was cancelled", {**FAST, "ORDERS": 1}, 8, rule=27),
    Exploration("a requeue does not look for the job", STEERED, 8, rule=28),
    Exploration(
        "the answer is written before the effect",
        {**RESUMED, "KILLS": 1, "ORDERS": 1},
        8,
        rule=29,
    ),
    Exploration("a requeue reads no reports after its looks", STEERED, 2, rule=30),
    Exploration("the run has no deadline", {**FAST, "WORKERS": 1, "LIVENESS": 1}, 7, rule=15),
)

UNTRUSTED: Sequence[Exploration] = (
    Exploration("a message is on its way for longer than the gap", FAST, 3, trust=1),
    Exploration("a message comes back within the gap", {**FAST, "REDELIVERIES": 1}, 3, trust=2),
    Exploration("a job begins without its start written", {**FAST, "OUTAGES": 1}, 3, trust=3),
)


def missing_tools() -> list[str]:
    """Name the programs that are needed and not installed."""
    lacking = [] if shutil.which("spin") else ["spin"]
    return lacking if can_compile() else [*lacking, COMPILER]


def explore(one: Exploration, folder: Path) -> Explored:
    """Generate the verifier of a variant in ``folder``, compile it, and run it to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(MODEL, folder / MODEL.name)
    _call(["spin", "-a", *one.defines, MODEL.name], folder)
    options = ["-DNFAIR=4"] if one.is_liveness else ["-DSAFETY", "-DNOFAIR"]
    limits = ["-DCOLLAPSE", "-DVECTORSZ=2048", f"-DMEMLIM={MEMORY}"]
    _call([COMPILER, "-O3", "-w", *options, *limits, "-o", "pan", "pan.c"], folder)
    fair = ["-a", "-f"] if one.is_liveness else []
    said = _call(["./pan", "-E", *fair, f"-m{DEPTH}", "-w22"], folder)
    errors, states = _number(r"errors: (\d+)", said), _number(r"(\d+) states, stored", said)
    seconds = float(_found(r"elapsed time ([\d.e+-]+) seconds", said))
    print(f"{one.name}: {states:,} states, {errors} errors, {seconds:.0f} s", file=sys.stderr)
    cut_short = "Search not completed" in said or "max search depth too small" in said
    return Explored(one, states, seconds, errors > 0, errors == 0 and not cut_short)


def explore_all(these: Sequence[Exploration], folder: Path, processes: int) -> list[Explored]:
    """Explore all of these, so many at a time; the results are in their order."""
    with ThreadPoolExecutor(processes) as pool:
        places = [folder / f"{number:02}" for number in range(len(these))]
        return list(pool.map(explore, these, places))


def table(explored: Sequence[Explored]) -> str:
    """Write a table in Markdown: promise, what was changed, states, what was found."""
    lines = ["| promise | model | states | s | found |", "|---|---|---|---|---|"]
    for one in explored:
        it = one.exploration
        promise = {None: "S1-S6", 7: "L1", 8: "steering"}.get(it.red, f"S{it.red}")
        if it.red is None and it.is_liveness:
            promise = "L1"
        found = "broken" if one.is_red else "holds" if one.is_whole else "not explored whole"
        mark = "" if one.as_expected else " (WRONG)"
        lines.append(
            f"| {promise} | {it.name} | {one.states:,} | {one.seconds:.0f} | {found}{mark} |"
        )
    return "\n".join(lines)


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"Spin has not said {pattern!r}: {text[-2000:]}")
    return match.group(1)


def _number(pattern: str, text: str) -> int:
    return int(float(_found(pattern, text)))
