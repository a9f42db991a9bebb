"""Have each write of a short run fail, and print the table: ``python -m tests.writes``.

Or ``make writes``; ``--write`` puts the table into the page of the promises, where the rows of what
was not run this time stay. Each session is kept in ``build/writes``; ``--go-on`` plays those that
are not there yet.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tests.page_tables import PROMISES, put, taken
from tests.writes.disk import FAULTS, Call, is_possible
from tests.writes.ledger import fail_each_call
from tests.writes.playing import STACKS, Job, play_all, sample
from tests.writes.trials import Trial

FOLDER = Path("build/writes")
LEDGER = "a ledger alone"
PARTS = (LEDGER, *STACKS)
TURNS = ", in turn"
NAMES = (LEDGER, *(f"pytest, stack {stack}{turns}" for stack in STACKS for turns in ("", TURNS)))
"""What the page calls that which runs."""
FEW = 1
"""Of a private stack, whose sessions take seconds each."""
HEAD = (
    "| what runs | what fails | failed | not reached | went on | ended, completed | "
    "killed, completed | not all passed | wrong |"
)


@dataclass
class Row:
    """What came of a fault at each of the calls."""

    where: str
    fault: str
    outcomes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    wrong: int = 0

    def add(self, trial: Trial) -> None:
        self.outcomes[trial.outcome] += 1
        self.left += trial.is_left
        self.wrong += bool(trial.wrong)

    def __str__(self) -> str:
        kinds = [*(self.outcomes[one] for one in ("went on", "ended", "killed")), self.left]
        shown = ["" if self.where == LEDGER else f"{one:,}" for one in kinds]
        missed = self.outcomes["not reached"]
        failed = sum(self.outcomes.values()) - missed
        cells = [self.where, self.fault, f"{failed:,}", f"{missed:,}", *shown, f"{self.wrong:,}"]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Choice:
    """Which calls of a session fail: some of each kind, None for all; in every way, or in one of
    the ways ``in_turn``."""

    each: int | None
    in_turn: bool
    seed: int

    def jobs(self, calls: Sequence[Call]) -> list[Job]:
        """Return each fault and the calls that it is tried on, mixed: what is wrong shows early."""
        if self.in_turn:
            numbers = sample(calls, self.each or sys.maxsize, self.seed)
            made = [(FAULTS[n % len(FAULTS)].name, at) for n, at in enumerate(numbers)]
        else:
            made = [
                (fault.name, at)
                for number, fault in enumerate(FAULTS)
                for at in sample(calls, self.each or sys.maxsize, self.seed + number)
            ]
        random.Random(self.seed).shuffle(made)
        return made

    def __str__(self) -> str:
        ways = "one of the ways" if self.in_turn else "every way"
        if self.each is None:
            return f"every call in {ways}"
        return f"{self.each} of each kind in {ways}, chosen by seed {self.seed}"


def table(told: Mapping[str, str], rows: Iterable[Row], before: str = "") -> str:
    """Write which calls of each part have failed, as ``told``, and a table in Markdown.

    Of other parts what stands in ``before`` is kept.
    """
    said: dict[str, list[str]] = {name: [] for name in NAMES}
    lines: dict[str, list[str]] = {name: [] for name in NAMES}
    for line in before.splitlines():
        for where in NAMES:
            if line.startswith(f"- {where}: "):
                said[where] = [line]
            elif line.startswith(f"| {where} | "):
                lines[where].append(line)
    for where, which in told.items():
        said[where], lines[where] = [f"- {where}: {which}"], []
    for row in rows:
        lines[row.where].append(str(row))
    head = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    return "\n".join([*chain(*said.values()), "", *head, *chain(*lines.values())])


def of_ledger(scratch: Path) -> list[Row]:
    """Have each call fail that writes a ledger."""
    rows = []
    for number, fault in enumerate(FAULTS):
        calls, wrong = fail_each_call(scratch / str(number), fault)
        print(f"{LEDGER}, {fault.name}: {calls} calls, wrong: {wrong}", file=sys.stderr)
        rows.append(Row(LEDGER, fault.name, Counter({LEDGER: calls}), wrong=len(wrong)))
    return rows


class Sessions:
    """Sessions of which chosen calls fail, and what came of them; each is kept in a file."""

    def __init__(self, stack: str, choice: Choice) -> None:
        self._stack = stack
        self._choice = choice
        self.name = f"pytest, stack {stack}{TURNS if choice.in_turn else ''}"
        self._rows = {fault.name: Row(self.name, fault.name) for fault in FAULTS}
        self._path = FOLDER / f"{stack}.jsonl".replace(" ", "-")
        self._played = 0
        self._planned = 0

    @property
    def rows(self) -> Sequence[Row]:
        return list(self._rows.values())

    def __str__(self) -> str:
        """Say which calls have failed."""
        left = self._planned - self._played
        so_far = f": {self._played:,} of {self._planned:,} so far, chosen at random"
        return f"{self._choice}{so_far if left else ''}"

    def play(self, scratch: Path, processes: int, until: float, *, go_on: bool) -> None:
        """Play them until this moment (s, monotonic), where ``go_on`` only those not kept yet."""
        before = self._path.read_text("utf-8").splitlines() if go_on and self._path.exists() else []
        with self._path.open("a" if go_on else "w", encoding="utf-8") as file:

            def jobs(calls: Sequence[Call]) -> Iterable[Job]:
                left = dict.fromkeys(self._choice.jobs(calls))
                self._planned = len(left)
                for trial in map(Trial.read, before):
                    if (trial.fault, trial.at) in left:
                        del left[trial.fault, trial.at]
                        self._add(trial)
                of_calls = f"of {len(calls)} calls {self._choice}"
                print(f"{self._stack}: {of_calls}: {len(left)} sessions", file=sys.stderr)
                return left

            def told(trial: Trial) -> None:
                self._add(trial)
                file.write(trial.line() + "\n")
                file.flush()

            play_all(scratch, self._stack, processes, jobs, told, until)

    def _add(self, trial: Trial) -> None:
        self._played += 1
        self._rows[trial.fault].add(trial)
        if trial.wrong:
            print(f"{self._stack}, {trial.fault}, {trial.call}: {trial.wrong}", file=sys.stderr)


def main() -> int:
    """Print the table; return 1 where something was wrong, 2 where it cannot be found out."""
    parser = argparse.ArgumentParser(prog="python -m tests.writes", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="what is run (all)")
    every = f"how many calls of each kind fail (all; of a private stack {FEW})"
    parser.add_argument("--each", type=int, help=every)
    turn = "each of these calls fails in one of the ways, the next one in the next"
    parser.add_argument("--in-turn", action="store_true", help=turn)
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--processes", type=int, default=2, help="how many sessions at once")
    minutes = "begin no other session after so many minutes (all are played)"
    parser.add_argument("--minutes", type=float, default=math.inf, help=minutes)
    kept = f"play the sessions alone that are not in {FOLDER} yet"
    parser.add_argument("--go-on", action="store_true", help=kept)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PROMISES}")
    given = parser.parse_args()
    if not is_possible():
        print("a disk that fails needs Linux and gcc: apt-get install gcc libc6-dev")
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * given.minutes
    rows: list[Row] = []
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="manifest-writes-") as name:
        for part in given.part or PARTS:
            place = Path(name) / part.replace(" ", "-")
            if part == LEDGER:
                rows += of_ledger(place)
                told[LEDGER] = str(Choice(None, in_turn=False, seed=given.seed))
                continue
            each = given.each or (FEW if part == "private" else None)
            sessions = Sessions(part, Choice(each, given.in_turn, given.seed))
            sessions.play(place, given.processes, until, go_on=given.go_on)
            rows += sessions.rows
            told[sessions.name] = str(sessions)
    print(table(told, rows))
    (FOLDER / "table.md").write_text(table(told, rows) + "\n", "utf-8")
    if given.write:
        put(PROMISES, "writes", table(told, rows, taken(PROMISES, "writes")))
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
