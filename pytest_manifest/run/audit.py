"""Judge an earlier run again: from its ledger, and from what arrived since."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

from loguru import logger

from pytest_manifest.broker.locating import JobLocations
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.changes import kept_manifest
from pytest_manifest.run.connections import RunConnections
from pytest_manifest.run.earlier import (
    EarlierRunStrategy,
    evaluate_kept_receipts,
    track_inferred,
    track_unsettled,
)
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.evaluation import Evaluated
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.run.recovery import JobSearch
from pytest_manifest.run.reevaluation import manifest_lines, reevaluate
from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.run.state import RunState
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Kind, Place, Seen
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict import evaluate, problems
from pytest_manifest.verdict.reasons import UNEXPLAINED, Problem


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

    @property
    def queries_stack(self) -> bool:
        return bool(self.state.address.broker_url)

    def prepare(self, expected_workers: int | None) -> None:  # noqa: ARG002 - the base class's
        ledger = self._take_up()
        if self.queries_stack:
            ledger.verdicts.reopen(why="audit")
        evaluator = self.make_evaluator(ledger)
        state, pending = self.state, self.state.pending
        if not self._already_evaluated:
            with ledger.transaction():
                again = reevaluate(
                    ledger,
                    state.manifest,
                    self._before,
                    evaluator,
                    by_other_keys=self.has_other_keys,
                )
                _record_verdicts(ledger, again)
        track_unsettled(pending, ledger, state.manifest, state.info)
        for job in list(pending.by_task_id.values()):
            settled = ledger.verdicts.of_entry(job.entry.id)
            if settled is not None and settled.verdict.verdict != "pending":
                pending.complete(job.task_id)  # it is other work now, or unknown
        evaluate_kept_receipts(ledger, pending, evaluator)
        if not self.queries_stack:
            pending.clear()
        else:
            track_inferred(pending, ledger, state.manifest, state.info)
            evaluate_kept_receipts(ledger, pending, evaluator)  # of those with descendants
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
            self._close(ledger, {})

    def work(self, engine: Engine, ledger: Ledger) -> None:
        engine.send_nothing()
        if self._wait:
            engine.work()
            found: dict[str, Problem] = {}
        else:
            found = self._locate(engine) | awaited_trees(self.state.pending)
        self._close(ledger, found)

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

    def _locate(self, engine: Engine) -> dict[str, Problem]:
        """Locate the jobs without a verdict, by task id; judge missing ones lost."""
        locator = self.connections.locator
        if locator is None or not engine.pending:
            return {}
        try:
            search = JobSearch(locator, engine.pending)
            located = search.search_now()
            as_of = self.facts_of(engine.ledger).last_seq()
            engine.missing.act_on(located, search)
        except StackError as error:
            logger.warning("the jobs could not be looked for: {}", error)
            return {}
        where: Mapping[Place, Collection[str]] = {
            "queue": located.queued,
            "worker": located.with_worker,
            "unacked": located.unacked_by_dead,
        }
        seen = (one.fact for one in engine.ledger.facts.of_kind(Kind.SEEN))
        before = {one.job: one.place for one in seen if isinstance(one, Seen)}
        for place, found in where.items():
            for job in filter(None, map(engine.pending.by_task_id.get, found)):
                if before.get(job.task_id) != place:  # an audit may look every hour
                    self.facts_of(engine.ledger).seen(job, place, as_of)
        return places(located)

    def _close(self, ledger: Ledger, found: dict[str, Problem]) -> None:
        """Record what is unfinished as pending, expired or never sent: nothing final."""
        age = (utc_now() - self.state.info.created_at).total_seconds()
        if not ledger.queries.all_final():
            with ledger.transaction():
                self.facts_of(ledger).write()
                _record_verdicts(
                    ledger,
                    self._unfinished(ledger, found, expired=age > self.state.info.stream_ttl),
                )
        self.state.signals.on_verdicts([])
        if ledger.info.status in ("running", "detached") and not ledger.attempts.has_open():
            ledger.info.set_status("finished")

    def _unfinished(
        self, ledger: Ledger, found: Mapping[str, Problem], *, expired: bool
    ) -> Iterator[Evaluated]:
        manifest = self.state.manifest
        with contextlib.closing(manifest_lines(ledger, manifest, manifest)) as lines:
            while some := {line.entry: line for line in islice(lines, BATCH)}:
                for name in list(ledger.queries.ids_of_not_final(some)):
                    rows = ledger.attempts.of_entry(name)
                    if not rows or _is_unknown(ledger, name):
                        continue
                    why = _unfinished(rows[-1].state, expired=expired)
                    status: VerdictStatus = "pending" if why is None else "unknown"
                    known = rows[-1].verdict if rows[-1].status == "unknown" else None
                    if known is not None and (why or rows[-1].task_id not in found):
                        yield known, None  # nothing more is known than before
                        continue
                    if why is None:
                        otherwise = UNEXPLAINED if self.queries_stack else problems.NotAsked()
                        why = found.get(rows[-1].task_id, otherwise)
                    entry = manifest.parse(some[name].raw, some[name].number)
                    number = rows[-1].attempt
                    yield evaluate(entry, None, attempt=number, problem=status, why=why), None


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


def _record_verdicts(ledger: Ledger, already_evaluated: Iterator[Evaluated]) -> None:
    """Record verdicts in batches, so that memory stays flat; call within a transaction."""
    while some := list(islice(already_evaluated, BATCH)):
        ledger.verdicts.record(some)


def places(located: JobLocations) -> dict[str, Problem]:
    """Return where two snapshots located jobs, by task id."""
    found: dict[str, Problem] = dict.fromkeys(located.queued, problems.InQueue())
    found.update(dict.fromkeys(located.with_worker, problems.WithWorker()))
    found.update(dict.fromkeys(located.unacked_by_dead, problems.WithDeadWorker()))
    return found


def _is_unknown(ledger: Ledger, entry: str) -> bool:
    """Return whether the entry was judged unknown, with a reason that only a new search could
    change."""
    settled = ledger.verdicts.of_entry(entry)
    return settled is not None and settled.verdict.verdict == "unknown"


def _unfinished(state: str, *, expired: bool) -> Problem | None:
    """Return why no more is to be expected of a job; None where it may still end."""
    if state == "planned":
        return problems.NeverSent()
    return problems.PastLifetime(where="the result store") if expired else None


def awaited_trees(pending: PendingAttempts) -> dict[str, Problem]:
    """Return the attempts that have ended while descendants of them have not."""
    descendants = (job.origin for job in pending.by_task_id.values() if job.origin is not None)
    open_ends = Counter(origin.root for origin in descendants)
    return {root: problems.AwaitsTree(tasks=open_ends[root]) for root in pending.held}
