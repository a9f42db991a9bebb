"""Resume an earlier run: reconcile with the broker, decide entry by entry, send the rest.

A ledger that is older than what was sent by it, a copy or one without its last records, is refused:
by it nothing can be sent, and nobody knows what the newest one says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_manifest.broker.locating.base import JobLocations, Location
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import AttemptRow, Ledger, utc_now
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.invariants import RUN_THOUGH_UNSENT
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run import resume_rules, strategy
from pytest_manifest.run.casebook import Evaluated
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.dispatch import admit
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import end_segment, note_emptied, stamp, was_emptied
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.kept_commands import answer_kept, asked_of
from pytest_manifest.run.kept_limits import with_limits_set
from pytest_manifest.run.reuse import refuse_unlooked
from pytest_manifest.run.run import Run
from pytest_manifest.run.search import JobSearch, locations_of
from pytest_manifest.run.send_queue import NOTHING, refuse_beyond
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_facts import StoreFact
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES, OPEN, RESENDABLE
from pytest_manifest.text import listed
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.judging import Costs, Judged, Judging, recorded
from pytest_manifest.verdict.problems import AwaitsTree
from pytest_manifest.verdict.reasons import Problem, verdict_of
from pytest_manifest.verdict.tree import is_ignored

LATER: Final = 1 << 62
"""A place in the order after all that a ledger has."""


@dataclass(frozen=True)
class Known:
    """Hold what is known when the decisions are taken, beside the facts of the ledger.

    ``last``: the newest attempts, by entry; ``statuses``: the verdicts, also those that were only
    inferred; ``locations``: where attempts without a receipt were found, by task id; ``held``: task
    ids of jobs that have ended while tasks that they started have not; ``turned_away``: task ids
    that a worker turned away, which may have another message; ``cancelled``: entries that an
    operator does not want any more; ``requeued``: those that one wants sent again, with whether
    also where they might run twice.
    """

    last: Mapping[str, AttemptRow]
    statuses: Mapping[str, VerdictStatus]
    locations: Mapping[str, Location] = field(default_factory=dict)
    held: Set[str] = frozenset()
    turned_away: Container[str] = frozenset()
    cancelled: Container[str] = frozenset()
    requeued: Mapping[str, bool] = field(default_factory=dict)


def decisions(
    known: Known, judged: Iterable[Judged], *, unsafe: bool
) -> Iterator[tuple[Judged, resume_rules.Decision]]:
    """Decide on each entry that was judged, in the given order."""
    for one in judged:
        name, row = one.entry.id, known.last.get(one.entry.id)
        status = _status(known.statuses.get(name), one)
        job = "" if row is None else row.task_id
        state = resume_rules.EntryState(
            *(row, status, known.locations.get(job), _may_have_run(status, row, one)),
            turned_away=job in known.turned_away,
            tree_goes_on=job in known.held and status is not None,
            is_cancelled=name in known.cancelled,
            is_requeued=name in known.requeued,
        )
        given = unsafe or known.requeued.get(name, False)
        decided = resume_rules.decide(one.entry, state, unsafe=given)
        after = tuple(n for n in one.entry.after if known.statuses.get(n) != "passed")
        yield one, replace(decided, after=after) if after else decided


def _status(stored: VerdictStatus | None, one: Judged) -> VerdictStatus | None:
    """Return an entry's status; None where no more is known than where its job is, or is not."""
    judgement = one.judgement
    if is_unproven(stored, one):
        return "unknown"
    if not judgement.is_final or (stored is None and judgement.status in RESENDABLE):
        return stored
    return judgement.status


def _may_have_run(status: VerdictStatus | None, row: AttemptRow | None, one: Judged) -> bool:
    """Return whether an entry's last attempt may have run; what is forged nobody has looked for."""
    is_forged = status == "forged" and row is not None and row.state != "reused"
    return is_forged or one.judgement.may_have_run


def is_unproven(stored: VerdictStatus | None, one: Judged) -> bool:
    """Return whether an entry is recorded as passed, and nothing that is known shows it."""
    judgement = one.judgement
    if stored != "passed" or judgement.is_final:
        return False
    return not isinstance(judgement.finding.reason, AwaitsTree)


