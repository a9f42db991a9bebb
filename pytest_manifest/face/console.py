"""What this package logs, kept out of the terminal that pytest writes to."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Record


def quiet_console() -> None:
    """Keep what this package logs, short of warnings, out of the terminal that pytest writes to.

    loguru begins with one handler that prints everything to standard error; a project's own
    handlers are left alone, and so are other packages' records.
    """
    from loguru import logger

    with contextlib.suppress(ValueError):  # the project has removed it already
        logger.remove(0)
        logger.add(_write_to_console, filter=_for_console, level="DEBUG")


def _write_to_console(text: str) -> None:
    sys.stderr.write(text)  # looked up each time: pytest changes it when it captures


def _for_console(record: Record) -> bool:
    ours = (record["name"] or "").startswith("pytest_manifest.")
    return not ours or record["level"].no >= logging.WARNING
