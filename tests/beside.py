"""What stands beside us in other people's projects, for the sessions that are to meet it.

Half of it changes every pytest that it is installed for. So it is in a folder of its own, which is
on the path of such a session alone, and of the plugins there a session loads those that it names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

from tests.conftest import missing
from tests.support import lean

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(sys.prefix) / "neighbours"
SESSION_SECONDS = 300
NOT_INHERITED = ("PYTEST", "CELERY_", "MANIFEST_", "GITHUB_", "DJANGO_", "COV_", "COVERAGE_", "CI")


@cache
def installed() -> dict[str, Distribution]:
    """Distributions of the folder, by name."""
    if not (FOLDER / ".installed").exists():
        missing(f"there is no {FOLDER}: 'make neighbours' installs it")
    return {one.metadata["Name"].lower(): one for one in distributions(path=[str(FOLDER)])}


def version_of(neighbour: str) -> str:
    """The version that sessions beside this neighbour get."""
    found = installed().get(neighbour)
    return version(neighbour) if found is None else found.version


def plugin_names(neighbour: str) -> list[str]:
    """The names by which pytest loads and blocks the plugins of a distribution."""
    found = installed().get(neighbour)
    points = [] if found is None else found.entry_points
    return [point.name for point in points if point.group == "pytest11"]


def path_and_plugins(*neighbours: str) -> dict[str, str]:
    """The variables by which a process meets these neighbours, and no other plugin."""
    blocked = {name for one in installed() for name in plugin_names(one)}
    blocked -= {name for one in neighbours for name in plugin_names(one)}
    return {
        "PYTHONPATH": str(FOLDER),
        "PYTEST_ADDOPTS": lean(*sorted(blocked)),
    }


def environment(*neighbours: str) -> dict[str, str]:
    """The environment of a process beside these neighbours, and beside no other plugin."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    own = {"PYTHONWARNINGS": "default", "COLUMNS": "100"}
    return kept | path_and_plugins(*neighbours) | own


@dataclass(frozen=True)
class Outcome:
    """What a command has written, standard error included, and its exit status."""

    status: int
    text: str
    lines: list[str] = field(default_factory=list)


def run(folder: Path, command: Sequence[str], variables: Mapping[str, str]) -> Outcome:
    """Run a Python module's command (``pytest ...``, ``celery ...``) in a folder, to its end."""
    done = subprocess.run(
        [sys.executable, *(["-m"] if not command[0].endswith(".py") else []), *command],
        cwd=folder,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SESSION_SECONDS,
        check=False,
    )
    print("$", *command, f"\n{done.stdout}")
    return Outcome(done.returncode, done.stdout, done.stdout.splitlines())


def verdicts(folder: Path) -> dict[str, str]:
    """The verdicts of a folder's newest run, by entry."""
    from pytest_manifest.ledger import Ledger

    found = (folder / ".manifest" / "runs").glob("*.sqlite")
    newest = max(found, key=lambda path: path.with_suffix(".lock").stat().st_mtime_ns)
    with Ledger.open(newest) as ledger:
        return {one.verdict.entry: one.verdict.verdict for one in ledger.queries.all_verdicts()}
