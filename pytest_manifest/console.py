"""Write lines to pytest's terminal, and keep this package's log records out of it."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Final, TextIO, TypeGuard

import pytest

if TYPE_CHECKING:
    from loguru import Record


FIRST_HANDLER: Final = 0
"""The id of the handler that loguru begins with."""
_TERMINAL = pytest.StashKey[TextIO]()


def note_terminal(config: pytest.Config) -> None:
    """Note what pytest writes to: the standard output while it is being configured."""
    config.stash[_TERMINAL] = sys.stdout


def terminal_file(config: pytest.Config) -> TextIO:
    """Return the file that pytest's terminal reporter writes to."""
    return config.stash.get(_TERMINAL, sys.stdout)


def is_terminal_reporter(
    reporter: object, *, itself: bool = False
) -> TypeGuard[pytest.TerminalReporter]:
    """Return whether this is pytest's reporter: a subclass of it, too, unless ``itself``.

    By name, as pytest 8.0 keeps the class to itself.
    """
    kinds = type(reporter).__mro__[: 1 if itself else None]
    return ("_pytest.terminal", "TerminalReporter") in [(k.__module__, k.__name__) for k in kinds]


def begin_line(reporter: pytest.TerminalReporter) -> None:
    """Leave a line that something is written on, also where pytest does not know of it.

    Under xdist its own states, and the dots, are written behind pytest's back.
    """
    reporter.ensure_newline()
    if reporter.config.get_terminal_writer().width_of_current_line != 0:
        reporter.line("")


def quiet_console(config: pytest.Config) -> None:
    """Keep what this package logs, short of warnings, out of the terminal that pytest writes to.

    loguru begins with one handler that prints everything to standard error; a project's own
    handlers are left alone, and so are other packages' records. It has its handler again when the
    session ends.
    """
    from loguru import logger

    from pytest_manifest.compat.loguru import set_aside

    restore = set_aside(FIRST_HANDLER)
    if restore is None:  # the project has removed it already, or it was set aside before
        return
    ours = logger.add(_write_to_console, filter=_for_console, level="DEBUG")

    def end() -> None:
        with contextlib.suppress(ValueError):  # the project has removed it since
            logger.remove(ours)
            restore()

    config.add_cleanup(end)


def _write_to_console(text: str) -> None:
    sys.stderr.write(text)  # looked up each time: pytest changes it when it captures


def _for_console(record: Record) -> bool:
    ours = (record["name"] or "").startswith("pytest_manifest.")
    return not ours or record["level"].no >= logging.WARNING
