"""The ledger: one SQLite file a run, which records what was planned, sent, started and decided.

One process writes (the one that dispatches or audits); any number may read at the same time. A
record is committed before anything is done about it, so a reader sees nothing that a crash undoes.
"""

from pytest_manifest.ledger.descendants import Descendant, Statuses
from pytest_manifest.ledger.files import find_runs
from pytest_manifest.ledger.ledger import Ledger
from pytest_manifest.ledger.rows import (
    AttemptRow,
    EntryVerdict,
    RunInfo,
    RunSegment,
    StoredVerdict,
    utc_now,
)
from pytest_manifest.ledger.run_info import RECEIPT_KEYS, SECRETS, TO_REUSE
from pytest_manifest.ledger.verdicts import BUDGET, OVER_BUDGET

__all__ = [
    "BUDGET",
    "OVER_BUDGET",
    "RECEIPT_KEYS",
    "SECRETS",
    "TO_REUSE",
    "AttemptRow",
    "Descendant",
    "EntryVerdict",
    "Ledger",
    "RunInfo",
    "RunSegment",
    "Statuses",
    "StoredVerdict",
    "find_runs",
    "utc_now",
]
