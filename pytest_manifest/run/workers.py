"""Follow the workers of a run: our own that die, and others that may start jobs unreported."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Sequence
from typing import Final, Literal, TypeAlias

from loguru import logger

from pytest_manifest.broker.locating.worker_replies import (
    find_workers,
    may_be_alive,
    stack_errors,
    unresponsive_nodes,
)
from pytest_manifest.broker.preflight import add_consumers
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import STOCK_WORKERS, UNVERIFIED_WORKERS, Ledger
from pytest_manifest.run.context import EngineContext
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.pending import node_of
from pytest_manifest.run.recovery import AFTER_LOSS
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema.run_facts import NodeFact

NodeFinding: TypeAlias = Literal["reports", "stock", "unserved", "nobody", "silent"]
CRASH_LOOP = 6
"""Deaths in a row of one worker, none of them after it had started a job, that end the run."""


class WorkerDeaths:
    """Follow the worker deaths that the stack's supervisor reports. For one thread."""

    def __init__(self, context: EngineContext) -> None:
        self._signals = context.signals
        self._pending = context.pending
        self._facts = context.facts
        self._publisher = context.publisher
        self._queues = list(context.added_queues)
        self._seen = 0
        self._fresh: Sequence[WorkerLoss] = ()
        self._idle_deaths: Counter[str] = Counter()
        self._due: deque[float] = deque()

    def has_started(self, worker: str | None) -> None:
        """Note that a worker started a job: whatever ended it before, it works."""
        self._idle_deaths.pop(node_of(worker) or "", None)

    def check(self, now: float) -> bool:
        """Note the deaths since the last call; return whether there are any.

        Raises StackError where a worker dies again and again before it starts any job.
        """
        # One call after the news of a death, so that the starts that came before it are known.
        for loss in self._fresh:
            for job in self._pending.worker_lost(loss):
                self._facts.gone(job)
            self._count(loss)
        losses = self._signals.lost_workers()
        self._fresh, self._seen = losses[self._seen :], len(losses)
        if self._fresh and self._queues:
            self._due = deque(now + after for after in AFTER_LOSS[1:])
        while self._due and self._due[0] <= now:
            self._due.popleft()
            self._add_consumers()
        return bool(self._fresh)

    def _count(self, loss: WorkerLoss) -> None:
        self._idle_deaths[loss.worker] += 1
        deaths = self._idle_deaths[loss.worker]
        if deaths >= CRASH_LOOP:
            tail = "".join(f"\n    {line}" for line in loss.tail)
            raise StackError(
                f"worker {loss.worker} ended {deaths} times in a row before it began any job "
                f"(exit code {loss.returncode}); mend what ends it, then go on with "
                "--manifest-resume"
                f"{':' if tail else ''}{tail}"
            )

    def _add_consumers(self) -> None:
        """Add the run's queues to restarted workers, which consume only those of their app."""
        if self._publisher is None:
            return
        try:
            add_consumers(self._publisher, self._queues)
        except Exception as error:  # the broker may be away: there is a next time
            logger.warning("a new worker was not informed of its queues: {}", error)


KNOWN_NODES: Final = "known_nodes"
"""The ledger's key for nodes that cannot have started a job of the run unreported: they report each
start, or had ended before the first was sent."""


def record_known_workers(ledger: Ledger, publisher: Publisher, telling: Collection[str]) -> None:
    """Record, before anything is sent, the nodes that report starts or have ended already.

    Raises StackError where the broker is away.
    """
    with stack_errors(publisher):
        ended = publisher.call(lambda: _ended_nodes(publisher, telling))
    before = _read_known(ledger)
    with ledger.writing():
        add_nodes(ledger, (frozenset(telling) | ended) - before, "reports")
        _write_known(ledger, before | frozenset(telling) | ended)


def _ended_nodes(publisher: Publisher, telling: Collection[str]) -> frozenset[str]:
    listed = unresponsive_nodes(publisher, telling)
    # A node that is busy now is of unknown kind.
    return frozenset() if may_be_alive(publisher, listed, telling) else listed


def record_unknown_workers(ledger: Ledger, publisher: Publisher) -> None:
    """Record which workers may have started a job unreported: those present and those before.

    A worker without receipts may join later, take a job, and die in it before any query. Its name,
    which a Redis broker keeps, is all that is left; from then on a job without a start may have
    been started. Raises StackError where the broker is away.
    """
    now = find_workers(publisher)
    known = _read_known(ledger) | now.instrumented | ledger.events.workers_with_starts()
    if now.stock:
        with ledger.writing():
            add_nodes(ledger, now.stock, "stock", unless=ledger.info.get_meta(STOCK_WORKERS))
            ledger.info.set_meta(STOCK_WORKERS, ", ".join(sorted(now.stock)))
    # One that was only slow to answer is none any more once it has.
    before = ledger.info.texts(UNVERIFIED_WORKERS)
    strangers = (before | now.unresponsive) - known
    if strangers or before:
        ledger.info.set_meta(UNVERIFIED_WORKERS, json.dumps(sorted(strangers)) if strangers else "")
    with ledger.writing():
        add_nodes(ledger, known - _read_known(ledger), "reports")
        add_nodes(ledger, strangers - before, "silent")
        _write_known(ledger, known)


def add_nodes(
    ledger: Ledger, nodes: Collection[str], what: NodeFinding, *, unless: str | None = None
) -> None:
    """Record what was found of these nodes; not where it is as they were listed before."""
    if nodes and ", ".join(sorted(nodes)) != unless:
        ledger.facts.append(
            (None, NodeFact(**stamp(), name=name, what=what)) for name in sorted(nodes)
        )


def _read_known(ledger: Ledger) -> frozenset[str]:
    return ledger.info.texts(KNOWN_NODES)


def _write_known(ledger: Ledger, nodes: Collection[str]) -> None:
    ledger.info.set_meta(KNOWN_NODES, json.dumps(sorted(nodes)))
