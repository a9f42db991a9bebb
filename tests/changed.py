"""Find the tests of what was changed, the nearest first, by the graph of imports.

    python -m tests.changed [--since REF] [--seconds N]

prints them, and how many are left over. ``make quick`` (``tests.quick``) runs them.

Changed is what git does not have in its last commit, new files and deleted ones too; in a clean
working tree, the last commit itself. A test is as far from a change as there are imports between
its module and what was changed: a changed test is nearest, then tests that import a changed module,
then those that import what imports it. They are taken in this order until the seconds that they
cost are used up; ``make test`` runs the rest. A graph of imports knows nothing of what a test
starts by a command or reads as a file: a file that is no module counts for the modules that spell
its name, or that of its folder, else for those beside it; and for the house.

pytest-testmon (2.2) is not taken for this, though it is alive and knows xdist. It begins with a run
of everything under coverage, in each clone, and again whenever a package of the environment has
changed; it sees what pytest's own process runs, and nothing that a test starts; and it takes all
affected tests, which for a change to ``errors.py`` are nearly all: nothing keeps it in a minute.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import mean
from typing import Final

import grimp
from grimp.exceptions import SourceSyntaxError

from tests import durations, rings

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".import_linter_cache"
PACKAGES: Final = ("pytest_manifest", "tasks", "workflows", "tests", "benchmarks")
FOLDERS: Final = ("unit", "workflows/unit", "house", "typing")
"""Whose tests are run, in the order among those that are equally far; a changed test always is."""
HOUSE_DISTANCE: Final = 2
"""The house holds for all files: after the tests that know a changed module, before all others."""
NEVER: Final = ("tests/projects/", "tests/compose/", "tests/chaos/")
"""Other people's, and what takes minutes or an engine, even when they are what was changed."""
SECONDS: Final = 45.0
"""How much of tests is taken, by what they cost one process."""
USUAL_SECONDS: Final = 2.0
"""What a file of tests costs where nothing was measured (``make durations``)."""


class UnknownChangesError(Exception):
    """What was changed cannot be found out; the message says why."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of tests, the nearest first, and how many more there are for what was changed."""

    files: list[str]
    left: int
    """Those that have tests of ring 1."""
    later: int = 0
    """Those that have none."""


def changed_files(since: str | None = None, root: Path = ROOT) -> list[str]:
    """Return the changed files that git would keep, by their paths from the root.

    ``since`` is the commit that they are compared with, as this branch left it: of None the last
    one, or the one before it where nothing has changed since. Raises ``UnknownChangesError``.
    """
    diff = ("diff", "--name-only", "--no-renames", "--relative")
    found = _git(root, "ls-files", "--others", "--exclude-standard")
    found |= _git(root, *diff, *(("--merge-base", since) if since else ("HEAD",)), "--")
    if not found and since is None:  # also of a first commit, and of one that was cloned alone
        found = _git(root, "show", "--format=", "-m", "--first-parent", *diff[1:], "HEAD", "--")
    return sorted(found)


def _git(root: Path, *arguments: str) -> set[str]:
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnknownChangesError("git is not installed; make test runs all tests") from None
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise UnknownChangesError(f"git does not say what was changed: {said}")
    return set(done.stdout.splitlines())


def importers_of_modules() -> dict[str, set[str]]:
    """Return who imports each module of the project, and each of ``scripts`` as one.

    Raises ``UnknownChangesError`` for a module that is no Python.
    """
    try:
        graph = grimp.build_graph(
            PACKAGES[0], *PACKAGES[1:], include_external_packages=True, cache_dir=str(CACHE)
        )
    except SourceSyntaxError as error:
        raise UnknownChangesError(str(error)) from None
    return {module: graph.find_modules_that_directly_import(module) for module in graph.modules}


def with_implied(
    importers: Mapping[str, Collection[str]], changed: Collection[str]
) -> dict[str, set[str]]:
    """Add what no line says of changed modules: who imports a changed package, or a conftest.

    Of a package these are the modules in it, as Python imports it first; of a conftest all that
    stand beside or below it. Of others that is left out: a conftest imports so much that each
    change would be one of every test.
    """
    found = {module: set(known) for module, known in importers.items()}
    for module in changed:
        folder, _, name = module.rpartition(".")
        for other in importers:
            if other.startswith(f"{folder}.") if name == "conftest" else _is_in(other, module):
                found[module].add(other)
    return found


def _is_in(module: str, package: str) -> bool:
    return module.rpartition(".")[0] == package


def changed_modules(files: Iterable[str], sources: Mapping[str, str]) -> set[str]:
    """Return the modules that the files are; of one that is none, those that may read it.

    ``sources`` are the texts of all modules by their names. A module that is no longer there is
    none: mypy finds who imports it.
    """
    found: set[str] = set()
    for path in map(PurePosixPath, files):
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        if path.parts[0] == "scripts":
            found.add("scripts")
        elif path.suffix == ".py" and name in sources:
            found.add(name)
        else:
            found |= _readers(path, sources)
    return found


