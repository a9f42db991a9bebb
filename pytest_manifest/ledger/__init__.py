"""The ledger: one SQLite file a run, which records what was planned, sent, started and decided.

One process writes (the one that dispatches or audits); any number may read at the same time. A
record is committed before anything is done about it, so a reader sees nothing that a crash undoes.
"""

from pytest_manifest.ledger.descendants import Descendant, ToldDescendant
from pytest_manifest.ledger.files import (
    find_runs,
    next_run_number,
    run_number_of_lock,
)
from pytest_manifest.ledger.ledger import Ledger
from pytest_manifest.ledger.merge import merge_files
from pytest_manifest.ledger.queries import (
    BUDGET,
    OVER_BUDGET,
    History,
)
from pytest_manifest.ledger.rows import (
    BAD_ROW_ERRORS,
    AttemptRow,
    EntryVerdict,
    ReusedFrom,
    RunInfo,
    RunSegment,
    RunStatus,
    SendState,
    StoredVerdict,
    damaged,
    utc_now,
)
from pytest_manifest.ledger.run_info import (
    ACCEPTED,
    RECEIPT_KEYS,
    REUSED_RUNS,
    SECRETS,
    SHARD,
    TO_REUSE,
    UNITED_KEYS,
    TaskRuns,
    key_of,
)
from pytest_manifest.ledger.tree_queries import SlowestTree, Statuses, TreeStep, TreeTotals

__all__ = [
    "ACCEPTED",
    "BAD_ROW_ERRORS",
    "BUDGET",
    "OVER_BUDGET",
    "RECEIPT_KEYS",
    "REUSED_RUNS",
    "SECRETS",
    "SHARD",
    "TO_REUSE",
    "UNITED_KEYS",
    "AttemptRow",
    "Descendant",
    "EntryVerdict",
    "History",
    "Ledger",
    "ReusedFrom",
    "RunInfo",
    "RunSegment",
    "RunStatus",
    "SendState",
    "SlowestTree",
    "Statuses",
    "StoredVerdict",
    "TaskRuns",
    "ToldDescendant",
    "TreeStep",
    "TreeTotals",
    "damaged",
    "find_runs",
    "key_of",
    "merge_files",
    "next_run_number",
    "run_number_of_lock",
    "utc_now",
]
