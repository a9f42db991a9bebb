"""Keep the code and the own time limits of the run's tasks in its ledger: verdicts go by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from pytest_manifest.broker.workers import with_effective_timeout
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.schema import Entry
from pytest_manifest.schema.code_digest import code_digest

CODE_HISTORY = "code_history"


def code_key(run: str) -> str:
    """Return the key under which a merged ledger has the code history of one of its runs."""
    return f"{CODE_HISTORY}:{run}"


class CodeHistory:
    """Hold digests by task name, and the moments (UTC) from which they held.

    A run that is resumed after a task was mended has receipts of both codes, and each is held
    against the code of its own attempt.
    """

    def __init__(self, ledger: Ledger, key: str = CODE_HISTORY) -> None:
        with ledger.parse_errors():
            self._steps: list[tuple[datetime, dict[str, str]]] = [
                (datetime.fromisoformat(since), dict(digests))
                for since, digests in json.loads(ledger.info.get_meta(key) or "[]")
            ]

    def digest(self, task: str, sent_at: datetime | None) -> str | None:
        """Return the digest of a task's code when it was sent; None where that is not known.

        What seems to be sent before the first of them was sent after it, and the clock set back.
        """
        if sent_at is not None and self._steps:
            sent_at = max(sent_at, self._steps[0][0])
        for since, digests in reversed(self._steps):
            if task in digests and (sent_at is None or since <= sent_at):
                return digests[task]
        return None


def record_code(ledger: Ledger, names: Iterable[str], tasks: Mapping[str, object]) -> None:
    """Record the digests of these tasks' code as it is now, before something is sent."""
    found = {name: code_digest(tasks[name]) for name in sorted(set(names) & set(tasks))}
    with ledger.parse_errors():
        steps = list(json.loads(ledger.info.get_meta(CODE_HISTORY) or "[]"))
    steps.append([utc_now().isoformat(), {n: digest for n, digest in found.items() if digest}])
    ledger.info.set_meta(CODE_HISTORY, json.dumps(steps))


OWN_LIMITS: Final = "own_limits"
"""The ledger's key for them: a JSON object, seconds by the names of tasks."""


class OwnLimits:
    """Give an entry the limit that holds for its job as its ``timeout`` (s)."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds = dict(seconds or {})

    @classmethod
    def read(cls, ledger: Ledger) -> OwnLimits:
        """Read the limits that a run's ledger has."""
        with ledger.parse_errors():
            noted = json.loads(ledger.info.get_meta(OWN_LIMITS) or "{}").items()
            return cls({task: float(seconds) for task, seconds in noted})

    def __call__(self, entry: Entry) -> Entry:
        own = self._seconds.get(entry.task)
        return entry if own is None else with_effective_timeout(entry, own)


def record_own_limits(ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """Record the limits before something is sent; keep what is known of other tasks."""
    before = ledger.info.get_meta(OWN_LIMITS)
    if seconds or before:
        with ledger.parse_errors():
            known = {**json.loads(before or "{}"), **seconds}
        ledger.info.set_meta(OWN_LIMITS, json.dumps(known))


def merged_own_limits(metadata: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the ledger rows of a merged run of those with this metadata: the longest limit of each
    task."""
    longest: dict[str, float] = {}
    for of_run in metadata:
        for task, seconds in json.loads(of_run.get(OWN_LIMITS) or "{}").items():
            longest[task] = max(float(seconds), longest.get(task, 0.0))
    return {OWN_LIMITS: json.dumps(longest)} if longest else {}
