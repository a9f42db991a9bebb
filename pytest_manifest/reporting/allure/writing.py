"""Write results to files, in batches while pytest waits for jobs."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from pydantic_core import to_json

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.allure.attachments import write_file
from pytest_manifest.reporting.allure.entries import Entries
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.allure.told import Told

AT_ONCE: Final = 64
"""Tests whose results are made together, from one reading of the ledger."""
MOST: Final = 1000
"""Tests that wait to be written, at most."""
PERIOD: Final = 1.0
"""Seconds that they wait for a larger batch while pytest waits for jobs."""
LONGEST: Final = 10.0
"""Seconds that they wait at most while pytest runs tests."""


class ResultWriter:
    """Make results of finished tests, and write them.

    ``write_plainly`` writes one as allure-pytest would; ``notices`` takes messages for the user.
    ``wait``: write in batches; not in an xdist worker, whose process may end before they are
    written.
    """

    def __init__(
        self,
        entries: Entries,
        folder: Path,
        write_plainly: Callable[[Told], None],
        notices: list[str],
        *,
        wait: bool,
    ) -> None:
        self._entries = entries
        self._folder = folder
        self._write_plainly = write_plainly
        self._notices = notices
        self._most = MOST if wait else 1
        self._waiting: list[Told] = []
        self._since = 0.0

    def add(self, told: Told) -> None:
        now = time.monotonic()
        if not self._waiting:
            self._since = now
        self._waiting.append(told)
        if len(self._waiting) >= self._most or now - self._since > LONGEST:
            self.flush()

    def tick(self) -> float:
        """Write tests that have waited long enough; return the seconds until others will have."""
        if not self._waiting:
            return math.inf
        left = self._since + PERIOD - time.monotonic()
        if left > 0:
            return left
        self.flush()
        return math.inf

    def flush(self) -> None:
        """Write all tests that are waiting."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), AT_ONCE):
            self._write(waiting[start : start + AT_ONCE])

    def _write(self, several: Sequence[Told]) -> None:
        try:
            for stem, result in self._entries.results(several):
                write_result(self._folder, stem, result)
        except (ManifestToolError, pytest.UsageError, sqlite3.Error) as error:
            self._notice(f"Allure shows tests as pytest saw them, not their jobs: {error}")
            for told in several:
                self._write_plainly(told)
        except OSError as error:
            self._notice(f"Allure's results were not all written: {error}")

    def _notice(self, text: str) -> None:
        if text not in self._notices:
            self._notices.append(text)


def write_result(folder: Path, stem: str, result: Json) -> None:
    """Replace a result's file at once: another program may be watching the folder."""
    path = f"{folder}/{stem}-result.json"
    write_file(f"{path}.tmp", _dumps(result))
    os.replace(f"{path}.tmp", path)  # noqa: PTH105 - a Path costs as much as the replacing


def _dumps(result: Json) -> bytes:
    try:
        return to_json(result)
    except UnicodeEncodeError:  # a test of the project's may attach a lone surrogate
        return json.dumps(result).encode()
