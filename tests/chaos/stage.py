"""One run with one fault in it: what the fault may touch, and what it left behind."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from tests.chaos import executions
from tests.chaos.drain import Remains
from tests.chaos.session import Family, Session
from tests.chaos.stacks import Stack
from tests.chaos.workload import Group
from tests.processes import said_by_system
from tests.support import eventually

MOMENT_SECONDS = 150.0
"""A generous deadline for something to happen in a run that is on its way."""


@dataclass
class Stage:
    """``hits``: pid and wall-clock time of every process that was killed; ``aimed``: the entries
    that the fault was aimed at; ``injected``: the wall-clock time of the (first) fault;
    ``leftovers``: processes of pytest that had to be killed at the end; ``counted``: what had been
    executed then; ``remains``: what the brokers still held, once the workers had ended, too;
    ``hurried``: from when until when pytest, told a second time to end, killed what it had
    started."""

    folder: Path
    rng: random.Random
    members: Mapping[str, Group]
    stack: Stack
    family: Family
    sessions: list[Session] = field(default_factory=list)
    hits: list[tuple[int, float]] = field(default_factory=list)
    aimed: set[str] = field(default_factory=set)
    injected: float | None = None
    leftovers: list[str] = field(default_factory=list)
    counted: Mapping[str, executions.Counted] = field(default_factory=dict)
    remains: list[Remains] = field(default_factory=list)
    hurried: tuple[float, float] | None = None

    def end(self) -> None:
        """Let no pytest run on, nor anything that one has started."""
        for session in self.sessions:
            session.end()
        self.leftovers += self.family.end()

    def launch(self, options: Sequence[str]) -> Session:
        """Start pytest; the newest session is the one that faults are injected into."""
        number = len(self.sessions) + 1
        session = Session(self.folder, self.family, number, [*self.stack.options(), *options])
        self.sessions.append(session)
        return session

    @property
    def session(self) -> Session:
        return self.sessions[-1]

    # When

    def moment(self, least: int = 1, most: int | None = None, *, jitter: float = 0.3) -> None:
        """Wait for a random moment: some executions have begun, and then a little more time.

        ``least`` and ``most`` are executions; at most two thirds of all entries unless given.
        """
        last = max(least, len(self.members) * 2 // 3 if most is None else most)
        number = self.rng.randint(least, last)
        self.until(lambda: len(self.starts()) >= number, f"{number} executions have begun")
        self.pause(jitter)
        self.strike()

    def pause(self, most: float) -> None:
        """A random time: it is part of the experiment, not a wait for something."""
        time.sleep(self.rng.uniform(0.0, most))

    def strike(self) -> None:
        """The fault begins now."""
        self.injected = self.injected or time.time()

    def until(self, check: Callable[[], object], what: str) -> None:
        """Wait for ``check()``; AssertionError where pytest ends before it holds."""

        def look() -> bool:
            if check():
                return True
            assert not self.session.has_ended, f"pytest ended before {what}"
            return False

        eventually(look, within=MOMENT_SECONDS, what=what)

    # What

    def starts(self) -> list[executions.Execution]:
        return [one for one in executions.read_lines(self.folder) if one.what == "start"]

    def kill(self, process: psutil.Process, *, children: bool = True) -> None:
        """kill -9, noting who goes with it."""
        self.strike()
        family = [process, *(process.children(recursive=True) if children else [])]
        self.note(family)
        process.kill()

    def note(self, killed: Iterable[psutil.Process]) -> None:
        """These are killed at this moment: by every pid that they have, also in a namespace."""
        now = time.time()
        self.hits += [(pid, now) for one in killed for pid in pids_of(one.pid)]

    def client(self) -> redis.Redis:
        """The broker, past any proxy."""
        return redis.Redis.from_url(self.stack.url())

    def store(self) -> redis.Redis:
        """The result store."""
        return redis.Redis.from_url(self.stack.store_url())

    def ledgers(self) -> list[Path]:
        """The ledgers of this folder's runs, oldest first."""
        return sorted((self.folder / ".manifest" / "runs").glob("*.sqlite"))

    def run_id(self) -> str:
        self.until(self.ledgers, "there is a ledger")
        return self.ledgers()[-1].stem

    def attempt_states(self) -> list[str]:
        """The sending state of every attempt; none while there is no ledger to read."""
        found = self.ledgers()
        if not found:
            return []
        try:
            with closing(sqlite3.connect(f"{found[-1].as_uri()}?mode=ro", uri=True)) as db:
                return [row[0] for row in db.execute("SELECT state FROM attempts")]
        except sqlite3.Error:  # it is just being made
            return []


def pids_of(pid: int) -> list[int]:
    """What a process is called, here first, and then in the PID namespaces that it is in."""
    for line in said_by_system(pid, "status").splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return [pid]
