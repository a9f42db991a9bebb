"""Judge a record later: what a session leaves is compared with what the one before had left, and a
copy of it is audited, alone or merged with another shard.

None of these may turn a final red into a green without a new report (S5); nor may whoever judges
all anew, as an audit does by another manifest, or by other keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from typing import Final, NamedTuple

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.manifest.writer import write_receipt_lines
from pytest_manifest.run.audit import audit_run, violations
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.exports import exported_lines, ledger_of_receipts
from pytest_manifest.run.fact_log import note_emptied, record_own_limits, stamp
from pytest_manifest.run.merge import merge
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.run_facts import SetBack
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Costs, Judging
from tests.reports import GAVE_UP, add_receipts, add_starts, node, note, started
from tests.simulation.program import Partner
from tests.unit.run_world import EPOCH, HOST

NO_STACK: Final = StackAddress("", "", None, is_private=False)
PARTNERS_ENTRY: Final = Entry(id="partner", task="t", timeout=30.0)
"""The entry of the manifest that another shard has sent."""
_RUN: Final = "20261124T150000-beefbeef"
_LONG, _SHORT, _RUNTIME = 1000.0, 0.02, 0.01
"""Seconds: a limit that excuses all, one that excuses nothing, and how long the job ran."""
_OPEN: Final = frozenset({"pending", "unknown"})
"""Statuses that are not final."""


class _Left(NamedTuple):
    """What a record says of an entry: its status, of which attempt, and by how many reports."""

    status: VerdictStatus
    attempt: int | None
    reports: int


class LaterJudges:
    """Judge the records of one run again and again. ``complain`` is called with a sentence."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        partner: Partner,
        complain: Callable[[str], object],
        reached: Counter[str],
    ) -> None:
        self._manifest = manifest
        self._folder = folder / "later"
        # Which forbids nothing, but has an audit judge each entry anew.
        other = (
            entry.model_copy(
                update={"expect": entry.expect.model_copy(update={"max_runtime": _LONG})}
            )
            for entry in manifest
        )
        self._other = write_manifest(folder / "other.jsonl", manifest.header, other)
        self._complain = complain
        self._reached = reached
        self._before: Mapping[str, _Left] = {}
        self._partner: Path | None = None
        if partner is not None:
            self._partner = _ledger_of_partner(manifest, folder / "partner", partner)

    def look(self, path: Path) -> None:
        """Look at the record that a session has left."""
        with Ledger.open(path) as ledger:
            left, cost = _left(ledger), Costs(ledger, self._manifest).total()
            late = _told_after_their_verdict(ledger)
        self._compare("a session", self._before, left, frozenset())
        self._before = left
        if self._partner is None:
            self._compare("an audit", left, self._audited(path), late)
            self._compare("judging anew", left, self._judged_anew(path, left), late)
            self._compare("an import", left, self._imported(path, left), frozenset())
            return
        merged = merge([path, self._partner], self._folder).ledger
        with Ledger.open(merged) as ledger, Ledger.open(self._partner) as partner:
            more = Costs(partner, self._manifest).total()
            total = Costs(ledger, self._manifest).total()
            if abs(total - cost - more) > 1e-9:
                self._complain(f"S6 merged it costs {total}, and its shards {cost} and {more}")
            for one in violations(ledger, self._manifest):
                self._complain(f"{one.promise} once merged, {one.entry}: {one.sentence}")
        self._compare("an audit of the merged run", left, self._audited(merged), late)
        self._compare("judging the merged run", left, self._judged_anew(merged, left), late)
        self._reached["two shards merged and audited"] += 1
        rmtree(self._folder)

    def _audited(self, path: Path) -> Mapping[str, _Left]:
        scratch = self._folder / "audit"
        scratch.mkdir(parents=True)
        settings = RunSettings(folder=scratch)
        run = audit_run(self._other, path, NO_STACK, settings, wait=False, scratch=scratch)
        run.prepare()
        run.take_effect()
        run.start()
        with run.read() as ledger:
            found = _left(ledger)
        rmtree(scratch)
        return found

    def _imported(self, path: Path, left: Mapping[str, _Left]) -> Mapping[str, _Left]:
        """Judge what the run has exported, and that alone."""
        scratch = self._folder / "import"
        scratch.mkdir(parents=True)
        file = scratch / "receipts.jsonl"
        with Ledger.open(path) as ledger:
            write_receipt_lines(file, exported_lines(ledger))
        made, _ = ledger_of_receipts(self._manifest, file, scratch)
        with Ledger.open(made) as ledger:
            statuses = ledger.verdicts.statuses()
        rmtree(scratch)
        self._reached["its receipts exported and judged alone"] += 1
        known = {entry: status for entry, status in statuses.items() if entry in left}
        return {entry: left[entry]._replace(status=known[entry]) for entry in known}

    def _judged_anew(self, path: Path, left: Mapping[str, _Left]) -> Mapping[str, _Left]:
        """Judge what has ended by all that was reported of it, whatever was said of that."""
        found: dict[str, _Left] = {}
        with Ledger.open(path) as ledger:
            entries = [
                self._manifest[row.entry]
                for row in ledger.attempts.newest()
                if row.entry in left
                and any(end.source == "worker" for _, end in ledger.events.receipts(row.task_id))
            ]
            for judged in Judging(ledger).each(entries):
                name = judged.entry.id
                found[name] = left[name]._replace(status=judged.judgement.status)
        return found

    def _compare(
        self,
        judge: str,
        before: Mapping[str, _Left],
        after: Mapping[str, _Left],
        late: frozenset[str],
    ) -> None:
        for entry, one in before.items():
            now = after.get(entry)
            if one.status in _OPEN or one.status == "passed" or now is None:
                continue
            self._reached["a final red judged later"] += 1
            same = (one.attempt, one.reports) == (now.attempt, now.reports) and entry not in late
            if now.status == "passed" and same:
                self._complain(f"S5 {entry}: {judge} turns {one.status} into passed, by no report")


