"""What truly happened in a simulated world, over all sessions, and what a ledger may say of it.

Each complaint begins with the promise that does not hold; see ``docs/evidence/promises.md``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.audit import violations
from pytest_manifest.run.run import Run
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.verdict.reasons import Reason, reason_of
from tests.reports import starts_by_task
from tests.simulation.ends import complaint
from tests.simulation.process import Process
from tests.simulation.world import SimulatedWorld

MISSING = ("lost", "crashed")
"""What is said of a job that nobody has any more."""


@dataclass(frozen=True)
class KnownVerdict:
    """Hold what an entry is said to be, and how much had been reported of it by then."""

    status: VerdictStatus
    sentence: str
    reason: Reason
    reports: int
    is_finished: bool


def _cancelled(ledger: Ledger) -> set[str]:
    """Return what was cancelled, by the answers alone, and not asked for again since."""
    found = set[str]()
    query = "SELECT action, answer FROM commands WHERE answer IS NOT NULL ORDER BY n"
    for action, answer in ledger._db.read(query):
        names = json.loads(answer)["data"].get("entries", ())
        found = found | set(names) if action == "cancel" else found - set(names)
    return found


class Truth:
    """Hold what sessions do and say against the world. ``complain`` is called with a sentence."""

    def __init__(
        self,
        world: SimulatedWorld,
        manifest: Manifest,
        names: Sequence[str],
        ledger: Callable[[], Path | None],
        outside: Callable[[], AbstractContextManager[None]],
        complain: Callable[[str], object],
        reached: Counter[str],
        *,
        moves_orphans: bool,
    ) -> None:
        self._world = world
        self._manifest = manifest
        self._names = names
        self._ledger = ledger
        self._outside = outside
        self._complain = complain
        self._moves_orphans = moves_orphans
        self._told: dict[Process, dict[str, VerdictStatus]] = {}
        self._runs: dict[Process, Run] = {}
        self._reader: Ledger | None = None
        self.reached = reached

    def _committed(self) -> Ledger:
        """Open what is committed at this moment."""
        with self._outside():
            path = self._ledger()
            assert path is not None, "nothing is done before there is a ledger"
            if self._reader is None or self._reader.path != path:
                self.close()
                self._reader = Ledger.open(path)
        return self._reader

    def close(self) -> None:
        """Read no more."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # At every moment

    def published(self, attempts: Sequence[Attempt]) -> None:
        """Messages are about to leave: S1 and S2."""
        ledger = self._committed()
        insisted = ledger.info.sent_on_request()
        cancelled = _cancelled(ledger)
        for one in attempts:
            if one.entry.id in cancelled:
                self._complain(f"S2 {one.entry.id}: it was cancelled, and is sent")
            rows = ledger.attempts.of_entry(one.entry.id)
            row = next((row for row in rows if row.task_id == one.task_id), None)
            if row is None or row.state != "intent":
                self._complain(f"S1 {one.entry.id}: sent before that was written down")
            self._no_second_message(one)
            others = [row.task_id for row in rows if row.task_id != one.task_id]
            if not one.entry.idempotent and one.task_id not in insisted:
                self._no_second_attempt(one, others)
            elif ledger.jobs.of_entry(one.entry.id)[-1].own.job.why == "requeue":
                self.reached["an operator has an entry sent again"] += 1
                there = [name for name in others if name not in self._world.meddled]
                if any(self._world.has(task_id) for task_id in there):
                    self._complain(f"S2 {one.entry.id}: it is there, and is sent again")

    def _no_second_message(self, one: Attempt) -> None:
        world = self._world
        if not world.published[one.task_id]:
            return
        self.reached["a message lost on its way is sent again"] += 1
        if world.has(one.task_id):
            self._complain(f"S1 {one.entry.id}: its message is there, and it is sent again")
        if world.of(one.task_id) and not one.entry.idempotent:
            self._complain(f"S1 {one.entry.id}: it had begun, and is sent again")

    def _no_second_attempt(self, one: Attempt, others: Sequence[str]) -> None:
        for task_id in others:
            if self._world.of(task_id):
                self._complain(f"S2 {one.entry.id}: it had begun, and gets another attempt")
            elif self._world.has(task_id):
                self._complain(f"S2 {one.entry.id}: it is there, and gets another attempt")
            else:
                self.reached["what had certainly not run is sent anew"] += 1

    def begin(self, process: Process, run: Run) -> None:
        """A session begins to tell verdicts; it shows those that are there."""
        ledger = self._committed()
        statuses = ledger.verdicts.statuses()
        self._told[process] = {e: s for e, s in statuses.items() if s != "pending"}
        self._runs[process] = run

    def told(self, process: Process, entries: Sequence[str]) -> None:
        """A session tells of these entries: S5, and S3 of what is missing."""
        told = self._told.get(process)
        if told is None:
            return  # it is prepared, and shows nothing yet
        ledger = self._committed()
        for entry in entries:
            settled = ledger.verdicts.of_entry(entry)
            if settled is None:
                self._complain(f"S5 {entry}: told of before its verdict was written down")
                continue
            now, before = settled.verdict.verdict, told.get(entry)
            told[entry] = now
            self.reached["a deadline is over"] += "deadline" in settled.verdict.sentence
            if before is not None and before != now:
                self._corrected(process, entry, before, now)
            if settled.receipt is None and now in MISSING:
                row = ledger.attempts.of_entry(entry)[-1]
                self._nobody_has(entry, row.task_id, now)

    def _corrected(
        self, process: Process, entry: str, before: VerdictStatus, now: VerdictStatus
    ) -> None:
        self.reached["a verdict is corrected"] += 1
        pairs = [(c.before, c.verdict.verdict) for c in self._runs[process].corrections]
        if (before, now) not in pairs:
            self._complain(f"S5 {entry}: it went from {before} to {now}, and nobody says so")

    def _nobody_has(self, entry: str, task_id: str, status: VerdictStatus) -> None:
        world = self._world
        if status == "crashed" and task_id in world.meddled:
            return  # its worker did die, and the broker gave it back between look and verdict
        if world.has(task_id, orphans=self._moves_orphans):
            self._complain(f"S3 {entry}: it is {status}, and there")

    # What an audit may change

    def known(self, *, with_news: bool = False) -> dict[str, KnownVerdict]:
        """Return each entry's verdict that is final: nothing but a new report changes these.

        Without those of which something was reported since, unless ``with_news``: to an audit that
        is a new report. One that it has read, and that says nothing new, leaves the verdict.
        """
        if self._ledger() is None:
            return {}
        ledger = self._committed()
        is_finished = ledger.info.status == "finished"
        found: dict[str, KnownVerdict] = {}
        has_news = set() if with_news else set(ledger.verdicts.unsettled(len(self._names)))
        for one in ledger.queries.all_verdicts():
            name, verdict = one.verdict.entry, one.verdict
            if verdict.verdict == "pending" or name in has_news:
                continue
            reports = sum(
                len(ledger.events.receipts(row.task_id)) + len(ledger.events.starts(row.task_id))
                for row in ledger.attempts.of_entry(name)
            )
            found[name] = KnownVerdict(
                verdict.verdict, verdict.sentence, reason_of(verdict), reports, is_finished
            )
        return found

    def audited(self, before: Mapping[str, KnownVerdict]) -> None:
        """An audit is over: without a new report it has changed nothing of a finished run (S5).

        Of one that goes on it may judge what was unknown, or given up, and make nothing green.
        """
        after = self.known(with_news=True)
        for name, was in before.items():
            now = after.get(name)
            same = now is not None and replace(now, is_finished=was.is_finished) == was
            if same or (now is not None and now.reports != was.reports):
                continue
            self.reached["an audit looks at what is final"] += 1
            status = "open" if now is None else now.status
            if was.is_finished or (status == "passed" != was.status):
                sentence = "" if now is None else now.sentence
                self._complain(
                    f"S5 {name}: an audit made {status} ({sentence}) of {was.status} "
                    f"({was.sentence}), and nothing was reported"
                )

    # When a session is over

    def consistent(self) -> None:
        """The record that a session leaves, however it ended, keeps the promises."""
        if self._ledger() is None:
            return
        ledger = self._committed()
        with closing(violations(ledger, self._manifest)) as found:
            for status, number in ledger.verdicts.counts().items():
                self.reached[f"status: {status}"] += number
            for one in found:
                self._complain(f"{one.promise} in the record, {one.entry}: {one.sentence}")
            position = self._world.position(ledger.info.get_meta("stream_position") or "0")
            known = starts_by_task(ledger)
            for record in self._world.stream:
                if record.started and record.number <= position:
                    begun = {(s.host, s.pid) for s in known.get(record.task_id, ())}
                    if (record.raw["host"], record.raw["pid"]) not in begun:
                        self._complain(f"S3 {record.task_id}: a start was read, and is not kept")

    def complete(self) -> None:
        """The last session ended in good order: every verdict is there, and true."""
        ledger = self._committed()
        verdicts = {one.verdict.entry: one for one in ledger.queries.all_verdicts()}
        if set(verdicts) != set(self._names):
            self._complain(f"S6 verdicts of {sorted(verdicts)} at the end")
        for entry in map(self._manifest.__getitem__, self._names):
            settled = verdicts.get(entry.id)
            rows = ledger.attempts.of_entry(entry.id)
            if settled is None:
                continue
            status = settled.verdict.verdict
            if settled.verdict.attempt != rows[-1].attempt:
                self._complain(f"S6 {entry.id}: its verdict is not of its newest attempt")
            ran = sum(bool(self._world.of(row.task_id)) for row in rows)
            jobs = [one.own.job for one in ledger.jobs.of_entry(entry.id)]
            asked = sum(job.why == "requeue" and job.asked_for for job in jobs)
            if not entry.idempotent and ran > 1 + asked + self.reached["session: unsafe"]:
                self._complain(f"S2 {entry.id}: {ran} attempts of it ran")
            wrong = complaint(self._world, entry, rows, settled, ledger)
            if wrong:
                self._complain(f"{wrong[0]} {entry.id} is {status}, and {wrong[1]}")
