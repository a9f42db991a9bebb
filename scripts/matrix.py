"""Run chosen cells of the matrix (noxfile.py), one after another; all run, also after one fails.

Each minor version of Celery is with another Python, so that every Python has its cell. Where a
cell's Python is not installed, the cell runs with the nearest one that is, and a line says so.
``matrix.py --in-turn``: the lowest, the newest, and one minor version, another one each day.
``matrix.py --least``: the lowest alone, with the suite that each change is tried with.
``matrix.py -s NAME -- SUITES``: nox with these arguments, and every Python that is found here.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent


class Cell(NamedTuple):
    """A set of versions, the Python that it runs with where that is installed, and its suites."""

    versions: str
    python: str
    suites: tuple[str, ...]
    celery: str = ""

    def session(self, python: str) -> str:
        """Return nox's name of it with this Python."""
        return f"{self.versions}-{python}" + (f"({self.celery})" if self.celery else "")


CELLS: Final = (
    Cell("min", "3.10", ("contract", "unit")),
    Cell("celery", "3.11", ("contract",), "5.4"),
    Cell("celery", "3.12", ("contract",), "5.5"),
    Cell("celery", "3.13", ("contract",), "5.6"),
    Cell("newest", "3.14", ("contract",)),
)
TURN: Final = "--in-turn"
LEAST: Final = "--least"
SUPPORTED: Final = ("3.10", "3.11", "3.12", "3.13", "3.14")
NOT_YET_IN_DEBIAN: Final = "3.14"


def folders() -> list[str]:
    """Return where Pythons may be: this one, what scripts/newer-python got, pyenv's, the path.

    pyenv keeps its versions off the path, and what it has on it answers only where one is chosen.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*ROOT.glob("build/python3.*/usr/bin"), *sorted(pyenv.glob("versions/3.*/bin"))]
    return [str(Path(sys.executable).parent), *map(str, found), *os.get_exec_path()]


def installed(places: Iterable[str]) -> dict[str, str]:
    """Return the folder of each supported Python that runs, the first of these that has it."""
    found: dict[str, str] = {}
    for place in places:
        for version in SUPPORTED:
            program = Path(place, f"python{version}")
            if version not in found and os.access(program, os.X_OK) and runs(program, version):
                found[version] = place
    return found


def runs(program: Path, version: str) -> bool:
    """Return whether this program is a Python of this minor version, and no stand-in for one."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(program), "-c", asked], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def nearest(wanted: str, present: Collection[str]) -> str:
    """Return the version that is least far from the wanted one; of two, the older."""
    return min(present, key=lambda one: (abs(minor(one) - minor(wanted)), minor(one)))


def minor(version: str) -> int:
    return int(version.partition(".")[2])


def in_turn(day: int) -> list[Cell]:
    """Return the lowest and the newest versions, and the minor version whose day it is."""
    between = [cell for cell in CELLS if cell.celery]
    chosen = between[day % len(between)]
    return [cell for cell in CELLS if not cell.celery or cell is chosen]


def chosen(arguments: list[str]) -> Sequence[Cell]:
    """Return the cells that a command without names of sessions asks for."""
    if arguments == [LEAST]:
        return [CELLS[0]._replace(suites=("least",))]
    return in_turn(datetime.now(timezone.utc).toordinal()) if arguments else CELLS


def sessions(present: Collection[str], cells: Iterable[Cell]) -> list[tuple[str, Cell, str]]:
    """Return nox's name of each cell, the cell, and what is to be said of its Python."""
    found = []
    for cell in cells:
        python = nearest(cell.python, present)
        said = f"Python {cell.python} is not here: with {python}" if python != cell.python else ""
        found.append((cell.session(python), cell, said))
    return found


def get_newest() -> None:
    """Have Debian's next release give the Python that this one lacks; without it, say so."""
    done = subprocess.run([str(ROOT / "scripts" / "newer-python"), NOT_YET_IN_DEBIAN], check=False)
    if done.returncode:
        print(f"Python {NOT_YET_IN_DEBIAN} could not be got from Debian's next release", flush=True)


def main() -> int:
    """Run the cells, or nox with the arguments that are given."""
    arguments = sys.argv[1:]
    if arguments != [LEAST]:
        get_newest()
    present = installed(folders())
    if not present:
        print(f"None of the supported Pythons is here: {', '.join(SUPPORTED)}", file=sys.stderr)
        return 1
    environment = {**os.environ, "PATH": os.pathsep.join([*present.values(), *folders()])}
    nox = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py")]
    if arguments and arguments not in ([TURN], [LEAST]):
        return subprocess.run([*nox, *arguments], env=environment, check=False).returncode
    failed = []
    cells = chosen(arguments)
    for name, cell, said in sessions(present, cells):
        print(f"{name}: {said or 'begins'}", flush=True)
        began = time.monotonic()
        done = subprocess.run([*nox, "-s", name, "--", *cell.suites], env=environment, check=False)
        failed += [name] if done.returncode else []
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
