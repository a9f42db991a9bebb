"""Try a module's mutants: ``python -m tests.mutants.running MODULE OUT [NAME...]``.

``NAME``: functions and constants, to try the mutants of these alone; in ``OUT`` those of all
others stay as they were found before.

pytest collects the tests once, with the mutants loaded in place of the module; each mutant is then
switched on in a process that is forked from that one, where the tests that reach its function are
run until one fails.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import groupby
from pathlib import Path
from types import CodeType
from typing import Literal

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from tests import rings
from tests.mutants.making import (
    NUMBER,
    Switch,
    mutated_source,
    of_constants,
    of_functions,
    users_of,
)
from tests.mutants.modules import BY_NAME, Judge

Fate = Literal["killed", "survived", "untested", "hung"]
"""``hung``: it waits for something, or the machine is too slow; nobody can tell which."""

MEMORY = 4 << 30
"""Bytes that the process of a mutant may have: some grow a list without an end."""
SECONDS, TIMES = 3, 5
"""The time of a processor that a mutant has: so many seconds, and so many times what its tests
take."""
PATIENCE = 600
"""Seconds that a mutant may wait for something else than a processor."""
ALONE = (
    *("-q", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore:Module already"),
    *("-p", "pytest_manifest.plugin", "-p", "_hypothesis_pytestplugin"),
    *("-p", "tests.unit.conftest"),
)
"""Only what these tests need: the rest is loaded for each module, and asked about each test."""
CHOSEN = ("-m", "not hypothesis")
"""Examples that Hypothesis draws do not count: a mutant must not live or die by luck."""


class MutatedLoader(SourceFileLoader):
    """Load one module with its mutants in it."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.text = Path(path).read_text("utf-8")
        self.source, self.names = mutated_source(path, self.text)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the mutated source; nothing of it is cached."""
        return compile(self.source, self.path, "exec", dont_inherit=True)


class MutatedFinder(MetaPathFinder):
    """Find the module that is mutated before anything else does."""

    def __init__(self, judge: Judge) -> None:
        self.name = judge.module
        self.loader: MutatedLoader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: object = None
    ) -> ModuleSpec | None:
        """Return the mutated module's spec, None for any other."""
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        self.loader = MutatedLoader(fullname, spec.origin)
        spec.loader = self.loader
        return spec


