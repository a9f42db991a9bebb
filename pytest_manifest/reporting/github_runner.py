"""Send GitHub's runner workflow commands, none of which jobs or tests have printed.

The runner reads all output for commands. So at a session's beginning it is told to obey none until
it reads a random token, which is printed after everything else. Then come annotations of failing
entries, at their lines of the manifest.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from pytest_manifest.console import begin_line
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.run_report import REPORT_KEY, step_summary_file
from pytest_manifest.text import pictured

_TOKEN: Final = pytest.StashKey[str]()


def on_github() -> bool:
    """Return whether GitHub's runner, or a compatible one, reads this process's output."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


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


def annotation_lines(config: pytest.Config) -> Iterator[str]:
    """Yield a workflow command for some entries of each cause, and one for how many more fail.

    The first of each cause come first, then the second: no cause, and no run, hides another.
    """
    from pytest_manifest.reporting.summary import summary_of  # the ledger, and all that it needs

    found: list[tuple[int, int, Path, int, str, str]] = []
    failing = 0
    for run in config.stash[REPORT_KEY].runs:
        with contextlib.suppress(ManifestToolError):
            for number, cause in enumerate(summary_of(run, config).statistics.causes):
                failing += cause.count
                for nth, name in enumerate(cause.examples):
                    line = run.manifest.line_of(name) if name in run.manifest else 1
                    title, said = f"{name}: {cause.kind}", f"{cause.title}: {cause.message}"
                    found.append((nth, number, run.manifest.path, line, title, said))
    shown = sorted(found)[:SHOWN]
    for *_, path, line, title, message in sorted(shown, key=lambda one: one[2:]):
        yield _command("error", message, file=_file(path), line=line, title=title)
    if more := failing - len(shown):
        entries = "1 more entry fails" if more == 1 else f"{more} more entries fail"
        causes = ", their causes are in the step's summary" if step_summary_file() else ""
        message = f"{entries}{causes}; the run's summary.json has every one of them"
        yield _command("notice", message, title="pytest")


def _file(path: Path) -> str:
    """Return the path relative to GitHub's workspace, or as it is if it is outside."""
    inside, workspace = path.resolve(), Path(os.environ.get("GITHUB_WORKSPACE", "")).resolve()
    is_inside = inside.is_relative_to(workspace)
    return inside.relative_to(workspace).as_posix() if is_inside else str(path)


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
