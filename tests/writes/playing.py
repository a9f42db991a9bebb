"""Play many faults, some at a time, each player a process with a failing disk of its own."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.support import lean
from tests.writes.disk import Call, FailingDisk
from tests.writes.trials import Trial

STACKS: dict[str, Sequence[str]] = {
    "in memory": ("--manifest-broker=memory://",),
    "private": ("--manifest-broker=private",),
}
Job = tuple[str, int]
"""The name of a fault, and the number of the call that fails."""
_OTHERS = ("CELERY_", "MANIFEST_", "PYTEST_XDIST", "GITHUB_", "CI")
"""Variables by which the surroundings would reach into a session."""
_CHANGING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d+")


def kind_of(call: Call) -> str:
    """Return what a call does to which file, without what is another in each run."""
    name = _CHANGING.sub("*", Path(call.path).name)
    return f"{call.what} {name}"


def sample(calls: Sequence[Call], of_each: int, seed: int) -> list[int]:
    """Return numbers of calls, so many of each kind."""
    kinds: dict[str, list[int]] = {}
    for call in calls:
        kinds.setdefault(kind_of(call), []).append(call.number)
    rng = random.Random(seed)
    return sorted(
        n for of_kind in kinds.values() for n in rng.sample(of_kind, min(of_each, len(of_kind)))
    )


class Player:
    """A process that plays faults in a folder of its own; ``scratch``: a new one."""

    def __init__(self, scratch: Path, stack: Sequence[str]) -> None:
        scratch.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
        # What pytest has compiled of its plugins is kept: a third of what a session computes.
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept["PYTEST_ADDOPTS"] = lean()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.writes.player", str(scratch), *stack],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | FailingDisk(scratch, []).environment,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def count(self) -> list[Call]:
        """Return the calls of a session whose disk is in order."""
        answer = json.loads(self._ask(("", 0)))
        if answer["status"] != 0:
            raise RuntimeError(f"the session without a fault has failed: {answer['text']}")
        return [Call(**one) for one in answer["calls"]]

    def play(self, job: Job) -> Trial:
        return Trial.read(self._ask(job))

    def _ask(self, job: Job) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the player ended with {self._process.wait()} at {job}")
        return answer


def play_all(
    scratch: Path,
    stack: str,
    processes: int,
    jobs: Callable[[Sequence[Call]], Iterable[Job]],
    told: Callable[[Trial], object],
    until: float = math.inf,
) -> int:
    """Play the jobs that are made of a run's calls, ``told`` of each; return how many calls.

    None begins after ``until`` (s, monotonic).
    """
    with ExitStack() as open_players:
        players = [
            open_players.enter_context(closing(Player(scratch / str(n), STACKS[stack])))
            for n in range(processes)
        ]
        calls = players[0].count()
        waiting: SimpleQueue[Job] = SimpleQueue()
        for job in jobs(calls):
            waiting.put(job)

        def work(player: Player) -> None:
            while time.monotonic() < until:
                try:
                    job = waiting.get_nowait()
                except Empty:
                    return
                told(player.play(job))

        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(work, players))  # raises what a player has ended with
        return len(calls)
