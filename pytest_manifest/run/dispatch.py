"""Dispatch a manifest anew: one first attempt of each selected entry that its workers know."""

from __future__ import annotations

import contextlib
import json
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from pytest_manifest.broker import checks
from pytest_manifest.broker.attempt import Attempt, new_run_id
from pytest_manifest.broker.checks import CELERYS, Demand, demand_of, table_rows, task_refusals
from pytest_manifest.broker.preflight import Preflight, preflight
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.stores import other_store
from pytest_manifest.errors import DispatchError
from pytest_manifest.files import private_folder
from pytest_manifest.ledger import RECEIPT_KEYS, TO_REUSE, Ledger, RunInfo, utc_now
from pytest_manifest.ledger.files import RunFiles, next_run_number
from pytest_manifest.ledger.run_info import ACCEPTED, SHARD, TRACE
from pytest_manifest.manifest import Manifest, Shard
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.results.stream import has_stream
from pytest_manifest.run import send_queue
from pytest_manifest.run.casebook import require_signatures, signing_refusals
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.connections import RunState, add_nodes, record_known_workers
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import OwnLimits, record_code, record_own_limits, stamp, withheld
from pytest_manifest.run.locks import remove_unmade_runs
from pytest_manifest.run.reuse import take_over_passes
from pytest_manifest.run.run import Run
from pytest_manifest.run.search import facts_of
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.run.strategy import Strategy
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import PlaceFact
from pytest_manifest.schema.wire import code_digest
from pytest_manifest.text import listed
from pytest_manifest.urls import StackAddress, is_in_process, scheme_of
from pytest_manifest.verdict.problems import UnknownTask
from pytest_manifest.verdict.reasons import in_brackets, verdict_without_receipt

SHOWN = 3
"""Names that a message lists."""


def admit(strategy: Strategy, publisher: Publisher, expected_workers: int | None) -> None:
    """Check that the stack can run what the strategy is to send, and record what it is like.

    Raises DispatchError where nothing should be sent.
    """
    state = strategy.state
    entries = (attempt.entry for attempt in state.to_send)
    demand = demand_of(entries, own_limit=publisher.own_limit)
    if refused := task_refusals(demand.tasks, state.settings.allow):
        raise DispatchError("nothing was sent: " + " ".join(refused))
    accepted = state.settings.accept
    found = preflight(publisher, demand, expected_workers=expected_workers, accepted=accepted)
    _take_over(strategy, found)
    refusals = [*found.said("error"), *_descendants_refusal(strategy, found, demand)]
    refusals += _signing_refusals(strategy, found)
    refusals += _depth_refusals(state.settings.queue_depth, publisher)
    unmeasured = [] if state.address.is_private else checks.unmeasured_times(demand, found.stock)
    if state.settings.strict:
        refusals += unmeasured
    else:
        state.notices += unmeasured
    rows = [text for level, text in table_rows(found.holding) if level == "error"]
    if refusals or rows:
        sentences = " ".join(["nothing was sent:", *refusals])
        raise DispatchError("\n".join([sentences, *rows]))
    if found.unknown_tasks:
        _handle_unknown_tasks(strategy, found.unknown_tasks)
    _record_stack(strategy, publisher, found, demand)
    if state.settings.reuse is not None:
        strategy.reuse(_codes(publisher, found))
    if state.settings.budget is not None:
        unforeseen = send_queue.without_estimate(attempt.entry for attempt in state.to_send)
        state.notices += [unforeseen] if unforeseen else []


def _codes(publisher: Publisher, found: Preflight) -> Mapping[str, str]:
    """Return what code of each task would run; a stack in memory has that of this process."""
    if not publisher.transport.in_process:
        return found.codes
    own = {name: task for name, task in publisher.tasks.items() if not name.startswith(CELERYS)}
    digests = ((name, code_digest(task)) for name, task in own.items())
    return {name: digest for name, digest in digests if digest is not None}


def _signing_refusals(strategy: Strategy, found: Preflight) -> list[str]:
    """Refuse to send to workers whose receipts would not count, also of a run begun earlier."""
    state = strategy.state
    with strategy.writing() as ledger:
        keys = ledger.info.get_meta(RECEIPT_KEYS)
    if keys and state.address.is_private and state.settings.receipt_keys is None:
        why = (
            "this run was begun with manifest_require_signed_receipts, and the workers of this "
            "session's own stack have no key without it, so nothing that they report would count: "
            "give it again."
        )
        return [why]
    if is_in_process(state.address.broker_url):  # whose worker is this process's own
        return []
    return signing_refusals(found.signers, keys)


def _depth_refusals(depth: int | None, publisher: Publisher) -> list[str]:
    """Refuse to hold to a queue's length where the broker does not say it."""
    if depth is None or publisher.transport.counts_messages:
        return []
    scheme = scheme_of(publisher.address.broker_url)
    why = (
        f"--manifest-queue-depth {depth}: a broker at {scheme}:// does not say how many messages "
        "wait in its queues; leave it out, and use --manifest-window or --manifest-rate."
    )
    return [why]


