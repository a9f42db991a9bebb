"""Write results to files, in batches while pytest waits; rewrite those of corrected verdicts."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from pydantic_core import to_json

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.files import write_whole
from pytest_manifest.reporting.allure import content
from pytest_manifest.reporting.allure import result as results
from pytest_manifest.reporting.allure.entries import BUILTIN, Entries
from pytest_manifest.reporting.allure.finished_test import FinishedTest, OwnReport
from pytest_manifest.reporting.allure.steps import Json

if TYPE_CHECKING:
    from pytest_manifest.run import Run


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

    ``write_stock`` writes one as allure-pytest would; ``notices`` takes messages for the user, and
    ``not_written`` the one about results that could not be written. ``mode``: that of the files.
    ``wait``: write in batches; not in an xdist worker, whose process may end before they are
    written.
    """

    def __init__(
        self,
        entries: Entries,
        folder: Path,
        write_stock: Callable[[FinishedTest], None],
        notices: list[str],
        not_written: Callable[[str], None],
        *,
        mode: int,
        wait: bool,
    ) -> None:
        self._mode = mode
        self._entries = entries
        self._folder = folder
        self._write_stock = write_stock
        self._notices = notices
        self._not_written = not_written
        self._most = MOST if wait else 1
        self._waiting: list[FinishedTest] = []
        self._since = 0.0

    def add(self, test: FinishedTest) -> None:
        now = time.monotonic()
        if not self._waiting:
            self._since = now
        self._waiting.append(test)
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

    def _write(self, tests: Sequence[FinishedTest]) -> None:
        try:
            for stem, result in self._entries.results(tests):
                write_result(self._folder, stem, result, self._mode)
        except (ManifestToolError, pytest.UsageError, sqlite3.Error) as error:
            self._notice(f"Allure shows tests as pytest saw them, not their jobs: {error}")
            for test in tests:
                self._write_stock(test)
        except OSError as error:
            self._not_written(content.unwritten_message(error))

    def _notice(self, text: str) -> None:
        if text not in self._notices:
            self._notices.append(text)


def write_result(folder: Path, stem: str, result: Json, mode: int) -> None:
    """Replace a result's file at once: another program may be watching the folder."""
    path = f"{folder}/{stem}-result.json"
    write_whole(f"{path}.tmp", _dumps(result), mode)
    os.replace(f"{path}.tmp", path)  # noqa: PTH105 - a Path costs as much as the replacing


def _dumps(result: Json) -> bytes:
    try:
        return to_json(result)
    except UnicodeEncodeError:  # a test of the project's may attach a lone surrogate
        return json.dumps(result).encode()


# Corrected verdicts

Result = dict[str, Any]
"""A result as it is in its file: Allure's own format."""

_TASK: Final = re.compile(rb'"task id",\s*"value":\s*"([^"]*)"')
_END: Final = "-result.json"


def rewrite_corrected(
    folder: Path, run: Run, name: str, issue: Callable[[str], str | None], mode: int
) -> None:
    """Rewrite the results in ``folder`` of entries whose verdict was corrected in this run.

    The process that ends the run calls this: the xdist workers, which wrote the results, have
    exited by then. ``name``: the manifest's name; ``issue`` returns an issue's address. Raises
    OSError or ManifestToolError.
    """
    entries = list(dict.fromkeys(one.verdict.entry for one in run.corrections))
    if not entries:
        return
    with run.read() as ledger:
        records = read_some(ledger, run.manifest, entries)
    attempts = {one.task_id: record for record in records if (one := results.last_sent(record))}
    for path, record in _of_attempts(folder, attempts):
        old: Result = json.loads(path.read_text("utf-8"))
        if _verdict(old) == record.kind:
            continue
        stem = path.name.removesuffix(_END)
        kept = [one for one in old["attachments"] if not one["source"].startswith(stem)]
        documents = content.small_documents(record)
        location = f"{name}:{record.line}"
        subject, report = _subject(old, run, location), _own_report(old, record, kept)
        new = results.final_result(
            record, subject, report, results.last_sent(record), issue, documents
        )
        for stale in folder.glob(f"{stem}-*-attachment.*"):
            stale.unlink()
        files = content.attachments_of_last(record) if documents is None else iter(())
        written = content.write_attachments(folder, stem, files, mode)
        whole = new | {"uuid": old["uuid"], "attachments": [*written, *kept]}
        write_result(folder, stem, whole, mode)


def _of_attempts(
    folder: Path, attempts: Mapping[str, EntryRecord]
) -> Iterator[tuple[Path, EntryRecord]]:
    for path in sorted(folder.glob(f"*{_END}")):
        found = _TASK.search(path.read_bytes())
        record = None if found is None else attempts.get(found[1].decode())
        if record is not None:
            yield path, record


def _verdict(old: Result) -> Any:
    return dict(_pairs(old)).get("verdict")


def _pairs(old: Result) -> list[tuple[str, str]]:
    return [(one["name"], one["value"]) for one in old["labels"]]


def _subject(old: Result, run: Run, location: str) -> results.Subject:
    return results.Subject(
        history=old["historyId"],
        full_name=old["fullName"],
        title=old["name"],
        hierarchy=old["titlePath"],
        location=location,
        builtin=str(old["fullName"]).endswith(f"#{BUILTIN}"),
        planned_at=run.info.created_at,
        live=True,
        others=[
            (one["name"], one["value"])
            for one in old["parameters"]
            if not one.get("excluded") and one["name"] != results.ENTRY
        ],
        run=run.info.run,
    )


def _own_report(old: Result, record: EntryRecord, files: list[Json]) -> OwnReport:
    """Recover what the test itself had reported from the result that was made of it."""
    details = old.get("statusDetails", {})
    verified = [step for step in old["steps"] if step["name"] == results.VERIFIED]
    itself = verified[0] if verified else old
    return OwnReport(
        status=old["status"],
        message=details.get("message"),
        trace=details.get("trace"),
        start=itself["start"],
        stop=itself["stop"],
        verdict_read=_verdict(old),
        doc=content.doc_of(old["description"], record.entry),
        html=old.get("descriptionHtml"),
        labels=[pair for pair in _pairs(old) if pair[0] not in results.OF_AN_ATTEMPT],
        links=[(one["type"], one["url"], one["name"]) for one in old["links"]],
        parameters=[
            one
            for one in old["parameters"]
            if one.get("excluded") and one["name"] not in results.EXCLUDED
        ],
        steps=[step for one in verified for step in one.get("steps", ())],
        attachments=files,
    )
