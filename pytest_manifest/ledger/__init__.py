"""The ledger: one SQLite file a run, which records what was planned, sent, started and decided.

One process writes (the one that dispatches or audits); any number may read at the same time. A
record is committed before anything is done about it, so a reader sees nothing that a crash undoes.
"""

from pytest_manifest.ledger.descendants import Announced, Descendant
from pytest_manifest.ledger.files import (
    LEDGER_VERSION,
    NETWORK_FILE_SYSTEMS,
    file_system,
    find_runs,
    find_runs_by_digest,
    find_runs_of_manifest,
    next_run_number,
    run_number_of_lock,
)
from pytest_manifest.ledger.ledger import Ledger
from pytest_manifest.ledger.merge import merge_files
from pytest_manifest.ledger.queries import (
    BUDGET,
    OVER_BUDGET,
    AttemptCost,
    History,
)
from pytest_manifest.ledger.rows import (
    BAD_ROW_ERRORS,
    MERGED,
    AttemptRow,
    EntryVerdict,
    HandedOn,
    RunInfo,
    RunSegment,
    RunStatus,
    SendState,
    Start,
    StoredVerdict,
    damaged,
    info_rows,
    utc_now,
)
from pytest_manifest.ledger.run_info import (
    GAVE_UP,
    MERGED_SHARDS,
    OTHER_BROKER,
    OWN_STORE,
    SEGMENTS,
    SHARD,
    STOCK_WORKERS,
    STORE_EMPTIED,
    UNVERIFIED_WORKERS,
    TaskRuns,
    has_all_starts,
    may_lack_starts,
    segments_json,
    stores_asked,
)
from pytest_manifest.ledger.tree_queries import SlowestTree, Statuses, TreeStep, TreeTotals

__all__ = [
    "BAD_ROW_ERRORS",
    "BUDGET",
    "GAVE_UP",
    "LEDGER_VERSION",
    "MERGED",
    "MERGED_SHARDS",
    "NETWORK_FILE_SYSTEMS",
    "OTHER_BROKER",
    "OVER_BUDGET",
    "OWN_STORE",
    "SEGMENTS",
    "SHARD",
    "STOCK_WORKERS",
    "STORE_EMPTIED",
    "UNVERIFIED_WORKERS",
    "Announced",
    "AttemptCost",
    "AttemptRow",
    "Descendant",
    "EntryVerdict",
    "HandedOn",
    "History",
    "Ledger",
    "RunInfo",
    "RunSegment",
    "RunStatus",
    "SendState",
    "SlowestTree",
    "Start",
    "Statuses",
    "StoredVerdict",
    "TaskRuns",
    "TreeStep",
    "TreeTotals",
    "damaged",
    "file_system",
    "find_runs",
    "find_runs_by_digest",
    "find_runs_of_manifest",
    "has_all_starts",
    "info_rows",
    "may_lack_starts",
    "merge_files",
    "next_run_number",
    "run_number_of_lock",
    "segments_json",
    "stores_asked",
    "utc_now",
]
