"""GitHub's workflow commands: nothing that jobs or tests print is to be taken for one of them.

The runner reads all that is printed, wherever in it something stands that looks like a command. So
it is told at a session's beginning to carry out no more until it hears a token that nobody can
guess; that is printed after everything else.
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
    """Whether GitHub's runner, or one that does as it does, reads what is printed here."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def stop_commands(config: pytest.Config) -> None:
    """From now on the runner shows what it reads, and carries nothing of it out."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or _TOKEN in config.stash or not on_github():
        return
    config.stash[_TOKEN] = secrets.token_hex(16)
    begin_line(reporter)
    reporter.write_line(f"::stop-commands::{config.stash[_TOKEN]}")
    reporter.flush()  # before anything that another process prints


def are_stopped(config: pytest.Config) -> bool:
    """Whether :func:`stop_commands` has told the runner so."""
    return _TOKEN in config.stash


def resume_commands(config: pytest.Config, commands: Iterable[str]) -> None:
    """Have the runner carry out these, and whatever comes after pytest; at its very end."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    begin_line(reporter)
    reporter.write_line(f"::{config.stash[_TOKEN]}::")
    for command in commands:
        reporter.write_line(command)
    del config.stash[_TOKEN]