def _readers(path: PurePosixPath, sources: Mapping[str, str]) -> set[str]:
    """Return the modules that spell a file's name, else those beside it or that spell its folder's.

    Nobody reads a test that was deleted.
    """
    spelled = re.compile(rf"(?<![\w.-]){re.escape(path.name)}(?![\w-])")
    found = {name for name, text in sources.items() if spelled.search(text)}
    if found or path.match("test_*.py") or len(path.parts) == 1:
        return found
    *above, folder = path.parent.parts
    return {
        name
        for name, text in sources.items()
        if (_is_in(name, ".".join((*above, folder))) and not name.endswith(".conftest"))
        or (_is_in(name, ".".join(above)) and f'"{folder}"' in text)
    }


def distances(importers: Mapping[str, Collection[str]], changed: Iterable[str]) -> dict[str, int]:
    """Return how many imports lie between each module and the nearest changed one that it uses."""
    found = dict.fromkeys(changed, 0)
    reached = list(found)
    for module in reached:  # grows meanwhile
        for importer in sorted(importers.get(module, ())):
            if importer not in found:
                found[importer] = found[module] + 1
                reached.append(importer)
    return found


def selected(
    far: Mapping[str, int],
    files: Collection[str],
    house: Collection[str],
    costs: Mapping[str, float],
    seconds: float = SECONDS,
    without: Collection[str] = (),
) -> Selection:
    """Take tests until their costs are used up, the nearest first and the cheapest of these.

    ``far`` has the distances of modules, ``files`` what was changed, ``house`` all files of its
    tests, which are looked at in any case. Seconds of files that nothing is known of are the mean
    of the others. ``without`` has the files that ring 1 has no test of.
    """
    candidates = dict.fromkeys(house, HOUSE_DISTANCE)
    left: list[str] = []
    for module, distance in far.items():
        path = f"{module.replace('.', '/')}.py"
        if not _is_test(path):
            continue
        if path in without or not (path in files or _rank(path) < len(FOLDERS)):
            left.append(path)
        else:
            candidates[path] = min(distance, candidates.get(path, distance))
    usual = mean(costs.values()) if costs else USUAL_SECONDS

    def order(path: str) -> tuple[int, int, float, str]:
        return candidates[path], _rank(path), costs.get(path, usual), path

    taken: list[str] = []
    for path in sorted(candidates, key=order):
        seconds -= costs.get(path, usual)
        if seconds < 0 and taken:
            break
        taken.append(path)
    later = sum(path in without for path in left)
    return Selection(taken, len(candidates) - len(taken) + len(left) - later, later)


def _rank(path: str) -> int:
    folder = path.rpartition("/")[0].removeprefix("tests/")
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def _is_test(path: str) -> bool:
    name = path.rpartition("/")[2]
    return path.startswith("tests/") and name.startswith("test_") and not path.startswith(NEVER)


def costs_of_files() -> dict[str, float]:
    """Return the seconds of each measured file of tests; nothing where none was measured."""
    sums: dict[str, float] = defaultdict(float)
    for test, cost in durations.read()[0].items():
        sums[durations.file_of(test)] += cost.seconds
    return {path: seconds for path, seconds in sums.items() if _rank(path) < len(FOLDERS)}


def selection(since: str | None = None, seconds: float = SECONDS) -> Selection:
    """Return the tests of what was changed in the working tree, or since a commit.

    Raises ``UnknownChangesError``.
    """
    files = changed_files(since)
    if not files:
        return Selection([], 0)
    importers = importers_of_modules()
    changed = changed_modules(files, _sources(importers))
    far = distances(with_implied(importers, changed), changed)
    tests = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/test_*.py")]
    house = [path for path in tests if path.startswith("tests/house/")]
    without = {path for path in tests if _is_test(path) and rings.is_without(ROOT / path, 1)}
    return selected(far, files, house, costs_of_files(), seconds, without)


def _sources(modules: Iterable[str]) -> dict[str, str]:
    """Return the texts of the project's modules; packages of others have none here."""
    found = {}
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                found[module] = file.read_text("utf-8")
    return found


def main() -> int:
    """Print the tests, one file a line, and how many are left over."""
    parser = argparse.ArgumentParser(prog="python -m tests.changed")
    parser.add_argument("--since", metavar="REF")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    try:
        found = selection(options.since, options.seconds)
    except UnknownChangesError as unknown:
        print(unknown)
        return 1
    print("\n".join(found.files))
    print(f"{found.left} more for `make test`, {found.later} for `make test-all`")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
