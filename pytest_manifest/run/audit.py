"""Judge an earlier run again, from its ledger and from what arrived since; or check its record.

The check judges each entry again by its facts, and holds the record against the promises.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from loguru import logger

from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.jobs import BATCH, LoadedAttempt
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.casebook import Evaluated
from pytest_manifest.run.changes import EntryLine, change_of, kept_manifest, manifest_lines
from pytest_manifest.run.connections import RunConnections, RunState
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.invariants import Promise, Violation, broken_invariants
from pytest_manifest.run.run import Run
from pytest_manifest.run.search import JobSearch
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.run.strategy import EarlierRunStrategy, Tracking, evaluate_kept_receipts
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import Place, Seen, TakenUp
from pytest_manifest.schema.run_facts import RunOver
from pytest_manifest.schema.statuses import ENDS, GIVEN_UP
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.judge import Rules
from pytest_manifest.verdict.judging import Judged, Judging, is_same, recorded
from pytest_manifest.verdict.reasons import UNEXPLAINED, Problem, verdict_of

MOST_DOUBTFUL: Final = 10_000
"""Entries that are judged by their names; more are not worth it, and cost memory."""


class Audit(EarlierRunStrategy):
    """Judge an earlier run from its ledger and from what arrived since; send nothing.

    Without a broker in its address the stack is not queried. Where the manifest differs from the
    run's own, all verdicts go into a copy of the ledger. ``before``: the run's own manifest, None
    where it kept none; ``wait``: for jobs that are under way.
    """

    sends = False

    def __init__(
        self,
        state: RunState,
        connections: RunConnections,
        *,
        wait: bool,
        before: Manifest | None,
        already_evaluated: bool,
    ) -> None:
        super().__init__(state, connections)
        self._wait = wait
        self._before = before
        self._already_evaluated = already_evaluated
        self._contradicted: set[str] | None = None

    @property
    def queries_stack(self) -> bool:
        return bool(self.state.address.broker_url)

    def prepare(self, expected_workers: int | None) -> None:  # noqa: ARG002 - the base class's
        ledger = self._take_up()
        if not self.queries_stack:
            self._judge(ledger, is_over=True)
            return
        statuses = ledger.verdicts.statuses()
        ledger.verdicts.reopen(
            (name for name in statuses if statuses[name] == "pending"), why="audit"
        )
        self._judge(ledger, is_over=False)
        state, pending = self.state, self.state.pending
        Tracking(pending, ledger, state.manifest, state.info).under_way()
        evaluate_kept_receipts(ledger, pending, state.manifest, self.facts_of(ledger))
        publisher = self.connections.open_publisher()
        self.connections.open_locator(publisher, pending.entries())
        self._poll_first(ledger)

    def _poll_first(self, ledger: Ledger) -> None:
        """Read what arrived since, so that no test sees a verdict that this replaces."""
        position = ledger.info.get_meta("stream_position") or "0"
        with contextlib.closing(self.connections.open_collector(position)) as collector:
            engine = self.make_engine(ledger, collector)
            engine.send_nothing()
            engine.poll_once()
        self._keep_inferred_verdicts(ledger)
        waited_for = [job.entry.id for job in self.state.pending.by_task_id.values()]
        with ledger.transaction():
            ledger.verdicts.reopen(waited_for, why="audit")
            if ledger.info.status == "finished" and ledger.attempts.has_open():
                ledger.info.set_status("detached")  # until they have a verdict again

    def finish_offline(self) -> None:
        with Ledger.open(self.state.files.ledger, write=True) as ledger:
            self._close(ledger)

    def work(self, engine: Engine, ledger: Ledger) -> None:
        engine.send_nothing()
        if self._wait:
            engine.work()
        else:
            self._locate(engine)
        with ledger.transaction():
            self.facts_of(ledger).write()
        self._judge(ledger, is_over=True)
        self._close(ledger)

    def _keep_inferred_verdicts(self, ledger: Ledger) -> None:
        """Keep the verdicts that were inferred for want of a receipt, where there is still none.

        Only jobs that were given up as overdue may still be waited for.
        """
        pending = self.state.pending
        waited_for = set()
        for entry in {job.entry.id for job in pending.attempts()}:
            settled = ledger.verdicts.of_entry(entry)
            overdue = settled is not None and settled.verdict.verdict == "timed_out"
            if settled is None or (overdue and self._wait):
                waited_for.add(entry)
        pending.drop_all_but(waited_for)

    def _locate(self, engine: Engine) -> None:
        """Locate the jobs without a verdict, by task id; judge missing ones lost."""
        locator = self.connections.locator
        if locator is None or not engine.pending:
            return
        try:
            departures = self.connections.departures
            search = JobSearch(
                locator, engine.pending, departures=departures, retried=engine.retried
            )
            located = search.search_now()
            as_of = self.facts_of(engine.ledger).last_seq()
            engine.missing.act_on(located, search)
        except StackError as error:
            logger.warning("the jobs could not be looked for: {}", error)
            return
        where: Mapping[Place, Collection[str]] = {
            "queue": located.queued,
            "worker": located.with_worker,
            "unacked": located.unacked_by_dead,
        }
        before = {one.job: one.place for one in engine.ledger.facts.of_kind(Seen)}
        for place, found in where.items():
            for job in filter(None, map(engine.pending.by_task_id.get, found)):
                if before.get(job.task_id) != place:  # an audit may look every hour
                    self.facts_of(engine.ledger).seen(job, place, as_of)

    def _close(self, ledger: Ledger) -> None:
        """End the run where nothing of it is awaited any more."""
        self.state.signals.on_verdicts([])
        is_open = ledger.attempts.has_open() or _has_given_up_some(ledger)
        if ledger.info.status in ("running", "detached") and not is_open:
            ledger.info.set_status("finished")

    # Judging

    def _judge(self, ledger: Ledger, *, is_over: bool) -> None:
        """Judge all entries, and record what is said of them now.

        What goes on gets a verdict where the audit ``is_over``, and loses its verdict else.
        """
        if self._already_evaluated:
            return
        state = self.state
        ledger.verdicts.refuse_contradictions()
        with ledger.transaction():
            if is_over and (self._ends_for_keys(ledger) or _is_unfinished(ledger)):
                for run in ledger.info.merged() or [state.info.run]:
                    ledger.facts.append([(None, RunOver(**stamp(), why="ended"))], run)
            judging = Judging(ledger, by_present_keys=self._asks_for_keys)
            names = self._doubtful(ledger)
            found = manifest_lines(ledger, state.manifest, self._before, names)
            with contextlib.closing(found) as lines:
                while some := {line.entry: line for line in islice(lines, BATCH)}:
                    self._judge_some(ledger, judging, some, is_over=is_over)

    @property
    def _checks_signatures(self) -> bool:
        """Return whether this audit asks for signatures: what has passed must have its own."""
        return self.state.settings.receipt_keys is not None

    @property
    def _asks_for_keys(self) -> bool:
        return self.has_other_keys or self._checks_signatures

    def _ends_for_keys(self, ledger: Ledger) -> bool:
        """Return whether an end that no key has signed is to be the end of its job, from now on."""
        overs = ledger.facts.of_kind(RunOver)
        return self._asks_for_keys and all(one.why != "ended" for one in overs)

    def _doubtful(self, ledger: Ledger) -> Sequence[str] | None:
        """Return the entries whose verdicts may be others now, in the manifest's order.

        Those without a final one, with a fact after it, or with one that the record contradicts;
        None: each may be, as the manifest or the keys are others, or as these are too many.
        """
        manifest = self.state.manifest
        if self._asks_for_keys or manifest.sha256 != ledger.info.read().sha256:
            return None
        if self._contradicted is None:
            with closing(broken_invariants(ledger, manifest)) as found:
                self._contradicted = {one.entry for one in islice(found, MOST_DOUBTFUL)}
                if next(found, None) is not None:  # too many to be told apart
                    self._contradicted.add("")
            if not self._contradicted:
                self.consistent_at = ledger.facts.last_seq()
        names = {*self._contradicted, *ledger.verdicts.unsettled(MOST_DOUBTFUL)}
        if "" in names or len(names) >= MOST_DOUBTFUL:
            return None
        return sorted(filter(manifest.__contains__, names), key=manifest.position_of)

    def _judge_some(
        self, ledger: Ledger, judging: Judging, some: Mapping[str, EntryLine], *, is_over: bool
    ) -> None:
        stored = ledger.verdicts.reasons(list(some))
        loaded = ledger.jobs.of_entries(list(some))
        found: list[Evaluated] = []
        taken_back: list[str] = []
        for name, line in some.items():
            known, attempts = stored.get(name), loaded[name]
            if not attempts or (known is not None and self._stands(known, line, attempts)):
                continue
            entry = self.state.manifest.parse(line.raw)
            judged = judging.judge(entry, attempts, Rules(other_work=self._other_work(entry, line)))
            is_as_before = known is not None and is_same(judged, known)
            if is_as_before and not self._checks_signatures:
                continue  # else the copy of the receipt beside it becomes what was signed, again
            goes_on = judged.judgement.status == "pending"
            had_verdict = known is not None and known.status != "pending"
            if had_verdict and not is_as_before and (goes_on or self._asks_for_keys):
                taken_back.append(name)
            if is_over or not goes_on:
                found.append(self._recorded(ledger, judged))
        if taken_back:
            ledger.verdicts.reopen(taken_back, why="keys" if self._asks_for_keys else "audit")
        ledger.verdicts.record(found)

    def _stands(
        self, known: StoredReason, line: EntryLine, attempts: Sequence[LoadedAttempt]
    ) -> bool:
        """Return whether a verdict is final, and nothing has changed by which it is judged.

        What has passed is judged all the same, where it is looked at: that it says so is no proof.
        """
        if known.status in ("pending", "passed") or self.has_other_keys or not line.same:
            return False
        jobs = [one for of in attempts for one in (of.own, *of.descendants)]
        return all(fact.seq <= known.seq for job in jobs for fact in job.facts)

    def _recorded(self, ledger: Ledger, judged: Judged) -> Evaluated:
        """Return a judgement as it is recorded; of what goes on, why nobody was asked for it."""
        verdict, receipt = recorded(judged)
        why = judged.judgement.finding.reason
        if self.queries_stack or verdict.verdict != "pending":
            return verdict, receipt
        assert isinstance(why, Problem)  # no receipt decides of what goes on
        if ledger.info.merged():
            why = problems.ShardUnfinished(why=why)
        elif self.state.info.is_private:
            # Where it waited or ran is of no use: that stack is gone.
            awaited = why if isinstance(why, problems.AwaitsTree) else UNEXPLAINED
            why = problems.StackEnded(why=awaited)
        elif why == UNEXPLAINED:
            why = problems.NotAsked()
        said = why.of(judged.entry, "pending")
        return verdict_of(judged.entry.id, verdict.attempt, "pending", said), receipt

    def _other_work(self, entry: Entry, line: EntryLine) -> str:
        """Return what of the entry's work is another than the run's own manifest says."""
        if line.same or line.old is None:
            return ""
        change, words = change_of(entry, self.state.manifest.parse(line.old))
        return words if change == "job" else ""


def _has_given_up_some(ledger: Ledger) -> bool:
    """Return whether a job may go on, or begin yet, that the run waits for no more: no worker has
    reported that its time was over."""
    late = GIVEN_UP - ENDS
    names = [name for name, status in ledger.verdicts.statuses().items() if status in late]
    verdicts = filter(None, map(ledger.verdicts.of_entry, names))
    return any(one.receipt is None or one.receipt.state not in late for one in verdicts)


def _is_unfinished(ledger: Ledger) -> bool:
    """Return whether some entry has no verdict, or one that says that it goes on."""
    counts = ledger.verdicts.counts()
    return "pending" in counts or sum(counts.values()) < ledger.attempts.count_entries()


def audit_run(
    manifest: Manifest,
    ledger_path: Path,
    address: StackAddress,
    settings: RunSettings,
    *,
    wait: bool,
    scratch: Path | None = None,
    already_evaluated: bool = False,
) -> Run:
    """Return the run with this ledger, judged by this manifest unless it was
    ``already_evaluated``.

    With ``scratch``, a folder, a copy of the ledger in it gets the verdicts.
    """
    with Ledger.open(ledger_path) as ledger:
        info = ledger.info.read()
        same = info.sha256 == manifest.sha256
        before = manifest if same else kept_manifest(ledger_path, info.sha256)
        if scratch is not None:
            target = scratch / ledger_path.name
            ledger.copy_to(target)
    path = ledger_path if scratch is None else target
    state = RunState(manifest, RunFiles(path), info, address, settings)
    connections = RunConnections(state, keeps_stream=scratch is not None)
    return Run(
        Audit(state, connections, wait=wait, before=before, already_evaluated=already_evaluated)
    )


class RecordSize(NamedTuple):
    """The entries that a run has, and those of them that have a verdict."""

    entries: int
    verdicts: int


def record_size(ledger: Ledger) -> RecordSize:
    """Count a run's entries and verdicts."""
    return RecordSize(ledger.attempts.count_entries(), sum(ledger.verdicts.counts().values()))


