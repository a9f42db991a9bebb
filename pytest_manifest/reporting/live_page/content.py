"""Say what a run's live page shows: figures, entries by query, one entry, and commands for it."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import JsonValue

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.errors import ManifestToolError, PlanError
from pytest_manifest.files import FILE_MODE
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.listing import STATES, Wanted
from pytest_manifest.redaction.texts import redact
from pytest_manifest.reporting.live_page.commands import give
from pytest_manifest.reporting.live_page.page import live_page
from pytest_manifest.reporting.run_page import columns
from pytest_manifest.reporting.run_page.page import LONGEST, PageMetadata, details, write_page_of
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.statuses import STATUSES, outcome_of
from pytest_manifest.text import pictured
from pytest_manifest.verdict.explanation import brief

if TYPE_CHECKING:
    from pytest_manifest.reporting.run_report import ReportedRun

PAGE: Final = 200
"""Entries that one answer has at most."""
_ENDED: Final = ("finished", "stopped")
"""States of a run whose page is the run page: nothing more comes of it by itself."""


@dataclass
class RunContent:
    """Show one run, whose ledger may not be there yet; with ``control`` it can be steered.

    ``open_run`` opens it with its manifest, ``root``: the folder as seen from which paths are
    shown. Methods are called by any thread, ``snapshot`` and ``close`` by one alone.
    """

    open_run: Callable[[Path], ReportedRun]
    control: bool = False
    root: Path = field(default_factory=Path.cwd)
    path: Path | None = None
    _reader: RunReader | None = None
    _status: RunStatus | None = None
    _run: ReportedRun | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def can_act(self) -> bool:
        return self.control

    def snapshot(self) -> tuple[str, bool]:
        """Return the figures of this moment as JSON, and whether the run is over."""
        try:
            if self.path is None:
                return _json({"problem": "pytest has sent nothing yet: it collects tests"}), False
            if self._reader is None:
                self._reader = RunReader(self.path)
            with Ledger.open(self.path) as ledger:
                ledger.info.hide_secrets()  # jobs and fixtures may go on to register some
            with self._looking:
                self._status = self._reader.look()
        except ManifestToolError as error:
            return _json({"problem": str(error)}), False
        found = cast("dict[str, JsonValue]", self._status.model_dump(mode="json"))
        more: dict[str, JsonValue] = {
            "control": self.control,
            "is_over": self._status.state in _ENDED,
            "outcomes": {kind: outcome_of(kind) for kind in self._status.counts},
        }
        return _json(found | more), bool(more["is_over"])

    def close(self) -> None:
        """Let go of the ledger, in the thread that took snapshots."""
        if self._reader is not None:
            self._reader.close()

    def page(self) -> tuple[bytes, str]:
        """Return the live page, or the run page of a run that is over, with its policy."""
        if self.path is not None and self._is_over(self.path):
            return self._run_page(), "frame-ancestors 'none'"
        text, policy = live_page()
        return text.encode(), policy

    def _is_over(self, path: Path) -> bool:
        with Ledger.open(path) as ledger:
            return ledger.info.status in _ENDED

    def _run_page(self) -> bytes:
        from pytest_manifest.reporting.summary import make_summary

        run = self._opened()
        with self._lock, tempfile.TemporaryDirectory(prefix="manifest-watch-") as folder:
            path = Path(folder) / "run.html"
            write_page_of(
                run, path, PageMetadata(make_summary(run, self.root)), self.root, FILE_MODE
            )
            return path.read_bytes()

    def _opened(self) -> ReportedRun:
        """Return the run with its manifest. Raises ManifestToolError where there is none yet."""
        with self._lock:
            if self.path is None:
                raise PlanError("pytest has sent nothing yet")
            if self._run is None:
                self._run = self.open_run(self.path)
            return self._run

    # Entries

    def entries(self, query: Mapping[str, str]) -> JsonValue:
        """Return some of the entries that a query asks for, and how many there are."""
        run = self._opened()
        with run.read() as ledger:
            wanted = self._wanted(run, query)
            after = query.get("after", "")
            start = int(after) if after.isdecimal() and len(after) < 10 else 0
            some = ledger.listing.some(wanted, start, PAGE)
            records = {one.id: one for one in read_some(ledger, run.manifest, [n for n, _ in some])}
            rows: list[JsonValue] = [
                dict(_row(name, state, records.get(name))) for name, state in some
            ]
            return {"rows": rows, "total": ledger.listing.count(wanted)}

    def _wanted(self, run: ReportedRun, query: Mapping[str, str]) -> Wanted:
        state = query.get("state", "")
        if state not in STATES:
            raise PlanError(f"there is no state {state[:40]!r}")
        names, ids = None, zip(run.manifest.ids, run.manifest.tasks, strict=True)
        if task := query.get("task", ""):
            names = [name for name, one in ids if one == task]
        cause = query.get("cause", "")
        numbers = self._of_cause(cause) if cause else None
        return Wanted(state, query.get("worker", ""), query.get("text", ""), names, numbers)

    def _of_cause(self, number: str) -> list[int]:
        """Return the entries of a cause, by the number that the figures give it."""
        if self._reader is None or not number.isdecimal() or len(number) > 9:
            raise PlanError(f"there is no cause {number[:40]!r}")
        with self._looking:
            return list(self._reader.causes.entries_of(int(number)))

    def entry(self, query: Mapping[str, str]) -> JsonValue:
        """Return all about an entry, as the run page has it."""
        run, name = self._opened(), query.get("id", "")
        with run.read() as ledger:
            known = name in run.manifest
            records = read_some(ledger, run.manifest, [name]) if known else []
            if not records:
                raise PlanError(f"the run has no entry {name[:80]!r}")
            states = dict(ledger.listing.some(Wanted(names=[name])))
            since = columns.Columns(run.info.created_at).since
        record = records[0]
        shown = details(record, since, LONGEST)
        row = _row(name, states.get(name, "not sent"), record)
        return cast("JsonValue", {**row, **shown, "position": f"line {record.line}"})

    def act(self, document: Mapping[str, JsonValue]) -> JsonValue:
        """Give the run a command, and return in a text what it answers."""
        try:
            said = give(self._opened().ledger_path, document, self._status, self._of_cause)
        except ManifestToolError as error:
            said = str(error)
        return {"text": _shown(said)}


def _row(name: str, state: str, record: EntryRecord | None) -> dict[str, JsonValue]:
    """Return what the list of entries shows of one."""
    row: dict[str, JsonValue] = {"id": pictured(name), "state": state, "outcome": None}
    if state in STATUSES:
        row["outcome"] = STATUSES[state].outcome  # type: ignore[index]  # it is one of them
    if record is None:
        return row
    last = record.last
    row |= {"task": pictured(record.task), "worker": _shown(last.place) if last else None}
    if record.verdict is not None and record.outcome != "passed":
        row["why"] = pictured(brief(record.verdict, record.receipt))
    return row


def _json(document: Mapping[str, JsonValue]) -> str:
    return json.dumps(_safe(document), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _safe(value: Any) -> Any:
    """Return JSON without secrets, and with all characters visible."""
    if isinstance(value, str):
        return _shown(value)
    if isinstance(value, Mapping):
        return {_shown(str(name)): _safe(one) for name, one in value.items()}
    return [_safe(one) for one in value] if isinstance(value, list) else value


def _shown(text: str | None) -> str:
    return pictured(redact(text or ""))