def preview(
    ledger_path: Path,
    manifest: Manifest,
    selected: Iterable[str],
    *,
    unsafe: bool = False,
    stack_is_gone: bool,
) -> list[resume_rules.Decision]:
    """Decide by the ledger alone: query no stack, and write nothing.

    An attempt that was sent and has no receipt counts as still under way, as does one of whose
    descendants some have none, unless its ``stack_is_gone``: only a search of the stack could tell.
    """
    names = list(selected)
    with Ledger.open(ledger_path) as ledger:
        ledger.verdicts.refuse_contradictions()
        sent = {
            row.task_id
            for row in ledger.attempts.all(undecided=True)
            if row.state not in strategy.NOT_OURS
        }
        held = {
            row.task_id
            for row, settled in strategy.newest(ledger, manifest, frozenset(names))
            if not is_ignored(manifest[row.entry]) and strategy.has_open_tree(ledger, row, settled)
        }
        under_way = set[str]() if stack_is_gone else sent | held
        locations: dict[str, Location] = dict.fromkeys(under_way, "unknown")
        # Pending and unknown ones are looked at anew.
        stored = ledger.verdicts.statuses().items()
        cancelled, requeued = asked_of(ledger)
        known = Known(
            last={row.entry: row for row in ledger.attempts.newest()},
            statuses={entry: status for entry, status in stored if status not in OPEN},
            locations=locations,
            held=held,
            cancelled=cancelled,
            requeued=requeued,
        )
        # What a session that goes on, or was killed, has not read yet, may be a start.
        unread = [StoreFact(seq=LATER, at=utc_now(), what="emptied")]
        judging = Judging(ledger, also=unread if ledger.info.status == "running" else ())
        found = decisions(known, judging.each(manifest.some(names)), unsafe=unsafe)
        return [decision for _, decision in found]


_SHOWN = 3


def refuse_read_on(ledger: Ledger, collector: ReceiptCollector) -> None:
    """Raise DispatchError where another reader has read on in the run's stream.

    Call it before the stream is read. Raises StackError where the store cannot be reached.
    """
    # One that was emptied and marked anew has lost records, too.
    if not was_emptied(ledger.jobs.run_facts()) and collector.was_read_on():
        raise _refusal(ledger, "what workers reported since has been read by another")


def refuse_traces(
    ledger: Ledger, pending: PendingAttempts, unsent: Collection[str], seen: Collection[str]
) -> None:
    """Raise DispatchError where an attempt that the ledger calls unsent has left a trace.

    ``unsent``: those that were searched for, and that ``pending`` awaited; ``seen``: task ids that
    the search has seen in some place.
    """
    sent = ledger.invariants.sendings(RUN_THOUGH_UNSENT) if unsent else ()
    found = {one.entry for one in sent}
    for task_id in unsent:
        row = ledger.attempts.get(task_id)
        if row is not None and (task_id in seen or _was_reported(pending, task_id)):
            found.add(row.entry)
    if found:
        names = listed(sorted(map(repr, found)), _SHOWN)
        raise _refusal(ledger, f"{names} are out, or have run, and it calls them unsent")


def _was_reported(pending: PendingAttempts, task_id: str) -> bool:
    """Return whether something was reported of an attempt that was awaited."""
    job = pending.by_task_id.get(task_id)
    return job is None or job.started is not None or job.unconfirmed is not None


def _refusal(ledger: Ledger, why: str) -> DispatchError:
    return DispatchError(
        f"{ledger.path}: is older than what was sent by it: {why}; nothing was sent: go on with "
        "the newest ledger of the run and its -wal file, or begin a new run with --manifest-rerun"
    )


