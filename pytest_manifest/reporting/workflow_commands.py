"""Keep GitHub from taking what jobs or tests print for workflow commands.

GitHub's runner reads all output for commands. So it is told at a session's beginning to obey none
until it reads a random token, which is printed after everything else.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from typing import Final

import pytest

from pytest_manifest.console import begin_line

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
