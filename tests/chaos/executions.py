"""What the tasks counted themselves: the truth that every verdict is held against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Execution:
    """One line of the count; ``at`` is the wall clock, in seconds."""

    what: str
    at: float
    key: str
    task_id: str
    retries: int
    pid: int


@dataclass(slots=True)
class Counted:
    """The executions of one entry."""

    starts: list[Execution] = field(default_factory=list)
    ends: list[Execution] = field(default_factory=list)

    @property
    def most(self) -> int:
        """The most executions of one attempt; retries that the task asks for count apart."""
        return max(Counter((s.task_id, s.retries) for s in self.starts).values(), default=0)

    @property
    def runs(self) -> int:
        """Executions over all attempts; retries that the task asks for are none."""
        return sum(1 for start in self.starts if start.retries == 0)


def read_lines(folder: Path) -> list[Execution]:
    """Every line so far, in the order of writing."""
    try:
        text = (folder / "executions.log").read_text("utf-8")
    except FileNotFoundError:
        return []
    found: list[Execution] = []
    for line in text.splitlines():
        what, at, key, task_id, retries, pid = line.split("\t")
        found.append(Execution(what, float(at), key, task_id, int(retries), int(pid)))
    return found


def count(folder: Path) -> dict[str, Counted]:
    """The executions by entry; entries that never began are missing."""
    found: dict[str, Counted] = {}
    for line in read_lines(folder):
        counted = found.setdefault(line.key, Counted())
        (counted.starts if line.what == "start" else counted.ends).append(line)
    return found


def running(folder: Path) -> list[Execution]:
    """The starts that have no end yet, oldest first; killed ones stay among them."""
    lines = read_lines(folder)
    ended = Counter((one.task_id, one.retries, one.pid) for one in lines if one.what == "end")
    alive: list[Execution] = []
    for one in lines:
        place = (one.task_id, one.retries, one.pid)
        if one.what == "start":
            if ended[place]:
                ended[place] -= 1
            else:
                alive.append(one)
    return alive
