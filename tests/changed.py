"""Find the tests of what was changed, the nearest first, by the graph of imports.

    python -m tests.changed [--since REF] [--seconds N]

prints them, and how many are left over. ``make quick`` (``tests.quick``) runs them.

Changed is what git does not have in its last commit, new files too; in a clean working tree, the
last commit itself. A test is as far from a change as there are imports between its module and what
was changed: a changed test is nearest, then tests that import a changed module, then those that
import what imports it. They are taken in this order until the seconds that they cost are used up;
``make test`` runs the rest. A graph of imports knows nothing of what a test starts by a command or
reads as a file: a file that is no module counts for the modules of its folder, and for the house.

pytest-testmon (2.2) is not taken for this, though it is alive and knows xdist. It begins with a run
of everything under coverage, in each clone, and again whenever a package of the environment has
changed; it sees what pytest's own process runs, and nothing that a test starts; and it takes all
affected tests, which for a change to ``errors.py`` are nearly all: nothing keeps it in a minute.
"""

from __future__ import annotations

import argparse
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import mean
from typing import Final

import grimp

from tests import durations

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".import_linter_cache"
PACKAGES: Final = ("pytest_manifest", "tasks", "workflows", "tests", "benchmarks")
FOLDERS: Final = ("unit", "house", "typing")
"""Whose tests are run, in the order among those that are equally far; a changed test always is."""
HOUSE_DISTANCE: Final = 2
"""The house holds for all files: after the tests that know a changed module, before all others."""
NEVER: Final = ("tests/projects/", "tests/compose/", "tests/chaos/")
"""Other people's, and what takes minutes or an engine, even when they are what was changed."""
SECONDS: Final = 45.0
"""How much of tests is taken, by what they cost one process."""
USUAL_SECONDS: Final = 2.0
"""What a file of tests costs where nothing was measured (``make durations``)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of tests, the nearest first, and how many more there are for what was changed."""

    files: list[str]
    left: int


def changed_files(since: str | None = None) -> list[str]:
    """Return the changed files that git would keep, by their paths from the root.

    ``since`` is the commit that they are compared with: of None the last one, or the one before
    it where nothing has changed since.
    """
    found = _differing(since or "HEAD") | _git("ls-files", "--others", "--exclude-standard")
    if not found and since is None:
        found = _differing("HEAD~1")
    return sorted(found)


def _differing(commit: str) -> set[str]:
    return _git("diff", "--name-only", "--no-renames", commit, "--")


def _git(*arguments: str) -> set[str]:
    done = subprocess.run(
        ["git", "-c", "core.quotePath=false", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines())


def importers_of_modules() -> dict[str, set[str]]:
    """Return who imports each module of the project, and each of ``scripts`` as one."""
    graph = grimp.build_graph(
        PACKAGES[0], *PACKAGES[1:], include_external_packages=True, cache_dir=str(CACHE)
    )
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


def changed_modules(files: Iterable[str], modules: Collection[str]) -> set[str]:
    """Return the modules that the files are; of one that is none, those of its folder."""
    found = set()
    for path in map(PurePosixPath, files):
        if path.parts[0] == "scripts":
            found.add("scripts")
        elif path.suffix == ".py":
            name = ".".join(path.with_suffix("").parts)
            found.add(name.removesuffix(".__init__"))
        else:
            folder = ".".join(path.parent.parts)
            found |= {name for name in modules if folder and _is_in(name, folder)}
    return found & set(modules)


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
) -> Selection:
    """Take tests until their costs are used up, the nearest first and the cheapest of these.

    ``far`` has the distances of modules, ``files`` what was changed, ``house`` all files of its
    tests, which are looked at in any case. Seconds of files that nothing is known of are the mean
    of the others.
    """
    candidates = dict.fromkeys(house, HOUSE_DISTANCE)
    for module, distance in far.items():
        path = f"{module.replace('.', '/')}.py"
        if _is_test(path) and (path in files or path.split("/")[1] in FOLDERS):
            candidates[path] = min(distance, candidates.get(path, distance))
    usual = mean(costs.values()) if costs else USUAL_SECONDS

    def order(path: str) -> tuple[int, int, float, str]:
        folder = path.split("/")[1]
        rank = FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)
        return candidates[path], rank, costs.get(path, usual), path

    taken: list[str] = []
    for path in sorted(candidates, key=order):
        seconds -= costs.get(path, usual)
        if seconds < 0 and taken:
            break
        taken.append(path)
    return Selection(taken, len(candidates) - len(taken))


def _is_test(path: str) -> bool:
    name = path.rpartition("/")[2]
    return path.startswith("tests/") and name.startswith("test_") and not path.startswith(NEVER)


def costs_of_files() -> dict[str, float]:
    """Return the seconds of each measured file of tests; nothing where none was measured."""
    sums: dict[str, float] = defaultdict(float)
    for test, cost in durations.read()[0].items():
        sums[durations.file_of(test)] += cost.seconds
    return {path: seconds for path, seconds in sums.items() if path.split("/")[1] in FOLDERS}


def selection(since: str | None = None, seconds: float = SECONDS) -> Selection:
    """Return the tests of what was changed in the working tree, or since a commit."""
    files = [path for path in changed_files(since) if (ROOT / path).exists()]
    if not files:
        return Selection([], 0)
    importers = importers_of_modules()
    changed = changed_modules(files, importers)
    far = distances(with_implied(importers, changed), changed)
    house = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/house/test_*.py")]
    return selected(far, files, house, costs_of_files(), seconds)


def main() -> int:
    """Print the tests, one file a line, and how many are left over."""
    parser = argparse.ArgumentParser(prog="python -m tests.changed")
    parser.add_argument("--since", metavar="REF")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    found = selection(options.since, options.seconds)
    print("\n".join(found.files))
    print(f"{found.left} more for `make test`")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
