"""Send GitHub's runner workflow commands, none of which jobs or tests have printed.

The runner reads all output for commands. So at a session's beginning it is told to obey none until
it reads a random token, which is printed after everything else. Then come annotations of failing
entries, at their lines of the manifest.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.console import begin_line
from pytest_manifest.schema.statuses import BAD
from pytest_manifest.text import pictured

if TYPE_CHECKING:
    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.run import Run


_TOKEN: Final = pytest.StashKey[str]()


def on_github() -> bool:
    """Return whether GitHub's runner, or a compatible one, reads this process's output."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def step_summary_file() -> Path | None:
    """Return the file whose Markdown GitHub shows on the step's page, None elsewhere."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(name) if name else None


def stop_commands(config: pytest.Config) -> None:
    """Have the runner print commands instead of obeying them from now on."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or _TOKEN in config.stash or not on_github():
        return
    config.stash[_TOKEN] = secrets.token_hex(16)
    begin_line(reporter)
    reporter.write_line(f"::stop-commands::{config.stash[_TOKEN]}")
    reporter.flush()  # before anything that another process prints


def are_stopped(config: pytest.Config) -> bool:
    """Return whether :func:`stop_commands` has stopped the runner's commands."""
    return _TOKEN in config.stash


def resume_commands(config: pytest.Config, commands: Iterable[str]) -> None:
    """Have the runner obey commands again, these first; called at pytest's very end."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    begin_line(reporter)
    reporter.write_line(f"::{config.stash[_TOKEN]}::")
    for command in commands:
        reporter.write_line(command)
    del config.stash[_TOKEN]


SHOWN: Final = 10
"""Annotations of one kind that GitHub shows for a step, at most."""
_SENTENCE: Final = 1000
_CAUSES: Final = 50


@dataclass(frozen=True, slots=True)
class Annotation:
    """A message that belongs to a line of a file."""

    path: Path
    line: int
    title: str
    message: str


class FailingEntries:
    """Collect failing entries to be shown: few of each cause, so that no cause hides another."""

    def __init__(self) -> None:
        self.count = 0
        self._by_cause: dict[tuple[str, str, str], list[tuple[int, str, str]]] = {}

    def add(self, record: EntryRecord) -> None:
        if record.outcome not in BAD or record.verdict is None:
            return
        self.count += 1
        verdict, receipt = record.verdict, record.receipt
        error = receipt.error if receipt is not None else None
        path = verdict.mismatches[0].path if verdict.mismatches else ""
        cause = (verdict.verdict, error.type if error else path, record.error_place or "")
        if cause in self._by_cause or len(self._by_cause) < _CAUSES:
            known = self._by_cause.setdefault(cause, [])
            if len(known) < SHOWN:
                title = f"{record.id}: {verdict.verdict}"
                known.append((record.line, title, verdict.sentence[:_SENTENCE]))

    def chosen(self, path: Path) -> list[Annotation]:
        """Return at most ten, in the order of lines: the first of each cause, then the second."""
        rows = [(turn, row) for rows in self._by_cause.values() for turn, row in enumerate(rows)]
        first = sorted(rows)[:SHOWN]
        return [Annotation(path, *row) for row in sorted(row for _, row in first)]


_FAILING: Final = pytest.StashKey[list[tuple[Path, FailingEntries]]]()


def keep_failing(config: pytest.Config, run: Run, failing: FailingEntries) -> None:
    """Keep a run's failing entries, to annotate them at the session's end."""
    if failing.count and on_github():
        config.stash.setdefault(_FAILING, []).append((run.manifest.path, failing))


def annotation_lines(config: pytest.Config) -> Iterator[str]:
    """Yield the workflow commands; the session's runs share the ten that GitHub shows."""
    kept = config.stash.get(_FAILING, [])
    chosen = [one for path, failing in kept for one in failing.chosen(path)]
    shown = _shared(chosen, len(kept))
    for one in shown:
        yield _command("error", one.message, file=_file(one.path), line=one.line, title=one.title)
    more = sum(failing.count for _, failing in kept) - len(shown)
    if more > 0:
        entries = "1 more entry fails" if more == 1 else f"{more} more entries fail"
        causes = ", their causes are in the step's summary" if step_summary_file() else ""
        message = f"{entries}{causes}; the run's summary.json has every one of them"
        yield _command("notice", message, title="pytest")


def _shared(chosen: Sequence[Annotation], runs: int) -> list[Annotation]:
    """Return at most ten, as many of each run as possible."""
    if len(chosen) <= SHOWN or runs < 2:
        return list(chosen[:SHOWN])
    turns: dict[Path, int] = {}
    ranked: list[tuple[int, int]] = []
    for index, one in enumerate(chosen):
        turns[one.path] = turns.get(one.path, 0) + 1
        ranked.append((turns[one.path], index))
    return [chosen[index] for index in sorted(index for _, index in sorted(ranked)[:SHOWN])]


def _file(path: Path) -> str:
    """Return the path relative to GitHub's workspace, or as it is if it is outside."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path(workspace or Path.cwd()).resolve()).as_posix()
    return str(path)


def _command(kind: str, message: str, **properties: str | int) -> str:
    listed = ",".join(f"{name}={command_property(str(of))}" for name, of in properties.items())
    return f"::{kind} {listed}::{command_data(message)}"


def command_data(text: str) -> str:
    """Return the text escaped as the message of a workflow command."""
    shown = pictured(text)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Return the text escaped as a property's value of a workflow command."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")
