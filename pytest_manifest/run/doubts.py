"""Note that a store has lost what it held, and say of which jobs that makes the end unknown."""

from __future__ import annotations

from typing import Literal

from pytest_manifest.ledger import OLDER, STORE_EMPTIED, Ledger, utc_now
from pytest_manifest.ledger.run_info import RunMetadata
from pytest_manifest.schema.run_facts import StoreFact
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import Problem


def note_emptied(ledger: Ledger, how: str = "1") -> None:
    """Record that the store has lost what it held of the run: starts of what is in flight, too."""
    what: Literal["older", "emptied"] = "older" if how == OLDER else "emptied"
    with ledger.writing():
        ledger.facts.append([(None, StoreFact(seq=0, at=utc_now(), what=what))])
        ledger.info.set_meta(STORE_EMPTIED, how)
    ledger.excuses.note_lost_starts()


def emptied(info: RunMetadata, run: str, *, now: bool) -> Problem | None:
    """Return why the store may have lost the end of any attempt of a run, None where it has not.

    ``now``: the store lacks its mark. One that is marked again has not got back what it had held,
    so the doubt stays for the rest of the run.
    """
    noted = info.of_run(STORE_EMPTIED, run)
    if noted == OLDER:
        return problems.StoreOlder()
    if now:
        return problems.StoreEmptied()
    return None if noted is None else problems.StoreEmptiedEarlier()