class Resume(strategy.EarlierRunStrategy):
    """Resume an earlier run for the selected entries; see the module."""

    def __init__(self, state: RunState, selected: Sequence[str]) -> None:
        super().__init__(state)
        self._selected = selected
        self._taken_up = False
        # Also where it is refused: the stack has taken over what an earlier one has left.
        state.leaves_jobs = state.address.is_private
        self._search: tuple[JobSearch, JobLocations, int] | None = None
        """A search, what it has found, and the last number of the ledger's order then."""
        self._seen: frozenset[str] = frozenset()
        """Task ids that the search has seen in some place."""
        self._unsent: frozenset[str] = frozenset()
        """Task ids of what was never sent by the ledger, which are searched for, too."""
        self._restarts_stream = False
        """Whether the result store lacks its mark, so that its stream is to be marked as begun."""

    def take_effect(self) -> None:
        super().take_effect()
        self._taken_up = True
        with contextlib.closing(self.connections.open_collector("0")) as collector:
            if self._restarts_stream:
                # Marked for a run that is refused after all, an emptied store would look intact.
                collector.begin(self.state.info.stream_ttl)
            else:
                collector.announce()

    def abandon(self) -> None:
        super().abandon()
        if self._taken_up:  # another run of the session could not be written down
            self._taken_up = False
            with Ledger.open(self.state.files.ledger, write=True) as ledger:
                end_segment(ledger, "stopped" if self.state.info.is_private else "detached")

    # Before the first message

    def prepare(self, expected_workers: int | None) -> None:
        ledger = self._take_up()
        pending, connections = self.state.pending, self.connections
        publisher = connections.open_publisher()
        ledger.facts.append([(None, self.segment())])
        self._take_limits(ledger)
        position = ledger.info.get_meta("stream_position") or "0"
        with contextlib.closing(connections.open_collector(position)) as collector:
            self._track(ledger)
            connections.open_locator(publisher, pending.entries())
            self._reconcile(ledger, collector)
        if self.state.to_send:
            admit(self, publisher, expected_workers)
            connections.open_locator(publisher, pending.entries())
        connections.serve_queues()

    def _take_limits(self, ledger: Ledger) -> None:
        """Begin with the limits that operators have set last, and say so."""
        state = self.state
        facts = ledger.facts.of_run(state.info.run)
        state.settings, held = with_limits_set(state.settings, facts)
        if held:
            said = ", ".join(f"{name} = {value}" for name, value in held.items())
            state.notices.append(f"limits as they were set last by manifest ctl: {said}")

    def _track(self, ledger: Ledger) -> None:
        ledger.verdicts.reopen_not_final(self._selected)
        tracking = self._tracking(ledger)
        tracking.under_way(trees=True)
        self._unsent = tracking.unsent()

    def _tracking(self, ledger: Ledger) -> strategy.Tracking:
        state, chosen = self.state, frozenset(self._selected)  # of the rest all stays as it is
        return strategy.Tracking(state.pending, ledger, state.manifest, state.info, chosen)

    def _reconcile(self, ledger: Ledger, collector: ReceiptCollector) -> None:
        """Read what arrived since, search for what is under way, and decide what is to be sent."""
        state = self.state
        if state.pending:
            refuse_read_on(ledger, collector)
        self._note_ended_store(ledger, collector)
        engine = self.make_engine(ledger, collector)
        engine.send_nothing()
        strategy.evaluate_kept_receipts(
            *(ledger, state.pending, state.manifest, self.facts_of(ledger)), without=self._unsent
        )
        engine.poll_once()
        self.connections.record_unknown_workers(ledger)  # before anything is moved
        turned_away = self._tracking(ledger).turned_away()
        searched = frozenset(state.pending.by_task_id)
        locations = self._locate(engine)
        engine.poll_once()
        searched -= self._without_unsent(ledger, locations)
        for task_id in turned_away:
            state.pending.complete(task_id)  # it has its verdict: only its place was asked for
        intact = collector.is_intact()
        if intact is False:
            engine.poll_once()  # what an emptied store has had reported since
        # A session that was killed before its first message may not have marked the store at all.
        emptied = intact is False and not ledger.attempts.send_states().keys() <= strategy.NOT_OURS
        if emptied:
            note_emptied(ledger)  # a new stream would not show it any more
        if self._search is not None:  # after all that makes it doubtful
            engine.missing.note_search(*self._search, self._search[1].missing)
        turned_away |= self._turned_away_since(ledger, searched)
        # What has come to its end since the search is not where it was seen; unless a worker turned
        # it away: then it may be another message that was seen.
        ended = searched - state.pending.task_ids()
        for task_id in ended - (turned_away & self._seen):
            locations.pop(task_id, None)
        known = Known(
            {row.entry: row for row in ledger.attempts.newest()},
            ledger.verdicts.statuses(),
            locations,
            frozenset(state.pending.held),
            turned_away,
            *asked_of(ledger),
        )
        self._decide(ledger, known)
        self.to_repeat |= {one.entry for one in state.decisions if one.sends_later}
        self._check_budget(ledger)
        self._plan(ledger)
        if intact is False and state.to_send:
            self._restart_stream(ledger)

    def _restart_stream(self, ledger: Ledger) -> None:
        # A stream that begins anew may count from 1 again.
        ledger.info.set_meta("stream_position", "0")
        self._restarts_stream = True
        ledger.facts.append([(None, StoreFact(**stamp(), what="marked"))])

    def _note_ended_store(self, ledger: Ledger, collector: ReceiptCollector) -> None:
        """Record that a private stack's store has ended with its session: nobody has emptied it."""
        info = ledger.info
        if not self.state.address.is_private or info.status == "running":
            return
        nothing_sent = ledger.attempts.send_states().keys() <= strategy.NOT_OURS
        if nothing_sent or was_emptied(ledger.jobs.run_facts()):
            return
        if collector.is_intact() is False:
            note_emptied(ledger)

    def _without_unsent(self, ledger: Ledger, locations: dict[str, Location]) -> frozenset[str]:
        """Await no longer what was never sent, and return it.

        Raises DispatchError where some of it is out, as the ledger is an older one.
        """
        pending, unsent = self.state.pending, self._unsent
        refuse_traces(ledger, pending, unsent, self._seen)
        refuse_unlooked(ledger)
        for task_id in unsent:
            pending.complete(task_id)
            locations.pop(task_id, None)
        return unsent

    def _turned_away_since(self, ledger: Ledger, searched: Iterable[str]) -> set[str]:
        """Return the task ids that were searched for, and that a worker has turned away since."""
        found = set()
        for task_id in set(searched) - self.state.pending.task_ids():
            receipts = [receipt for _, receipt in ledger.events.receipts(task_id)]
            if receipts and all(one.state in NEVER_STARTED_STATES for one in receipts):
                found.add(task_id)
        return found

    def _check_budget(self, ledger: Ledger) -> None:
        """Refuse what would cost more than allowed, with what was spent and is under way."""
        state = self.state
        if state.settings.budget is None:
            return
        actions = {decision.entry: decision.action for decision in state.decisions}
        waiting = {
            task_id
            for task_id, job in state.pending.by_task_id.items()
            if actions.get(job.entry.id) == "wait"
        }
        state.costs = dict(Costs(ledger, state.manifest).by_attempt(without=waiting))
        if "send" not in actions.values():
            return
        to_come = [name for name, action in actions.items() if action in ("send", "wait")]
        refuse_beyond(
            state.settings.budget,
            map(state.manifest.__getitem__, to_come),
            state.manifest.path.name,
            sum(state.costs.values(), NOTHING),
        )

    def _plan(self, ledger: Ledger) -> None:
        """Record what is to be sent, and what is waited for."""
        state = self.state
        last = {row.entry: row for row in ledger.attempts.newest()}
        waiting = {d.entry for d in state.decisions if d.action == "wait"}
        back = [row for name, row in last.items() if name in waiting and row.state == "withdrawn"]
        with ledger.transaction():
            ledger.verdicts.reopen(waiting)
            # It was not withdrawn after all, and any worker may run it from here on.
            ledger.attempts.mark((row.task_id for row in back), "sent")
        state.pending.drop_all_but(waiting)
        state.to_send = resume_rules.plan_decisions(
            ledger, state.manifest, state.decisions, state.info.run, last
        )
        answer_kept(ledger, self.facts_of(ledger), state.decisions)
        if state.to_send or self.to_repeat:
            self.record_gates(ledger)

    def _locate(self, engine: Engine) -> dict[str, Location]:
        """Locate what has no receipt, by task id.

        Raises DispatchError where that is impossible, or the ledger is an older one.
        """
        state = self.state
        locator = self.connections.locator
        if locator is None or not state.pending:
            return locations_with_trees({}, state.pending)
        try:
            engine.poll_once()  # what had been reported by then, a search can confirm
            search = JobSearch(
                locator,
                state.pending,
                departures=self.connections.departures,
                retried=engine.retried,
            )
            located = search.search_now()
            self._seen = search.seen
            as_of = self.facts_of(engine.ledger).last_seq()
            self._search = search, located, as_of
            engine.missing.confirm(located, as_of, search)
            if state.pending.task_ids() <= self._unsent:
                engine.poll_once()  # a store that lacks its mark has had nothing to lose
            else:
                engine.missing.read_reports()
            refuse_traces(engine.ledger, state.pending, self._unsent, self._seen)
            taken_out = set(engine.missing.requeue(located))
        except StackError as error:
            raise DispatchError(
                f"run {state.info.run} is not resumed and nothing was sent, as the broker does not "
                f"say which of its jobs still wait ({error}); try again when it answers"
            ) from error
        requeues = state.address.is_private or state.settings.repair
        not_requeued = engine.missing.not_requeued
        found = locations_of(
            located, state.pending, taken_out, requeues=requeues, not_requeued=not_requeued
        )
        found |= dict.fromkeys(engine.missing.unconfirmed(located), "unknown")
        return locations_with_trees(found, state.pending)

    def _decide(self, ledger: Ledger, known: Known) -> None:
        """Judge each entry, decide on it, and record what is judged otherwise than before.

        And of what is not sent again and had no verdict.
        """
        ledger.verdicts.refuse_contradictions()
        selected = self.state.manifest.some(self._selected)
        decided: list[resume_rules.Decision] = []
        with ledger.transaction():
            self.facts_of(ledger).write()
            judging = Judging(ledger, by_present_keys=self.has_other_keys)
            found = decisions(known, judging.each(selected), unsafe=self.state.settings.unsafe)
            while some := list(islice(found, BATCH)):
                decided += [decision for _, decision in some]
                for judged, decision in some:
                    verdict = _verdict(judged, decision, known)
                    ledger.verdicts.record([] if verdict is None else [verdict])
        self.state.decisions = decided


