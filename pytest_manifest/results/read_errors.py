"""Record what could not be read: malformed records and results, logged and counted.

Whoever can write to a store, and every fault of a disk or a clock, can put there what no worker of
ours writes. It says nothing, and above all nothing about another entry.

Name the states in which a stored result is a job's end.
"""

from __future__ import annotations

from typing import Final

from celery import states
from loguru import logger
from pydantic import ValidationError

from pytest_manifest.text import whole_text

LOGGED: Final = 20
"""Bad records that get a line in the log; the others are counted."""
_MAX_CHARS: Final = 300
_MAX_FAULTS: Final = 20


class ReadErrors:
    """The records and results that could not be read; ``warnings``, if given, gets a sentence."""

    def __init__(self, warnings: list[str] | None = None) -> None:
        self._warnings = [] if warnings is None else warnings
        self._recorded: set[str] = set()
        self._message = ""
        self.count = 0
        self.results: dict[str, str] = {}
        """Task id -> why what the result store has of it cannot be read, not even its state."""

    def add_result(self, task_id: str, why: object) -> None:
        """Note that the store's result of this job cannot be read."""
        self.results[task_id] = " ".join(_text(why).split())[:_MAX_CHARS]
        self.add(f"the stored result of task {task_id}", why)

    def add(self, what: str, why: object) -> None:
        """Note what may be read again; of the same name it is counted once."""
        if what not in self._recorded:
            self._recorded.add(what)
            self.add_record(what, why)

    def add_record(self, what: str, why: object) -> None:
        """Note a record of the stream, which is read once: nothing of it is kept."""
        self.count += 1
        if self.count <= LOGGED:
            said = " ".join(f"{what}: {_text(why)}".split())[:_MAX_CHARS]
            logger.warning("passed over: {}", whole_text(said))
        if self._message in self._warnings:
            self._warnings.remove(self._message)
        some = "1 record or result" if self.count == 1 else f"{self.count} records or results"
        self._message = f"{some} could not be read and counted for nothing; see the log"
        self._warnings.append(self._message)


def _text(why: object) -> str:
    """Return what an error says; of very many faults, which would be told one by one, how many."""
    if isinstance(why, ValidationError) and why.error_count() > _MAX_FAULTS:
        return f"it has {why.error_count():,} faults"
    return f"{why}"


FINAL_STATES: Final = (*states.READY_STATES, states.IGNORED, states.REJECTED)
"""Celery itself stores nothing of what was ignored or rejected; our workers do."""