def _left(ledger: Ledger) -> dict[str, _Left]:
    """Read what a record says of its entries."""
    found = {}
    for settled in ledger.queries.all_verdicts():
        verdict, reports = settled.verdict, 0
        for row in ledger.attempts.of_entry(verdict.entry):
            events = ledger.events
            reports += len(events.receipts(row.task_id)) + len(events.starts(row.task_id))
        found[verdict.entry] = _Left(verdict.verdict, verdict.attempt, reports)
    return found


def _told_after_their_verdict(ledger: Ledger) -> frozenset[str]:
    """Name the entries of which a report has come since they were judged."""
    rows = ledger._db.read(
        "SELECT a.entry FROM attempts a JOIN receipts r ON r.task_id = a.task_id "
        "WHERE r.after_verdict"
    )
    return frozenset(str(row[0]) for row in rows)


def _ledger_of_partner(manifest: Manifest, folder: Path, partner: str) -> Path:
    """Make the ledger of another shard, whose one job has passed."""
    info = RunInfo(
        *(_RUN, manifest.path, manifest.sha256, None, None, 1, EPOCH, "", ""),
        is_private=True,
        stream_ttl=3600,
    )
    path = folder / f"{_RUN}.sqlite"
    attempt = attempt_of(_RUN, PARTNERS_ENTRY, 1, len(manifest) - 1)
    task_id, ended = attempt.task_id, EPOCH + timedelta(seconds=_RUNTIME)
    with Ledger.create(path, info) as ledger:
        keep_manifest(manifest, path)
        ledger.info.begin_segment(EPOCH)
        record_own_limits(ledger, {"t": _LONG if partner == "excused" else _SHORT})
        ledger.attempts.plan([(task_id, PARTNERS_ENTRY.id, 1, len(manifest) - 1)])
        ledger.attempts.mark([task_id], "sent", sent_at=EPOCH)
        if partner == "excused":
            note_emptied(ledger)
            ledger.facts.append([(None, SetBack(**stamp(), by=1e6, most=1e6))])
            note(ledger, GAVE_UP, node("w@box", "stock"))
        begun = started(task_id, "x", EPOCH, 0, "w@box", HOST, 1, redelivered=False)
        add_starts(ledger, [begun])
        receipt = Receipt(
            run=_RUN,
            entry=PARTNERS_ENTRY.id,
            attempt=1,
            task_id=task_id,
            task="t",
            state="succeeded",
            sent_at=EPOCH,
            started_at=EPOCH,
            finished_at=ended,
            runtime=_RUNTIME,
            executions=1,
            args_sha256=arguments_sha256([], {}),
            result_sha256=json_sha256(None),
        )
        add_receipts(ledger, [(task_id, "x", receipt)])
        sentence = "The task succeeded."
        verdict = Verdict(verdict="passed", entry=PARTNERS_ENTRY.id, attempt=1, sentence=sentence)
        ledger.verdicts.record([(verdict, receipt)])
        ledger.info.set_status("finished")
    return path
