"""The time limits that the tasks of a run set themselves, kept with it: verdicts go by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from pytest_manifest.broker.limits import with_effective_timeout
from pytest_manifest.ledger import BAD_ROW_ERRORS, Ledger, damaged
from pytest_manifest.schema import Entry

OWN_LIMITS: Final = "own_limits"
"""The ledger's key for them: a JSON object, seconds by the names of tasks."""


class OwnLimits:
    """Gives an entry with the limit that holds for its job as its ``timeout``."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds = dict(seconds or {})

    @classmethod
    def read(cls, ledger: Ledger) -> OwnLimits:
        """As they are kept in a run's ledger."""
        try:
            return cls(
                {t: float(s) for t, s in json.loads(ledger.get_meta(OWN_LIMITS) or "{}").items()}
            )
        except BAD_ROW_ERRORS as error:
            raise damaged(ledger.path, error) from error

    def __call__(self, entry: Entry) -> Entry:
        own = self._seconds.get(entry.task)
        return entry if own is None else with_effective_timeout(entry, own)


def record_own_limits(ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """Keep them, before something is sent; what is known of other tasks stays."""
    before = ledger.get_meta(OWN_LIMITS)
    if seconds or before:
        ledger.set_meta(OWN_LIMITS, json.dumps({**json.loads(before or "{}"), **seconds}))


def merged_own_limits(noted: Iterable[str | None]) -> dict[str, str]:
    """What a merged ledger keeps: the longest of each task."""
    longest: dict[str, float] = {}
    for text in noted:
        for task, seconds in json.loads(text or "{}").items():
            longest[task] = max(seconds, longest.get(task, 0.0))
    return {OWN_LIMITS: json.dumps(longest)} if longest else {}
