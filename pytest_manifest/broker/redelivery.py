"""Find the entries whose message a broker may hand out again while a worker holds it.

A worker holds a message for its countdown or ETA, then while the jobs before it in the same slot
run, and a late-acknowledged one while it runs itself. Counted are the entries of the batch, each
with its own timeout, and as many of them as the worker prefetches.

Read the visibility timeout: the seconds after which a broker hands a held message out again.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pytest_manifest.broker.checks import Demand, Finding, HeldEntries, Level, TaskAndQueue, some_of
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import Worker, acks_late
from pytest_manifest.text import short

BY_APP: Final = "visibility_timeout in the app's broker_transport_options"
BY_QUEUE: Final = "the VisibilityTimeout of the queue, which is what holds once it is made,"


@dataclass(frozen=True, slots=True)
class Visibility:
    """The shortest visibility timeout (s) that holds; ``where``: what it is set by, in words.

    ``unread``: queues whose own timeout could not be read -> why, so that the app's counts.
    """

    timeout: float
    where: str
    unread: Mapping[str, str] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Warn of the queues whose timeout could not be read, once for each reason."""
        queues = defaultdict(list)
        for name, reason in self.unread.items():
            queues[reason].append(repr(name))
        return [
            f"the visibility timeout of queue{'s'[: len(names) != 1]} {', '.join(names)} cannot be "
            f"read ({reason}), so the app's is taken for it ({self.timeout:g} s count here): where "
            "the queue's own is shorter, a job that waits or runs for longer is run twice; allow "
            "sqs:GetQueueAttributes and sqs:GetQueueUrl, or see that it is no shorter"
            for reason, names in queues.items()
        ]


def visibility_of(
    publisher: Publisher, workers: Sequence[Worker], queues: Iterable[str]
) -> Visibility:
    """Find the timeout of these queues: that of Redis's workers, or of each queue of SQS itself.

    Raises:
        PeerTimeoutError: the broker does not answer.
    """

    def ask() -> tuple[float, dict[str, str]]:
        with publisher.control.channel() as channel:
            return publisher.transport.own_timeouts(channel, queues)

    if publisher.transport.queues_have_timeouts:
        timeout, unread = publisher.call(ask)
        return Visibility(timeout, BY_QUEUE, unread)
    options = publisher.app.conf.broker_transport_options or {}
    usual = publisher.transport.visibility_timeout or math.inf
    configured = float(options.get("visibility_timeout") or usual)
    told = ((worker.visibility or usual) if worker.has_stats else configured for worker in workers)
    return Visibility(min(told, default=configured), BY_APP)


REDELIVERY: Final = "redelivery"
"""What the setting ``manifest_accept`` calls the risk that a held message is handed out again."""
LIMITS: Final = "limits"
"""The check of how long a message may be held."""


@dataclass(frozen=True)
class Holding:
    """Say how long a worker may hold an entry's message; times in seconds.

    ``own``: for how long it runs itself, where that counts, else 0.
    """

    entry: str
    task: str
    delay: float
    ahead: int
    seconds_ahead: float
    own: float

    @property
    def held(self) -> float:
        return self.delay + self.seconds_ahead + self.own

    @property
    def is_late(self) -> bool:
        return self.own > 0

    def longest_timeout(self, visibility: float) -> int:
        """Return the longest timeout of all entries that keeps it below ``visibility``; 0: none."""
        running = self.ahead + self.is_late
        return max(0, math.ceil((visibility - self.delay) / running) - 1) if running else 0


def redelivery_findings(
    publisher: Publisher,
    demand: Demand,
    workers: Sequence[Worker],
    queues: Mapping[TaskAndQueue, str | None],
    held_for: Visibility,
    accepted: Collection[str] = (),
) -> list[Finding]:
    """Return what would certainly run twice and what may, as errors; ``accepted``: as warnings.

    ``queues``: where the entries of a task and queue go.
    """
    by_app = Worker("", prefetch=publisher.app.conf.worker_prefetch_multiplier)
    asked = [one if one.has_stats else replace(by_app, queues=one.queues) for one in workers]
    by_tasks = {name: bool(task.acks_late) for name, task in publisher.tasks.items()}
    late = by_tasks | acks_late(workers)

    def is_late(task: str) -> bool:
        return late.get(task, bool(publisher.app.conf.task_acks_late))

    found = list(holdings(demand, asked or [by_app], queues, is_late))
    return findings_of(found, held_for, accepted)


