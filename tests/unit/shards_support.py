"""Runs of one entry each, made by hand and judged as a run judges; then merged, and audited."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.audit import audit_run, violations
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.fact_log import record_own_limits, stamp
from pytest_manifest.run.merge import merge
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.run_facts import RunOver, SetBack, StoreFact
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Judging, recorded
from pytest_manifest.worker.signing import sign_receipt
from tests.reports import add_receipts, add_starts, note, started
from tests.unit.ledger_support import INFO, NOTHING

NOWHERE = StackAddress("", "", None, is_private=False)


@dataclass
class Shards:
    """The shards of a manifest of so many entries, ``e0`` and so on, each in a run of its own."""

    folder: Path
    total: int = 2
    paths: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.folder / "m.jsonl"
        rows = [{"id": f"e{n}", "task": "t", "cost": 2} for n in range(self.total)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self.manifest: Manifest = read_manifest(path)

    def run_id(self, number: int) -> str:
        return f"20261124T1500{number:02}-{number:08x}"

    def add(
        self,
        *,
        limits: Mapping[str, float] | None = None,
        runtime: float | None = 2.0,
        starts: Sequence[str] = ("x",),
        before: float = 0.0,
        facts: Sequence[StoreFact] = (),
        flown: Sequence[StoreFact | SetBack] = (),
        columns: Mapping[str, str] | None = None,
        is_whole: bool = True,
        **said: object,
    ) -> Path:
        """Make the next shard: tasks have these ``limits`` (s), its job ran for so long and began
        ``before`` it was sent, by its worker's clock; ``starts``: the executions of which there is
        a start. It is signed by the key in use, if there is one, and judged as its run has judged
        it; ``facts`` are there before it is sent, ``flown`` while it is in flight."""
        number = len(self.paths)
        run = self.run_id(number + 1)
        info = replace(
            INFO, run=run, manifest=self.manifest.path, sha256=self.manifest.sha256, entries=1
        )
        path = self.folder / "runs" / f"{run}.sqlite"
        self.paths.append(path)
        entry = self.manifest[f"e{number}"]
        attempt = attempt_of(run, entry, 1, number)
        with Ledger.create(path, info) as ledger:
            keep_manifest(self.manifest, path)
            ledger.info.begin_segment(info.created_at)
            ledger.info.set_meta("shard", f"{number + 1}/{self.total}")
            note(ledger, *facts)
            for key, value in (columns or {}).items():
                ledger.info.set_meta(key, value)
            if limits is not None:
                record_own_limits(ledger, limits)
            sent_at = utc_now()
            ledger.attempts.plan([(attempt.task_id, entry.id, 1, number)])
            ledger.attempts.mark([attempt.task_id], "sent", sent_at=sent_at)
            began = sent_at - timedelta(seconds=before)
            ledger.facts.append((None, one) for one in flown)
            begun = [
                started(attempt.task_id, name, began, 0, "w@h", "h", 1, redelivered=False)
                for name in starts
            ]
            add_starts(ledger, begun)
            times: dict[str, object] = {}
            if runtime is not None:
                ended = began + timedelta(seconds=runtime)
                times = {"started_at": began, "finished_at": ended}
            document = {"run": run, "entry": entry.id, "attempt": 1, "task_id": attempt.task_id}
            told = {"task": "t", "state": "succeeded", "sent_at": sent_at, "worker": "w@h", **times}
            known = {**document, **told, **NOTHING, "runtime": runtime, **said}
            signed = sign_receipt(Receipt.model_validate(known).model_dump(mode="json"), "x")
            receipt = Receipt.model_validate(signed)
            add_receipts(ledger, [(attempt.task_id, "x", receipt)])
            look = StoreFact(**stamp(), what="intact" if is_whole else "unreachable")
            ledger.facts.append([(None, look)])
            ledger.verdicts.record([recorded(_judging(ledger).of(self.manifest[entry.id]))])
            ledger.info.set_status("finished")
        return path

    def merged(self, *, reverse: bool = False) -> Path:
        return merge(self.paths[::-1] if reverse else self.paths).ledger

    def statuses(self, path: Path) -> dict[str, VerdictStatus]:
        with Ledger.open(path) as ledger:
            return dict(sorted(ledger.verdicts.statuses().items()))

    def audited(self, path: Path, *, receipt_keys: str | None = None) -> dict[str, VerdictStatus]:
        """The statuses after an audit without a stack; what is judged anew comes to the same."""
        settings = RunSettings(folder=path.parent, receipt_keys=receipt_keys)
        run = audit_run(self.manifest, path, NOWHERE, settings, wait=False)
        run.prepare()
        run.take_effect()
        run.start()
        assert self.judged_anew(path) == self.statuses(path)
        return self.statuses(path)

    def judged_anew(self, path: Path) -> dict[str, VerdictStatus]:
        """What each entry's receipt comes to by all that the ledger has, whatever was said of it;
        an audit with other keys judges so."""
        found: dict[str, VerdictStatus] = {}
        with Ledger.open(path) as ledger:
            judging = _judging(ledger)
            for row in ledger.attempts.all():
                found[row.entry] = judging.of(self.manifest[row.entry]).judgement.status
        return found

    def broken(self, path: Path) -> list[str]:
        """What the check says."""
        with Ledger.open(path) as ledger:
            found = violations(ledger, self.manifest)
            return [f"{one.promise} {one.entry}: {one.sentence}" for one in found]


def _judging(ledger: Ledger) -> Judging:
    """Judge as where a run is over: what was not believed is forged then."""
    over = RunOver(seq=1 << 62, at=utc_now(), why="ended")
    return Judging(ledger, by_present_keys=True, also=[over])
