"""Earlier runs that are written by hand, and new ones that may reuse what has passed in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_manifest.broker.attempt import attempt_of, new_run_id
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.audit import violations
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.dispatch import Dispatch
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.reuse import take_over_passes
from pytest_manifest.run.settings import EarlierRuns, RunSettings
from pytest_manifest.schema.run_facts import TaskFact
from pytest_manifest.urls import StackAddress
from tests.unit.ledger_support import INFO
from tests.unit.record_support import RecordWriter

CODE, OTHER = "py3.11:" + "a" * 64, "py3.11:" + "b" * 64
CODES = {"jobs.double": CODE, "jobs.start": CODE, "jobs.t": CODE}

Row = Mapping[str, object]


def double(name: str, n: int = 1, **fields: object) -> dict[str, object]:
    return {"id": name, "task": "jobs.double", "args": [n], **fields}


class Rig:
    """An earlier run that was written by hand, and a new one that may reuse it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.earlier: list[Path] = []

    def passed(self, entries: Sequence[Row], **ended: Any) -> RecordWriter:
        """Write an earlier run in which these entries have passed, by jobs that ran ``CODE``."""
        record = self.begun(entries)
        for entry in entries:
            record.attempt(str(entry["id"]), **{"code": CODE, **ended})
        self.finish(record)
        return record

    def begun(self, entries: Sequence[Row]) -> RecordWriter:
        place = self.folder / f"earlier-{len(self.earlier)}"
        place.mkdir()
        return RecordWriter(place, entries)

    def finish(self, record: RecordWriter) -> None:
        path = record.finish()
        keep_manifest(record.manifest, path)
        self.earlier.insert(0, path)

    def state(
        self, entries: Sequence[Row], *, named: bool = False, receipt_keys: str | None = None
    ) -> RunState:
        """Make the ledger of a new run of these entries, all of them planned."""
        path = self.folder / "new.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
        manifest = read_manifest(path)
        run = new_run_id()
        info = replace(
            INFO, run=run, manifest=path, sha256=manifest.sha256, entries=len(manifest.ids)
        )
        settings = RunSettings(
            self.folder,
            receipt_keys=receipt_keys,
            reuse=EarlierRuns(self.earlier, are_named=named),
        )
        files = RunFiles.of(self.folder, run)
        state = RunState(
            manifest, files, info, StackAddress("", "", None, is_private=True), settings
        )
        state.to_send = [attempt_of(run, one, 1, place) for place, one in enumerate(manifest)]
        Dispatch(state).make_ledger(range(len(manifest.ids)), None)
        return state

    def reuse(
        self,
        entries: Sequence[Row],
        codes: Mapping[str, str] = CODES,
        receipt_keys: str | None = None,
    ) -> Reused:
        """Start a new run of these entries, which may reuse what has passed."""
        state = self.state(entries, receipt_keys=receipt_keys)
        with Ledger.open(state.files.ledger, write=True) as ledger:
            ledger.facts.append(
                (None, TaskFact(**stamp(), task=task, code=code)) for task, code in codes.items()
            )
            if state.settings.reuse is not None:
                take_over_passes(state, ledger, codes)
            ledger.info.set_status("stopped")
        return Reused(state)


class Reused:
    """A run once it has looked for passes."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.path = state.files.ledger
        self.manifest: Manifest = state.manifest

    @property
    def sent(self) -> list[str]:
        return [one.entry.id for one in self.state.to_send]

    @property
    def notices(self) -> str:
        return "\n".join(self.state.notices)

    def origins(self) -> dict[str, str]:
        """The entry that each reused one had been."""
        with Ledger.open(self.path) as ledger:
            tries = {name: ledger.attempts.of_entry(name)[0] for name in self.manifest.ids}
        return {name: one.reused_from.entry for name, one in tries.items() if one.reused_from}

    def broken(self) -> list[str]:
        with Ledger.open(self.path) as ledger:
            return [f"{one.entry} {one.sentence}" for one in violations(ledger, self.manifest)]
