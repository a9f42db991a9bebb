"""Warn of receivers of Celery's signals that raised, as the state of a task says nothing of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_manifest.schema.stream_records import ReceiverFailedRecord
from pytest_manifest.text import middle, one_line, plural

MOST: Final = 10
"""Receivers of which a run speaks."""
LONGEST: Final = 120
"""Characters of a receiver's name, and of its error."""


class FailedReceivers:
    """Keep one warning for each receiver and kind of error, with how often it was seen."""

    def __init__(self, warnings: list[str], live: list[str]) -> None:
        self._warnings, self._live = warnings, live
        self._found: dict[tuple[str, str, bool], tuple[ReceiverFailedRecord, int]] = {}

    def note(self, failures: Iterable[ReceiverFailedRecord]) -> None:
        """Take note of failures, and warn of each kind at once."""
        for failure in failures:
            key = failure.receiver, failure.error.partition(":")[0], failure.at_start
            if key not in self._found:
                if len(self._found) >= MOST:
                    continue
                self._found[key] = failure, 1
                sentence = _sentence(failure, 1)
                self._warnings.append(sentence)
                self._live.append(sentence)
                continue
            first, count = self._found[key]
            self._found[key] = first, count + 1
            before = _sentence(first, count)
            if not first.at_start and before in self._warnings:
                self._warnings[self._warnings.index(before)] = _sentence(first, count + 1)


def _sentence(failure: ReceiverFailedRecord, number: int) -> str:
    what = f"{_line(failure.receiver)} raised {_line(failure.error)}"
    if failure.at_start:
        return (
            f"when a worker started, {what}. What this receiver of Celery's signals sets up is "
            "missing there: start from the worker's log. Where a command of the project's own "
            "prepares the app, name a module that does so, too, as the app (--manifest-app)"
        )
    where = f"{plural(number, 'time')}, first at {_line(repr(failure.entry))}"
    return (
        f"{what} ({where}). Celery leaves a job's state as it is when a receiver of its signals "
        "fails: see whether what this one does is done"
    )


def _line(text: str) -> str:
    return middle(one_line(text), LONGEST)