def holdings(
    demand: Demand,
    workers: Sequence[Worker],
    queues: Mapping[TaskAndQueue, str | None],
    is_late: Callable[[str], bool],
) -> Iterator[Holding]:
    """Yield, for the entries of each task and queue, the longest that a worker may hold one."""
    served = {name for one in workers for name in one.queues or ()}

    def may_take(worker: Worker, key: TaskAndQueue) -> bool:
        queue = queues.get(key)
        return worker.queues is None or queue in worker.queues or queue not in served

    found: dict[TaskAndQueue, list[Holding]] = defaultdict(list)
    # Workers that are alike hold alike.
    for worker in {(one.queues, one.prefetch, one.slots): one for one in workers}.values():
        keys = [key for key in demand.held if may_take(worker, key)]
        timeouts: Counter[float] = Counter()
        for key in keys:
            timeouts.update(demand.held[key].timeouts)
        ahead = worker.ahead(timeouts.total(), late=all(is_late(task) for task, _ in keys))
        for key in keys:
            late = is_late(key[0])
            found[key].append(_holding(key[0], demand.held[key], timeouts, ahead, late=late))
    for key in demand.held:
        yield max(found[key], key=lambda one: one.held)


def _holding(
    task: str, held: HeldEntries, timeouts: Mapping[float, int], ahead: int, *, late: bool
) -> Holding:
    """Give the longest that one is held behind so many others, of which ``timeouts`` has all."""
    entry = held.occupied if late else held.delayed
    assert entry is not None, "a demand has no key without an entry"
    own = entry.timeout if late else 0.0
    delay = held.longest_occupation - own if late else held.longest_delay
    left, before = ahead, 0.0
    for timeout in sorted(timeouts, reverse=True):
        count = min(left, timeouts[timeout] - (timeout == own))
        before, left = before + count * timeout, left - count
    return Holding(entry.id, task, delay, ahead, before, own)


def findings_of(
    found: Sequence[Holding], held_for: Visibility, accepted: Collection[str] = ()
) -> list[Finding]:
    """Word what is held for too long: one finding for what is certain, and one for what may be."""
    limit = held_for.timeout
    certain = [one for one in found if one.delay >= limit]
    possible = [one for one in found if one.delay < limit <= one.held]
    findings = []
    if certain:
        worst = max(certain, key=lambda one: one.delay)
        sentence = (
            f"entry {short(worst.entry)} ({worst.task}) has a countdown or eta of "
            f"{worst.delay:g} s, and this broker hands it to another worker after {limit:g} s: its "
            f"job would run twice{_others(certain, worst)}. Shorten it, or raise {held_for.where} "
            f"above {worst.delay:g}"
        )
        findings.append(Finding("error", LIMITS, sentence))
    if possible:
        worst = max(possible, key=lambda one: one.held)
        level: Level = "warning" if REDELIVERY in accepted else "error"
        end = _remedies(worst, held_for)
        if level == "warning":
            end = f"This is accepted by manifest_accept = {REDELIVERY}"
        sentence = (
            f"entry {short(worst.entry)} ({worst.task}) may be held by a worker for "
            f"{worst.held:g} s, and this broker hands it to another worker after {limit:g} s: its "
            f"job may run twice{_others(possible, worst)}. {_sum(worst)}. {end}"
        )
        findings.append(Finding(level, LIMITS, sentence))
    return findings


def _others(found: Sequence[Holding], worst: Holding) -> str:
    names = sorted({one.task for one in found} - {worst.task})
    return f"; so may entries of {some_of(names)}" if names else ""


def _sum(one: Holding) -> str:
    parts = [f"{one.delay:g} s of countdown or eta"] if one.delay else []
    if one.ahead:
        jobs = "1 prefetched job" if one.ahead == 1 else f"{one.ahead} prefetched jobs"
        parts.append(f"{one.seconds_ahead:g} s for {jobs} before it")
    if one.is_late:
        parts.append(f"its own timeout of {one.own:g} s, as it is acknowledged late")
    return f"That is {' + '.join(parts)}"


def _remedies(worst: Holding, held_for: Visibility) -> str:
    timeout = worst.longest_timeout(held_for.timeout)
    shorter = f'give the entries a "timeout" of {timeout} s or less'
    way = f"{shorter if timeout else 'shorten the countdown'}, raise {held_for.where} above"
    return (
        f"{way[0].upper()}{way[1:]} {worst.held:g}, or set manifest_accept = {REDELIVERY} where "
        "running twice does no harm"
    )