def _descendants_refusal(strategy: Strategy, found: Preflight, demand: Demand) -> list[str]:
    """Refuse entries that say what must become of the tasks they start, where nobody can tell."""
    judging = [name for task in demand.tasks.values() if (name := task.judges_descendants)]
    why = ""
    if found.stock and not strategy.state.address.is_private:  # whose workers are ours, all of them
        why = (
            f"{listed(sorted(found.stock), SHOWN)} send no receipts: start your workers with "
            "-I pytest_manifest.worker"
        )
    elif not has_stream(strategy.state.address.backend_url):
        why = "only a Redis (or Valkey) as result store takes their reports while they run"
    if not (why and judging):
        return []
    names = listed(list(map(repr, judging)), SHOWN)
    says = "'expect' says what must become of the tasks that the job starts ('descendants')"
    then = "or take 'descendants' out of 'expect'."
    return [f"{names}: {says}, which is not seen here: {why}; {then}"]


def _take_over(strategy: Strategy, found: Preflight) -> None:
    """Keep what the preflight found: messages, and the workers and queues of the run."""
    state, connections = strategy.state, strategy.connections
    risks = [one.message for one in found.holding]
    state.notices += found.said("warning") + risks + found.said("ok")
    state.warnings += risks
    state.workers = (found.slots or len(found.workers)) if found.answered else None
    connections.slots = found.slots
    connections.nodes = set(found.workers)
    connections.departures.meet(facts_of(found.described), time.monotonic())
    connections.added_queues = found.added_queues
    connections.queues = found.queues
    connections.held_for = found.held_for


def _handle_unknown_tasks(strategy: Strategy, unknown: Mapping[str, Sequence[str]]) -> None:
    """Withhold entries of tasks that no worker knows, or raise DispatchError if told so."""
    state = strategy.state
    why = {name: UnknownTask(names=tuple(near)) for name, near in unknown.items()}
    if state.settings.strict:
        names = "; ".join(
            f"no worker knows the task {name!r}{in_brackets(one.phrase())}"
            for name, one in why.items()
        )
        raise DispatchError(f"nothing was sent: {names}")
    _withhold(strategy, why)
    strategy.connections.add_queues(a.entry for a in state.to_send if a.entry.task in why)


def _withhold(strategy: Strategy, why: Mapping[str, UnknownTask]) -> None:
    """Judge entries whose task no worker knows, and do not send them.

    Those that expect it are sent: there a worker has to report it.
    """
    state = strategy.state
    unknown = (a for a in state.to_send if a.entry.task in why)
    held = [a for a in unknown if a.entry.expect.state != "unknown_task"]
    state.to_send = send_queue.without(state.to_send, {a.entry.id for a in held})
    with strategy.writing() as ledger, ledger.transaction():
        for a in held:
            if (fact := withheld(a.task_id, why[a.entry.task])) is not None:
                ledger.facts.append([(a.entry.id, fact)])
        ledger.attempts.mark((a.task_id for a in held), "withheld", note="unknown task")
        ledger.verdicts.record(
            (verdict_without_receipt(a.entry, a.number, "unknown_task", why[a.entry.task]), None)
            for a in held
        )


def _record_stack(
    strategy: Strategy, publisher: Publisher, found: Preflight, demand: Demand
) -> None:
    """Record in the ledger what verdicts go by: workers, the tasks' code, their own limits."""
    state = strategy.state
    is_private = state.address.is_private
    seen = found.answered or is_private
    with strategy.writing() as ledger:
        if accepted := {one.message for one in found.holding} | ledger.info.texts(ACCEPTED):
            ledger.info.set_meta(ACCEPTED, json.dumps(sorted(accepted)))
        ledger.info.set_meta("takes_one", "1" if found.takes_one else "")
        ledger.info.set_meta("celery", found.celery(is_private=is_private))
        strategy.connections.departures.keep(ledger.info)
        with ledger.writing():  # workers that do not report starts: what they had may have run
            add_nodes(ledger, found.stock if seen else (), "stock")
            add_nodes(ledger, found.idle if seen else (), "unserved")
            add_nodes(ledger, () if seen else [""], "nobody")
        # These show where a worker runs other code of a task than is here.
        if not is_private:
            record_known_workers(ledger, publisher, set(found.workers) - set(found.stock))
            if store := other_store(publisher.app, state.address):
                place = PlaceFact(**stamp(), what="own_store", url=store)
                ledger.facts.append([(None, place)])
        tasks: Iterable[str] = demand.tasks
        if found.unknown_tasks:  # entries of them may be withheld
            tasks = (attempt.entry.task for attempt in state.to_send)
        record_code(ledger, tasks, publisher.tasks)
        record_own_limits(ledger, _own_limits(publisher, demand))
        state.pending.with_own_limit = OwnLimits(ledger).of


