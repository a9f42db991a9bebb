"""Hold what survives against the mutants that are written down as equivalent, with the reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomllib

from tests.mutants.making import Mutant
from tests.mutants.modules import BY_NAME, PACKAGE, Judge

FILE = Path(__file__).with_name("equivalent.toml")
"""Mutants that do what the code does, each with the reason, by module."""
RAN = Path(__file__).with_name("ran.json")
"""The digest that each module of the page had when its mutants were tried."""
UNDECIDED = "hung"


@dataclass(frozen=True)
class Outcome:
    """The mutants of a module by what became of them; ``killed`` ones are counted alone."""

    mutants: int
    killed: int
    survivors: Counter[Mutant]
    undecided: Counter[Mutant]


@dataclass(frozen=True)
class Judged:
    """A module's outcome, and what of it must not be.

    ``equivalent``: how many survivors are written down. ``faults``: a sentence for each survivor
    that is not, for each entry that nothing survives for, and for what came to no result.
    """

    judge: Judge
    outcome: Outcome
    equivalent: int
    faults: tuple[str, ...]

    @property
    def survived(self) -> int:
        """Return how many mutants no test kills, though one should."""
        return self.outcome.mutants - self.outcome.killed - self.equivalent


def digest(judge: Judge) -> str:
    """Return the SHA-256 of a module's source as it is now."""
    return hashlib.sha256(Path(PACKAGE, judge.path).read_bytes()).hexdigest()


def changed_since(path: Path = RAN) -> set[str]:
    """Return the modules that have changed since their mutants were tried."""
    ran: dict[str, str] = json.loads(path.read_text("utf-8"))
    return {name for name, was in ran.items() if was != digest(BY_NAME[name])}


def read_outcome(path: Path) -> Outcome:
    """Read the file of a module's mutants that :mod:`tests.mutants.running` has written."""
    by_fate: dict[str, Counter[Mutant]] = {}
    found = json.loads(path.read_text("utf-8"))
    for one in found:
        mutant = Mutant(one["where"], one["was"], one["now"])
        by_fate.setdefault(one["fate"], Counter())[mutant] += 1
    undecided = by_fate.get(UNDECIDED, Counter())
    killed = by_fate.get("killed", Counter()).total()
    survivors = by_fate.get("survived", Counter()) + by_fate.get("untested", Counter())
    return Outcome(len(found), killed, survivors, undecided)


def read_equivalent(judge: Judge, path: Path = FILE) -> Counter[Mutant]:
    """Read the equivalent mutants of a module; ``times`` says how many places have one change."""
    tables = tomllib.loads(path.read_text("utf-8"))
    known: Counter[Mutant] = Counter()
    for one in tables.get(judge.name, ()):
        if not one["why"].strip():
            raise ValueError(f"{path}: {judge.name}: {one['where']} is without a reason")
        for now in one["now"] if isinstance(one["now"], list) else [one["now"]]:
            known[Mutant(one["where"], one["was"].strip(), now.strip())] += one.get("times", 1)
    return known


def judged(judge: Judge, outcome: Outcome, equivalent: Counter[Mutant]) -> Judged:
    """Hold a module's survivors against what is written down."""
    return Judged(
        judge,
        outcome,
        (outcome.survivors & equivalent).total(),
        tuple(_faults(judge, outcome, equivalent)),
    )


def _faults(judge: Judge, outcome: Outcome, equivalent: Counter[Mutant]) -> Iterator[str]:
    for mutant in (outcome.survivors - equivalent).elements():
        yield f"no test fails with this mutant: {_text(judge, mutant)}"
    for mutant in (equivalent - outcome.survivors).elements():
        yield f"written down as equivalent, and is not among the survivors: {_text(judge, mutant)}"
    for mutant in outcome.undecided.elements():
        yield f"its tests waited for too long, so run it again: {_text(judge, mutant)}"


def _text(judge: Judge, mutant: Mutant) -> str:
    was = "".join(f"\n  - {line}" for line in mutant.was.splitlines())
    now = "".join(f"\n  + {line}" for line in mutant.now.splitlines())
    return f"{judge.name}: {mutant.where}{was}{now}"


HEAD = (
    "| promise | module | mutants | killed | equivalent | survived |",
    "|---|---|---|---|---|---|",
)


def table(rows: Mapping[str, str], judges: Iterable[Judge]) -> str:
    """Write a table in Markdown: a row for each module, ``not run`` where there is none."""
    lines = [
        rows.get(one.name, f"| {one.promises} | `{one.name}` | not run | | | |") for one in judges
    ]
    return "\n".join([*HEAD, *lines])


def row(one: Judged) -> str:
    """Write a module's row."""
    numbers = one.outcome.mutants, one.outcome.killed, one.equivalent, one.survived
    figures = " | ".join(f"{number:,}" for number in numbers)
    return f"| {one.judge.promises} | `{one.judge.name}` | {figures} |"


def rows_of(text: str) -> dict[str, str]:
    """Return the rows of a table by the names of their modules, without those that were not run."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[2].startswith("`") and cells[3] != "not run":
            found[cells[2].strip("`")] = line
    return found