class MutantLoop:
    """Take the place of pytest's loop over the tests."""

    def __init__(self, judge: Judge, finder: MutatedFinder, only: Collection[str]) -> None:
        self._judge = judge
        self._finder = finder
        self._only = only
        self._failed = False
        self._reached: dict[str, list[int]] = {}
        self._took: list[float] = []
        self._items: Sequence[pytest.Item] = ()
        self._values: dict[str, object] = {}
        self.fates: list[tuple[Switch, Fate]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is not of ring 1: what everyone waits for must kill each mutant alone."""
        items[:], _ = rings.chosen(items, 1, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test has failed."""
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests as they are, then against each mutant."""
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        self._items = session.items
        self._values = vars(importlib.import_module(self._judge.module))
        loader = self._finder.loader
        assert loader is not None
        switches = [
            *of_functions(loader.source, loader.names),
            *of_constants(loader.text, self._values),
        ]
        if self._only:
            switches = [one for one in switches if one.mutant.where in self._only]
        gc.collect()
        gc.freeze()  # nothing that is there already need be looked at in each process
        self._read_reach()
        for _, group in groupby(switches, key=lambda one: one.original or one.mutant.where):
            self._try_group(list(group))
        return True

    def _read_reach(self) -> None:
        """Find out which functions each test reaches, and how long it takes."""

        def look(tell: Callable[[bytes], object]) -> None:
            set_mutant_under_test("stats")
            for item, after in zip(self._items, [*self._items[1:], None], strict=True):
                state()._stats.clear()
                began = time.process_time()
                if self._fails(item, after):
                    print(f"{item.nodeid} fails without any mutant", file=sys.stderr)
                    return
                found = sorted(state()._stats), time.process_time() - began
                tell(json.dumps(found).encode() + b"\n")

        told, _ = _in_a_process(look)
        lines = told.splitlines()
        if len(lines) < len(self._items):
            raise RuntimeError("the tests must pass without any mutant")
        for number, line in enumerate(lines):
            functions, took = json.loads(line)
            self._took.append(took)
            for name in functions:
                self._reached.setdefault(name, []).append(number)

    def _try_group(self, switches: Sequence[Switch]) -> None:
        """Find the fates of the mutants of one function, or of one constant.

        They are tried one after the other in one process, as long as that stays as it should be.
        What survives there is tried once more in a process of its own.
        """
        chosen = self._tests_of(switches[0])
        if not chosen:
            self.fates += [(one, "untested") for one in switches]
            return
        chosen.sort(key=self._took.__getitem__)
        fates: list[Fate] = []
        while len(fates) < len(switches):
            fates += self._try_some(switches[len(fates) :], chosen)
        for number, one in enumerate(switches):
            if fates[number] != "killed":
                fates[number] = self._try_some([one], chosen, check=False)[0]
        self.fates += zip(switches, fates, strict=True)

    def _tests_of(self, one: Switch) -> list[int]:
        """Choose the tests that reach the function, or a function that names the constant."""
        loader = self._finder.loader
        assert loader is not None
        names = {one.original} if one.copy else users_of(loader.text, one.mutant.where)
        mutated = {name.partition(NUMBER)[0] for name in loader.names}
        if not (one.copy or (names and names <= mutated)):
            return list(range(len(self._items)))  # nobody can tell which of them need it
        reached = (self._reached.get(f"{self._judge.module}.{name}", []) for name in names)
        return sorted({number for some in reached for number in some})

    def _try_some(
        self, switches: Sequence[Switch], chosen: Sequence[int], *, check: bool = True
    ) -> list[Fate]:
        """Try mutants in one process, up to the first that ends it.

        ``check``: whether the tests must pass in the end without any, else all are tried each in a
        process of its own.
        """
        limit = SECONDS + TIMES * sum(self._took[number] for number in chosen)

        def judge(tell: Callable[[bytes], object]) -> None:
            order = list(chosen)
            for one in switches:
                signal.setitimer(signal.ITIMER_PROF, limit)
                signal.alarm(PATIENCE)
                killer = self._killer(one, order)
                if killer is not None:
                    order.remove(killer)
                    order.insert(0, killer)
                tell(b"k" if killer is not None else b"s")
            self._switch_off()
            if check and self._first_that_fails(chosen) is None:
                tell(b"!")

        told, code = _in_a_process(judge)
        fates: list[Fate] = [
            "killed" if one == ord("k") else "survived" for one in told.rstrip(b"!")
        ]
        if len(fates) < len(switches):
            return [*fates, "hung" if code == -signal.SIGALRM else "killed"]
        if check and not told.endswith(b"!"):
            return [self._try_some([one], chosen, check=False)[0] for one in switches]
        return fates

    def _killer(self, one: Switch, order: Sequence[int]) -> int | None:
        """Switch a mutant on; return the first test that fails then, None where none does."""
        if one.copy:
            set_mutant_under_test(f"{self._judge.module}.{one.copy}")
            return self._first_that_fails(order)
        name = one.mutant.where
        before, self._values[name] = self._values[name], one.value
        self._switch_off()
        try:
            return self._first_that_fails(order)
        finally:
            self._values[name] = before

    def _switch_off(self) -> None:
        set_mutant_under_test("")

    def _first_that_fails(self, order: Sequence[int]) -> int | None:
        for number in order:
            if self._fails(self._items[number], None):
                return number
        return None

    def _fails(self, item: pytest.Item, after: pytest.Item | None) -> bool:
        self._failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        return self._failed


def _in_a_process(do: Callable[[Callable[[bytes], object]], None]) -> tuple[bytes, int]:
    """Do this in a process of its own; return what it has told, and its exit code."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            do(lambda told: os.write(writing, told))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return told, os.waitstatus_to_exitcode(status)


def main(name: str, out: str, *only: str) -> int:
    """Write the fate of each mutant of a module to a file."""
    judge = BY_NAME[name]
    finder = MutatedFinder(judge)
    sys.meta_path.insert(0, finder)
    # At once: pytest has a finder of its own for a plugin's modules.
    importlib.import_module(judge.module)
    loop = MutantLoop(judge, finder, only)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    folder = Path(out).with_suffix("")
    arguments = [*ALONE, *CHOSEN, f"--basetemp={folder}", *(f"tests/{one}" for one in judge.tests)]
    code = pytest.main(arguments, plugins=[loop])
    found = [
        {"where": one.mutant.where, "was": one.mutant.was, "now": one.mutant.now, "fate": fate}
        for one, fate in loop.fates
    ]
    if only:
        before = json.loads(Path(out).read_text("utf-8"))
        found += [one for one in before if one["where"] not in only]
    Path(out).write_text(json.dumps(found, indent=1), "utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