def violations(ledger: Ledger, manifest: Manifest) -> Generator[Violation, None, None]:
    """Yield what in a run's record breaks a promise, in constant memory.

    Of many entries each of several processes judges a part. Raises LedgerError where the ledger,
    ManifestError where the manifest cannot be read.
    """
    parts = min(os.cpu_count() or 1, len(manifest) // ENTRIES_OF_A_PROCESS)
    if parts < 2:
        yield from broken_invariants(ledger, manifest)
        yield from judged_otherwise(ledger, manifest)
        return
    bounds = [len(manifest) * number // parts for number in range(parts + 1)]
    with ProcessPoolExecutor(parts, get_context("spawn")) as processes:
        found = [
            processes.submit(_part_judged_otherwise, ledger.path, manifest, *part)
            for part in pairwise(bounds)
        ]
        yield from broken_invariants(ledger, manifest)
        for part in found:
            yield from part.result()


ENTRIES_OF_A_PROCESS: Final = 10_000
"""Fewer are judged before another process has started."""


def _part_judged_otherwise(
    path: Path, manifest: Manifest, first: int, end: int
) -> Sequence[Violation]:
    with Ledger.open(path) as ledger:
        return list(judged_otherwise(ledger, manifest, first, end))


def judged_otherwise(
    ledger: Ledger, manifest: Manifest, first: int = 0, end: int | None = None
) -> Iterator[Violation]:
    """Judge each entry again, and yield those whose status, code or fields are others.

    Of a part those from the ``first`` on, before the ``end``. By all facts, or by those that were
    known when the verdict was recorded: what was reported since is judged when the run is taken up
    again.
    """
    judging = Judging(ledger, by_present_keys=_has_other_keys(ledger))
    with closing(manifest.lines()) as lines:
        part = islice(lines, first, end)
        while some := list(islice(part, BATCH)):
            entries = [manifest.parse(line.raw) for line in some]
            stored = ledger.verdicts.reasons([entry.id for entry in entries])
            judged = judging.each(entry for entry in entries if entry.id in stored)
            yield from filter(
                None, (_difference(judging, one, stored[one.entry.id]) for one in judged)
            )


def _has_other_keys(ledger: Ledger) -> bool:
    """Return whether what is believed was asked anew, as keys were named later."""
    return any(one.why == "keys" for one in ledger.facts.of_kind(TakenUp))


def _difference(judging: Judging, one: Judged, stored: StoredReason) -> Violation | None:
    if not one.attempts or is_same(one, stored) or is_same(judging.as_of(one, stored.seq), stored):
        return None
    found, code = one.judgement.finding, stored.reason.get("code", "")
    promise: Promise = "S4" if stored.status == "passed" else "S5"
    before, now = f"{stored.status} ({code})", f"{found.status} ({found.reason.code})"
    return Violation(
        promise, one.entry.id, f"is recorded as {before}, and by its facts it is {now}"
    )