def _own_limits(publisher: Publisher, demand: Demand) -> dict[str, float]:
    """Return the limits (s) that tasks set themselves, also of those that only jobs may start."""
    others = [Entry.model_construct(id=name, task=name) for name in publisher.tasks]
    found: dict[str, float] = {}
    for one in [*others, *demand.samples.values()]:
        with suppress(DispatchError):  # where it is routed to a queue that the app does not have
            own = publisher.own_limit(one)
            found.update({} if own is None else {one.task: own})
    return found


TTL_MARGIN = 24 * 3600
"""Seconds that receipts outlive the run's deadline, so that a late audit finds them."""


class Dispatch(Strategy):
    """Send every entry of a new run, and judge each by its receipt."""

    def prepare(self, expected_workers: int | None) -> None:
        publisher = self.connections.open_publisher()
        admit(self, publisher, expected_workers)
        self.connections.open_locator(publisher, ())
        with contextlib.closing(self.connections.open_collector("0")) as collector:
            collector.begin(self.state.info.stream_ttl)

    def work(self, engine: Engine, ledger: Ledger) -> None:
        facts = self.facts_of(ledger)
        facts.add(None, self.segment())
        facts.store("marked")
        super().work(engine, ledger)

    def reuse(self, codes: Mapping[str, str]) -> None:
        state = self.state
        with self.writing() as ledger:
            take_over_passes(state, ledger, codes)
        entries = (attempt.entry for attempt in state.to_send)
        send_queue.refuse_beyond(state.settings.budget, entries, state.manifest.path.name)

    def take_effect(self) -> None:
        """Change nothing: the ledger was there before anything was prepared."""

    def abandon(self) -> None:
        """Delete the run, so that no later session finds it."""
        self.connections.close()
        for path in self.state.files.all():
            path.unlink(missing_ok=True)
        self.state.lock.release()

    def make_ledger(self, positions: Sequence[int], shard: Shard | None) -> None:
        """Make the ledger, with all that is to be sent in it or not at all.

        ``positions`` of the entries in the manifest.
        """
        state = self.state
        state.lock.acquire(state.info.run)
        state.lock.inscribe(str(state.info.number))
        with Ledger.create(state.files.ledger, state.info, deferred=True) as ledger:
            keep_manifest(state.manifest, state.files.ledger)
            ledger.info.begin_segment(state.info.created_at)
            require_signatures(ledger, state.settings.receipt_keys)
            rows = zip(send_queue.names_of(state.to_send), positions, strict=True)
            ledger.attempts.plan((task_id, entry, 1, place) for (task_id, entry), place in rows)
            if shard is not None:
                ledger.info.set_meta(SHARD, shard.note)
            if state.settings.reuse is not None:
                names = [path.stem for path in state.settings.reuse.ledgers]
                ledger.info.set_meta(TO_REUSE, json.dumps(names))
            if state.settings.trace_note:
                ledger.info.set_meta(TRACE, state.settings.trace_note)
            self.record_gates(ledger)
            ledger.commit_deferred()


def dispatch_run(
    manifest: Manifest,
    selected: Sequence[str],
    address: StackAddress,
    settings: RunSettings,
    *,
    shard: Shard | None = None,
) -> Run:
    """Make a new run of the selected entries, all of the ``shard`` where one is named.

    Its ledger exists on return; nothing is sent.
    """
    run_id = new_run_id()
    private_folder(settings.folder)
    remove_unmade_runs(settings.folder)
    info = RunInfo(
        run=run_id,
        manifest=manifest.path.resolve(),
        sha256=manifest.sha256,
        workflow=manifest.header.workflow,
        mode=manifest.header.mode,
        entries=len(selected),
        created_at=utc_now(),
        broker=redact_url(address.broker_url),
        backend=redact_url(address.backend_url),
        is_private=address.is_private,
        stream_ttl=int(settings.deadline) + TTL_MARGIN,
        number=next_run_number(settings.folder),
    )
    state = RunState(manifest, RunFiles.of(settings.folder, run_id), info, address, settings)
    state.to_send, positions = _first_attempts(
        run_id, manifest, selected, on_disk=settings.low_memory
    )
    strategy = Dispatch(state)
    try:
        strategy.make_ledger(positions, shard)
    except BaseException:
        strategy.abandon()
        raise
    return Run(strategy)


def _first_attempts(
    run: str, manifest: Manifest, selected: Sequence[str], *, on_disk: bool
) -> tuple[Sequence[Attempt], Sequence[int]]:
    """Return the first attempts of the selected entries, and their positions in the manifest.

    Positions are those in the whole manifest, as ledgers of its shards are merged in its order.
    """
    chosen = set(selected)
    positions = array("I", (n for n, name in enumerate(manifest.ids) if name in chosen))
    lazy = send_queue.FirstAttempts(run, manifest, positions)
    return lazy if on_disk else list(lazy), positions
