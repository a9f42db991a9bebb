"""What is looked at before a commit, within a minute: ``make quick``.

    python -m tests.quick [--since REF] [--only CHECK ...]

ruff's rules and format, mypy, the layers and the tests of what was changed (``tests.changed``), all
at once; a line each, and the whole output of what fails. mypy and the layers know from their caches
what has not changed since. The tests that have not begun after ``UNTIL_SECONDS`` are left over,
like those that ``tests.changed`` leaves over, and counted: they are ``make test``'s.

As a pytest plugin (``-p tests.quick``) it leaves out the tests that begin too late.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.changed import ROOT, Selection, UnknownChangesError, selection

UNTIL_SECONDS: Final = 45.0
"""When the last test may begin; what remains of the minute is for it, and for a slow moment."""
UNTIL_VARIABLE: Final = "MANIFEST_TESTS_UNTIL"
"""When that is, in seconds of the epoch."""
FEW_FILES: Final = 2
"""So many files of tests are not worth other processes."""
COMMANDS: Final = {
    "rules": ("ruff", "check"),
    "format": ("ruff", "format", "--check"),
    "types": ("mypy",),
    "layers": ("lint-imports", "--no-logo"),
}
COMMANDS_FOLDER: Final = Path(sys.executable).parent
"""Where the environment has them, active or not."""
NO_TESTS: Final = 5
"""pytest's status where there was none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check: whether it holds, what it printed, and a word on it."""

    holds: bool
    output: str
    note: str = ""


def pytest_configure(config: pytest.Config) -> None:
    """Take part where a test may begin too late."""
    if UNTIL_VARIABLE in os.environ:
        config.pluginmanager.register(_Deadline(config, float(os.environ[UNTIL_VARIABLE])))


class _Deadline:
    def __init__(self, config: pytest.Config, until: float) -> None:
        self._config = config
        self._until = until
        self._left = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        if time.time() < self._until:
            return None
        self._left += 1
        return True

    def pytest_sessionfinish(self) -> None:
        output: dict[str, int] | None = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["left"] = self._left

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        self._left += getattr(node, "workeroutput", {}).get("left", 0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"left over: {self._left}")


def _run(*command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def _check(name: str) -> Outcome:
    command, *arguments = COMMANDS[name]
    status, output = _run(str(COMMANDS_FOLDER / command), *arguments)
    return Outcome(status == 0, output)


def tests_of_changes(since: str | None, until: float) -> Outcome:
    """Run the tests of what was changed, those that can begin until then."""
    try:
        chosen = selection(since)
    except UnknownChangesError as unknown:
        return Outcome(False, f"{unknown}\n", "no test was run")
    if not chosen.files:
        return Outcome(True, "", "nothing was changed")
    # A commit's hook has variables that lead git into this repository, from wherever it is called.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    status, output = _run(
        sys.executable,
        *("-m", "tests.launcher", "-p", "tests.quick", "-q", "--no-header", "--ring=1"),
        *(("-n", "2", "--dist", "worksteal") if len(chosen.files) > FEW_FILES else ()),
        *chosen.files,
        # Tests write a module twice within a second, and Python tells cached ones apart by second.
        environment={**kept, UNTIL_VARIABLE: str(until), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return judged(status, output, chosen)


def judged(status: int, output: str, chosen: Selection) -> Outcome:
    """Return what became of the tests, and in a line what is left for the other rings.

    Where there was time for none of them nothing is known, and so it does not hold.
    """
    ended = re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", output, re.MULTILINE)
    late = int(next(iter(re.findall(r"^left over: (\d+)$", output, re.MULTILINE)), 0))
    note = f"{ended[-1] if ended else 'no test ended'}, of {len(chosen.files)} files"
    if late:
        note += f"; no time for {late} tests of them"
    holds = status in {0, NO_TESTS} and (bool(ended) or not late)
    note += f"; {chosen.left} more files are left to make test"
    if chosen.later:
        note += f", {chosen.later} to make test-all"
    return Outcome(holds, output, note)


def main() -> int:
    """Run the checks at once; return whether one of them fails."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tests.quick")
    parser.add_argument("--since", metavar="REF")
    parser.add_argument("--only", nargs="+", choices=(*COMMANDS, "tests"), metavar="CHECK")
    options = parser.parse_args()
    checks: dict[str, Callable[[], Outcome]] = {name: partial(_check, name) for name in COMMANDS}
    checks["tests"] = partial(tests_of_changes, options.since, time.time() + UNTIL_SECONDS)
    failed = []
    with ThreadPoolExecutor(len(checks)) as at_once:
        begun = {
            at_once.submit(check): name
            for name, check in checks.items()
            if not options.only or name in options.only
        }
        for done in as_completed(begun):
            name, outcome = begun[done], done.result()
            if not outcome.holds:
                failed.append(outcome)
            word = "ok" if outcome.holds else "FAILED"
            print(
                f"{name:8} {word:6} {time.monotonic() - began:5.1f} s  {outcome.note}".rstrip(),
                flush=True,
            )
    for outcome in failed:
        print(f"\n{outcome.output.rstrip()}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
