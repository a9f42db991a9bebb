"""Dispatch a manifest anew: one first attempt of each selected entry."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Mapping, Sequence

from pytest_manifest.broker.attempt import Attempt, new_run_id
from pytest_manifest.files import private_folder
from pytest_manifest.ledger import SHARD, TO_REUSE, Ledger, RunInfo, next_run_number, utc_now
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.manifest import Manifest, Shard
from pytest_manifest.redaction import redact_url
from pytest_manifest.run.admission import admit
from pytest_manifest.run.budget import refuse_beyond
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.locks import remove_unmade_runs
from pytest_manifest.run.reuse import planned_note, take_over_passes
from pytest_manifest.run.run import Run
from pytest_manifest.run.send_queue import FirstAttempts, names_of
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.run.signatures import require_signatures
from pytest_manifest.run.state import RunState
from pytest_manifest.run.strategy import Strategy
from pytest_manifest.urls import StackAddress

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
        if self.state.settings.reuse is None:
            return
        with self.writing() as ledger:
            take_over_passes(self.state, ledger, codes)
        state = self.state
        entries = (attempt.entry for attempt in state.to_send)
        refuse_beyond(state.settings.budget, entries, state.manifest.path.name)

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
            rows = zip(names_of(state.to_send), positions, strict=True)
            ledger.attempts.plan((task_id, entry, 1, place) for (task_id, entry), place in rows)
            if shard is not None:
                ledger.info.set_meta(SHARD, shard.note)
            if state.settings.reuse is not None:
                ledger.info.set_meta(TO_REUSE, planned_note(state.settings.reuse))
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
    lazy = FirstAttempts(run, manifest, positions)
    return lazy if on_disk else list(lazy), positions