def _verdict(judged: Judged, decision: resume_rules.Decision, known: Known) -> Evaluated | None:
    """Return the verdict that is to be recorded of an entry; None where it has it."""
    name, judgement = decision.entry, judged.judgement
    stored = known.statuses.get(name)
    if is_unproven(stored, judged):
        unproven = problems.NoReceipt().of(judged.entry, "unknown")
        return verdict_of(name, judgement.attempt, "unknown", unproven), None
    if stored is not None:
        is_news = judgement.is_final and judgement.status != stored
        return recorded(judged) if is_news else None
    if decision.action not in ("keep", "leave") or name not in known.last:
        return None
    if name in known.cancelled and known.last[name].state in resume_rules.NOT_SENT:
        return None  # it has its verdict when the session takes the command
    verdict, receipt = recorded(judged)
    why = judgement.finding.reason
    if decision.action == "keep" or receipt is not None or not isinstance(why, Problem):
        return verdict, receipt
    status = judgement.status if judgement.is_final else "unknown"
    left = problems.Left(because=decision.reason, why=why)
    reason = left.of(judged.entry, status)
    return verdict_of(name, verdict.attempt, status, reason), None


def resume_run(
    manifest: Manifest,
    ledger_path: Path,
    selected: Sequence[str],
    address: StackAddress,
    settings: RunSettings,
) -> Run:
    """Return the run with this ledger, to be resumed for the selected entries."""
    with Ledger.open(ledger_path) as ledger:
        info = ledger.info.read()
    state = RunState(manifest, RunFiles(ledger_path), info, address, settings)
    return Run(Resume(state, selected))


def locations_with_trees(
    locations: Mapping[str, Location], pending: PendingAttempts
) -> dict[str, Location]:
    """Return where attempts are, by task id: with a worker, too, while a descendant may go on."""
    alive: dict[str, bool] = dict.fromkeys(pending.held, True)
    jobs = [(i, job.root) for i, job in pending.by_task_id.items() if job.child is not None]
    alive.update(dict.fromkeys((root for _, root in jobs), False))
    for task_id, root in jobs:
        alive[root] = alive[root] or locations.get(task_id, "unknown") != "missing"
    found: dict[str, Location] = {root: "with_worker" for root, goes_on in alive.items() if goes_on}
    return {**locations, **found}
