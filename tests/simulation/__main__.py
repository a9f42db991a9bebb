"""Search for a broken promise at random: ``python -m tests.simulation``, or ``make simulate``.

``--seconds`` says for how long, ``--seed`` where to begin; ``--go-on`` goes on where the last
search of this seed has ended, and adds up; ``--write`` puts the table into the page of the
promises. A program that breaks a promise is made small and kept among the examples.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import math
import os
import re
import secrets
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from tests.page_tables import PROMISES, put
from tests.simulation.program import Program, draw
from tests.simulation.shrink import promise_of, shrink
from tests.simulation.simulation import play
from tests.simulation.situations import never_reached, situations, table

EXAMPLES = Path(__file__).with_name("examples")
FIGURES = Path("build/simulation.json")
PLAYED = ("pytest_manifest/**/*.py", "tests/simulation/*.py", "tests/unit/run_*.py")
"""The code that a program plays, or is played by."""
CHUNK = 10
"""Programs that a process plays before it says what it has found."""
CHUNKS = 100
"""Of these so many are played before the processes are replaced: the stand-in of the Redis client
keeps each class of connections that it has met, and with it a whole world."""


@dataclass
class Found:
    """What a search has come to."""

    programs: int = 0
    steps: int = 0
    seconds: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    """Seed of a program -> the first promise that it breaks, and how."""

    def add(self, other: Found) -> None:
        """Count another part of the search in."""
        self.programs += other.programs
        self.steps += other.steps
        self.reached += other.reached
        self.broken |= other.broken


def search_chunk(seed: str, first: int) -> Found:
    """Play some programs, each of a seed of its own.

    What they leave is collected at their end: a search for it meanwhile took a quarter of the time.
    """
    gc.collect()
    gc.disable()
    found = Found()
    for number in range(first, first + CHUNK):
        name = f"{seed}:{number}"
        outcome = play(draw(name))
        found.programs += 1
        found.steps += outcome.steps
        found.reached += outcome.reached
        if outcome.violations:
            found.broken[name] = outcome.violations[0]
            break
    return found


def search(found: Found, seed: str, seconds: float, most_steps: int, processes: int) -> None:
    """Play programs for so long, or until one breaks a promise; add to what was ``found`` so far.

    As long again where a situation was not reached yet: a machine may be busy.
    """
    firsts = count(found.programs, CHUNK)
    until = time.monotonic() + seconds

    def is_over() -> bool:
        left = until - time.monotonic()
        is_late = left <= -seconds or (left <= 0 and not never_reached(situations(found.reached)))
        return bool(found.broken) or found.steps >= most_steps or is_late

    while not is_over():
        with ProcessPoolExecutor(processes, initializer=gc.freeze) as pool:
            going: set[Future[Found]] = set()
            begun = 0
            while True:
                while begun < CHUNKS and not is_over() and len(going) < processes:
                    going.add(pool.submit(search_chunk, seed, next(firsts)))
                    begun += 1
                if not going:
                    break
                done, going = wait(going, return_when=FIRST_COMPLETED)
                for one in done:
                    found.add(one.result())


def code_digest() -> str:
    """Return a digest of the code that is played: what another code has shown does not add up."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in PLAYED for path in Path().glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_figures(seed: str, found: Found, code: str) -> None:
    """Write what a search has come to, for people and to go on with it."""
    FIGURES.parent.mkdir(exist_ok=True)
    figures = {
        "seed": seed,
        **vars(found),
        "situations": [asdict(one) for one in situations(found.reached)],
        "code": code,
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def found_earlier(seed: str) -> Found:
    """Read what the last search has come to. Raises ValueError where this one cannot go on."""
    figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    if figures.get("seed") != seed:
        raise ValueError(f"{FIGURES} has no search of seed {seed!r}; begin one without --go-on")
    if figures["code"] != code_digest() or figures["broken"]:
        raise ValueError("the code has changed, or a promise was broken; begin without --go-on")
    named = {name: figures[name] for name in ("programs", "steps", "seconds")}
    return Found(**named, reached=Counter(figures["reached"]))


def keep(seed: str, violation: str, seconds: float) -> Path:
    """Make a program that breaks a promise small, and keep it as an example."""
    program: Program = shrink(draw(seed), seconds)
    path = (
        EXAMPLES / f"{re.sub(r'[^a-z0-9]+', '-', f'{promise_of(violation)}-{seed}'.lower())}.json"
    )
    path.write_text(replace(program, note=violation.splitlines()[0]).to_json(), "utf-8")
    return path


def main() -> int:
    """Search, and print what was found; 1 where a promise is broken or something is unreached."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=sys.maxsize, help="end after so many")
    parser.add_argument("--seed", default="")
    parser.add_argument("--go-on", action="store_true", help="add to the last search of the seed")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if not 0 < given.seconds < math.inf:  # it would end at once, or never
        parser.error(f"--seconds is {given.seconds}; give a number more than 0")
    seed = given.seed or secrets.token_hex(4)
    processes = int(os.environ.get("SIMULATION_PROCESSES", "2"))
    try:
        found = found_earlier(seed) if given.go_on else Found()
    except ValueError as error:
        parser.error(str(error))
    print(f"seed {seed}", flush=True)
    code = code_digest()  # it may change while it is played, and is loaded by now
    began = time.monotonic()
    search(found, seed, given.seconds, given.steps, processes)
    found.seconds = round(found.seconds + time.monotonic() - began, 1)
    reached = situations(found.reached)
    outcome = "a promise is broken" if found.broken else "no violation"
    text = (
        f"Seed {seed}: {found.steps:,} steps in {found.programs:,} programs, {processes} at a "
        f"time, within {found.seconds:,.0f} s: {outcome}.\n\n{table(reached)}"
    )
    print(text)
    write_figures(seed, found, code)
    for name, violation in found.broken.items():
        print(f"\nseed {name}: {violation}\nkept, made smaller: {keep(name, violation, 60.0)}")
    missed = never_reached(reached)
    if missed:
        print(f"\nnever reached: {', '.join(missed)}")
    if given.write and not (found.broken or missed):
        put(PROMISES, "simulation", text)
    return 1 if found.broken or missed else 0


if __name__ == "__main__":
    sys.exit(main())
