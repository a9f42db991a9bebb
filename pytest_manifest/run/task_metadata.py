"""Keep the code and the own time limits of the run's tasks in its ledger: verdicts go by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from pytest_manifest.broker.workers import with_effective_timeout
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import TaskFact
from pytest_manifest.schema.wire import code_digest

if TYPE_CHECKING:
    from pytest_manifest.run.inflight import PendingAttempt

Step: TypeAlias = tuple[datetime, float]
"""A moment (UTC), and the limit (s) of a task that holds from then on."""


def record_code(ledger: Ledger, names: Iterable[str], tasks: Mapping[str, object]) -> None:
    """Record the digests of these tasks' code as it is now, before something is sent."""
    known = {one.task: one.code for one in _tasks(ledger) if one.code is not None}
    found = {name: code_digest(tasks[name]) for name in sorted(set(names) & set(tasks))}
    fresh = {name: code for name, code in found.items() if code and known.get(name) != code}
    since = _since(ledger) if known else utc_now()
    ledger.facts.append(
        (None, TaskFact(seq=0, at=since, task=task, code=code)) for task, code in fresh.items()
    )


def _tasks(ledger: Ledger, run: str | None = None) -> Iterator[TaskFact]:
    """Yield what is known of tasks in a run, in order; None: in the ledger's own."""
    facts = ledger.facts.of_run(ledger.info.read().run if run is None else run)
    return (one for one in facts if isinstance(one, TaskFact))


def _since(ledger: Ledger) -> datetime:
    """Return from when on what is recorded now holds: later than all that was sent before.

    Where the clock was set back, what is sent next is judged by what held before for as long.
    """
    last = ledger.attempts.last_sent_at()
    return utc_now() if last is None else max(utc_now(), last + timedelta(microseconds=1))


class OwnLimits:
    """Give an entry the limit that holds for a job as its ``timeout`` (s).

    That is the limit which the task had in the run that sent the job, when that was: what a run is
    resumed with after a task was changed is of the attempts that are sent from then on.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._run_of: Callable[[str], str] = ledger.info.task_runs().run_of
        runs = (*ledger.info.merged(), ledger.info.read().run)
        self._by_run = {run: steps for run in runs if (steps := _limits(ledger, run))}

    def of_run(self, entry: Entry, run: str, sent_at: datetime | None) -> Entry:
        """Return the entry with the limit of a job that this run sent then."""
        own = self.seconds(entry.task, run, sent_at)
        return entry if own is None else with_effective_timeout(entry, own)

    def seconds(self, task: str, run: str, sent_at: datetime | None) -> float | None:
        """Return the own limit (s) of a task's job that this run sent then; None: it had none.

        What seems to be sent before the first of them was sent after it, and the clock set back.
        """
        steps = self._by_run.get(run, {})
        if sent_at is not None and steps:
            sent_at = max(sent_at, min(of[0][0] for of in steps.values()))
        held = (own for since, own in reversed(steps.get(task, ())) if _is_past(since, sent_at))
        return next(held, None)

    def of(self, job: PendingAttempt) -> Entry:
        """Return the entry of an attempt, or of a descendant, with the limit of its job."""
        if not self._by_run:
            return job.entry
        return self.of_run(job.entry, self._run_of(job.root), job.sent_at)


def _is_past(since: datetime, sent_at: datetime | None) -> bool:
    return sent_at is None or since <= sent_at


def _limits(ledger: Ledger, run: str) -> dict[str, list[Step]]:
    """Return the limits that tasks had in a run, in order."""
    steps: dict[str, list[Step]] = {}
    for one in _tasks(ledger, run):
        if one.limit is not None:
            steps.setdefault(one.task, []).append((one.at, one.limit))
    return steps


def record_own_limits(ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """Record the limits before something is sent; keep what is known of other tasks.

    They hold for what is sent from now on. That there is none is recorded, too: one that a task
    gets later is not of what was sent before.
    """
    known = {task: of[-1][1] for task, of in _limits(ledger, ledger.info.read().run).items()}
    fresh = {task: own for task, own in seconds.items() if known.get(task) != own}
    since = _since(ledger)
    ledger.facts.append(
        (None, TaskFact(seq=0, at=since, task=task, limit=own)) for task, own in fresh.items()
    )
