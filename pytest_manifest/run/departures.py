"""Know which workers are gone: by their processes on this machine, or by what the broker shows.

Silence alone shows nothing: a worker whose only process runs a job answers nobody meanwhile. One is
gone where its main process has ended, with all that it had forked, and that can be seen from here.
Of one elsewhere it takes that it had answered or reported until just now, and that the broker has
had no connection of it since. One that the network keeps away falls silent first, and is cut off
minutes later; one that has lost its connection makes another within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from loguru import logger

from pytest_manifest.broker.locating import BrokerSnapshot
from pytest_manifest.broker.workers import Worker
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Start, utc_now
from pytest_manifest.ledger.run_info import RunMetadata
from pytest_manifest.processes import ProcessIdentity, parse_identity

HEARTBEAT: Final = 5.0
"""Seconds from one look at the workers' processes to the next."""
LEFT_FOR: Final = 15.0
"""Seconds without a connection after which a worker elsewhere has left: longer than Celery takes
to connect anew to a broker that can be reached."""
HEARD_WITHIN: Final = 60.0
"""Seconds before it left within which it was heard of. A broker keeps the connection of one that is
cut off from it for longer, some minutes."""
DROPS_ITS_JOBS: Final = frozenset({"prefork", "solo"})
"""Pools that begin nothing which they had taken before they lost their connection."""
WORKERS: Final = "worker_processes"
"""The ledger's key for the workers that a run has asked what they are."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Facts that a worker has given of itself: its main process and its pool."""

    process: ProcessIdentity | None
    pool: str


def facts_of(workers: Iterable[Worker]) -> dict[str, WorkerFacts]:
    """Map node -> facts, of those that answered in full."""
    told = (one for one in workers if not {"registered", "stats"} & one.unsaid)
    return {one.name: WorkerFacts(one.process, one.pool) for one in told}


class Departures:
    """Follow the workers of a run, and see which are gone. Use it from one thread.

    ``ask`` returns the facts of the workers that answer now; it raises StackError.
    """

    def __init__(self, ask: Callable[[], Mapping[str, WorkerFacts]] = dict) -> None:
        self._ask = ask
        self._facts: dict[str, WorkerFacts] = {}
        self._asked: set[str] = set()
        self._ended: set[str] = set()
        self._heard: dict[str, float] = {}
        self._absent_since: dict[str, float] = {}
        self._listeners: int | None = None
        self._next_beat = 0.0
        self.has_news = False
        """Whether something is known that has not been recorded yet."""

    def recall(self, info: RunMetadata) -> None:
        """Take over what earlier sessions of the run knew of its workers."""
        kept = json.loads(info.get_meta(WORKERS) or "{}")
        for node, (process, pool) in kept.items():
            self._facts.setdefault(node, WorkerFacts(parse_identity(process), pool))

    def keep(self, info: RunMetadata) -> None:
        """Record what is known of the workers for later sessions."""
        facts = self._facts.items()
        rows = {name: (str(one.process or ""), one.pool) for name, one in facts}
        info.set_meta(WORKERS, json.dumps(rows))
        self.has_news = False

    def meet(self, facts: Mapping[str, WorkerFacts], now: float) -> None:
        """Note what workers say of themselves."""
        self._facts.update(facts)
        self.has_news = self.has_news or bool(facts)
        self._asked |= facts.keys()
        self._ended -= facts.keys()
        self.hear(facts, now)

    def hear(self, nodes: Iterable[str], now: float) -> None:
        """Note that these workers have answered, or reported something."""
        for node in nodes:
            self._heard[node] = now
            self._absent_since.pop(node, None)

    def hear_starts(self, starts: Iterable[Start], now: float) -> None:
        """Note the workers that have just begun jobs; what was reported long ago says nothing."""
        earliest = utc_now() - timedelta(seconds=HEARD_WITHIN)
        fresh = (one for one in starts if one.started_at is not None and one.started_at > earliest)
        self.hear((one.worker for one in fresh if one.worker is not None), now)

    def is_beat_due(self, now: float) -> bool:
        """Return whether the processes are to be looked at again, and count this as done."""
        if now < self._next_beat:
            return False
        self._next_beat = now + HEARTBEAT
        return True

    def has_lost_some(self, listeners: int | None) -> bool:
        """Return whether a worker has ended since the last look, as far as that can be seen.

        ``listeners``: connections on which workers listen, as the broker counts them.
        """
        before, self._listeners = self._listeners, listeners
        ended = {node for node, one in self._facts.items() if _is_dead(one.process)}
        fresh, self._ended = ended - self._ended, ended
        return bool(fresh) or (None not in (before, listeners) and (listeners or 0) < (before or 0))

    def gone(self, first: BrokerSnapshot, second: BrokerSnapshot, now: float) -> frozenset[str]:
        """Return the silent workers that are gone by all that two snapshots show."""
        self._learn(second.answered, now)
        self.hear(second.answered, now)
        for node in second.unresponsive:
            if node not in (first.absent & second.absent):
                self._absent_since.pop(node, None)
                if node in second.maybe_alive:  # silent, and connected: it may be cut off
                    self._heard.pop(node, None)
            elif node not in self._absent_since:
                self._absent_since[node] = now
        return frozenset(node for node in second.unresponsive if self._is_gone(node, now))

    def _is_gone(self, node: str, now: float) -> bool:
        facts = self._facts.get(node)
        if facts is None:
            return False
        process = facts.process
        if process is not None and process.is_here:
            if not process.has_ended:
                return False
            if process.has_ended_with_its_group:
                return True
        heard, since = self._heard.get(node), self._absent_since.get(node)
        if heard is None or since is None or facts.pool not in DROPS_ITS_JOBS:
            return False
        return since - heard <= HEARD_WITHIN and now - since >= LEFT_FOR

    def still_leaving(self, now: float) -> float | None:
        """Return the seconds until the next worker has been away for long enough, None: none is."""
        left = [
            since + LEFT_FOR - now
            for node, since in self._absent_since.items()
            if now - since < LEFT_FOR and node in self._heard
        ]
        return min(left, default=None)

    def _learn(self, answered: frozenset[str], now: float) -> None:
        """Ask what workers are that joined later, or that are started again."""
        for node in answered:
            facts = self._facts.get(node)
            if facts is not None and _is_dead(facts.process):  # another process has its name now
                del self._facts[node]
                self._asked.discard(node)
        new = answered - self._asked
        if not new:
            return
        try:
            self.meet(self._ask(), now)
        except StackError as error:  # there is a next time
            logger.warning("the workers could not be asked what they are: {}", error)
            return
        self._asked |= new  # also those that do not say


def _is_dead(process: ProcessIdentity | None) -> bool:
    return process is not None and process.is_here and process.has_ended


__all__ = ["HEARTBEAT", "LEFT_FOR", "Departures", "WorkerFacts", "facts_of"]
