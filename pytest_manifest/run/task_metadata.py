"""Keep the code and the own time limits of the run's tasks in its ledger: verdicts go by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pytest_manifest.broker.workers import with_effective_timeout
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import TaskFact
from pytest_manifest.schema.wire import code_digest

if TYPE_CHECKING:
    from pytest_manifest.run.inflight import PendingAttempt

CODE_HISTORY: Final = "code_history"
OWN_LIMITS: Final = "own_limits"
"""The ledger's key for the limits (s) that tasks set themselves: steps as in ``CODE_HISTORY``."""

Value = TypeVar("Value")


class _History(Generic[Value]):
    """Hold values by task name, and the moments (UTC) from which they held: a list of steps.

    What a run is resumed with after a task was changed is of the attempts that are sent from then
    on, and each is judged by what held when it was sent.
    """

    def __init__(self, steps: Iterable[tuple[datetime, Mapping[str, Value]]]) -> None:
        self._steps = list(steps)

    def at(self, task: str, sent_at: datetime | None) -> Value | None:
        """Return what held of a task when an attempt was sent; None where that is not known.

        What seems to be sent before the first of them was sent after it, and the clock set back.
        """
        if sent_at is not None and self._steps:
            sent_at = max(sent_at, self._steps[0][0])
        for since, values in reversed(self._steps):
            if task in values and (sent_at is None or since <= sent_at):
                return values[task]
        return None


class CodeHistory(_History[str]):
    """Hold the digests of tasks' code in a run, of this ledger or merged into it."""

    def __init__(self, ledger: Ledger, run: str) -> None:
        with ledger.parse_errors():
            super().__init__(
                (datetime.fromisoformat(since), dict(digests))
                for since, digests in json.loads(ledger.info.of_run(CODE_HISTORY, run) or "[]")
            )


def record_code(ledger: Ledger, names: Iterable[str], tasks: Mapping[str, object]) -> None:
    """Record the digests of these tasks' code as it is now, before something is sent."""
    found = {name: code_digest(tasks[name]) for name in sorted(set(names) & set(tasks))}
    with ledger.parse_errors():
        steps = list(json.loads(ledger.info.get_meta(CODE_HISTORY) or "[]"))
    digests = {name: digest for name, digest in found.items() if digest}
    since = _since(ledger) if steps and steps[-1][1] != digests else utc_now()
    known = steps[-1][1] if steps else {}
    fresh = [(task, code) for task, code in digests.items() if known.get(task) != code]
    steps.append([since.isoformat(), digests])
    with ledger.writing():
        ledger.facts.append(
            (None, TaskFact(seq=0, at=since, task=task, code=code)) for task, code in fresh
        )
        ledger.info.set_meta(CODE_HISTORY, json.dumps(steps))


def _since(ledger: Ledger) -> datetime:
    """Return from when on what is recorded now holds: later than all that was sent before.

    Where the clock was set back, what is sent next is judged by what held before for as long.
    """
    last = ledger.attempts.last_sent_at()
    return utc_now() if last is None else max(utc_now(), last + timedelta(microseconds=1))


class OwnLimits:
    """Give an entry the limit that holds for a job as its ``timeout`` (s).

    That is the limit which the task had in the run that sent the job, when that was.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._run_of: Callable[[str], str] = ledger.info.task_runs().run_of
        steps = {
            run: _limit_steps(ledger, ledger.info.of_run(OWN_LIMITS, run))
            for run in (*ledger.info.merged(), ledger.info.read().run)
        }
        self._by_run = {run: _History(some) for run, some in steps.items() if some}

    def of_run(self, entry: Entry, run: str, sent_at: datetime | None) -> Entry:
        """Return the entry with the limit of a job that this run sent then."""
        own = self.seconds(entry.task, run, sent_at)
        return entry if own is None else with_effective_timeout(entry, own)

    def seconds(self, task: str, run: str, sent_at: datetime | None) -> float | None:
        """Return the own limit (s) of a task's job that this run sent then; None: it had none."""
        history = self._by_run.get(run) if self._by_run else None
        return None if history is None else history.at(task, sent_at)

    def of(self, job: PendingAttempt) -> Entry:
        """Return the entry of an attempt, or of a descendant, with the limit of its job."""
        if not self._by_run:
            return job.entry
        return self.of_run(job.entry, self._run_of(job.root), job.sent_at)


def _limit_steps(ledger: Ledger, noted: str | None) -> list[tuple[datetime, Mapping[str, float]]]:
    """Parse the limits that a ledger has of a run."""
    with ledger.parse_errors():
        steps = json.loads(noted or "[]")
        return [
            (datetime.fromisoformat(since), {task: float(own) for task, own in limits.items()})
            for since, limits in steps
        ]


def record_own_limits(ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """Record the limits before something is sent; keep what is known of other tasks.

    They hold for what is sent from now on. That there is none is recorded, too: one that a task
    gets later is not of what was sent before.
    """
    steps = _limit_steps(ledger, ledger.info.get_meta(OWN_LIMITS))
    known = steps[-1][1] if steps else None
    changed = {**(known or {}), **seconds}
    if changed == known:
        return
    since = _since(ledger)
    steps.append((since, changed))
    before = known or {}
    fresh = [(task, own) for task, own in changed.items() if before.get(task) != own]
    rows = [[moment.isoformat(), limits] for moment, limits in steps]
    with ledger.writing():
        ledger.facts.append(
            (None, TaskFact(seq=0, at=since, task=task, limit=own)) for task, own in fresh
        )
        ledger.info.set_meta(OWN_LIMITS, json.dumps(rows))
