"""The ledger: a SQLite file a run, the record of what was planned, sent, started and judged.

One process writes (the one that dispatches or audits); any number may read while it does. A record
is committed before anyone acts on it, so a reader sees nothing that would not survive a crash.
"""

from pytest_manifest.ledger.accounts import BUDGET, OVER_BUDGET, AttemptCost
from pytest_manifest.ledger.doubts import (
    GAVE_UP,
    OTHER_BROKER,
    STOCK_WORKERS,
    STORE_EMPTIED,
    UNVERIFIED_WORKERS,
    has_all_starts,
    may_lack_starts,
)
from pytest_manifest.ledger.facts import MERGED_SHARDS, SEGMENTS, SHARD, segments_json
from pytest_manifest.ledger.histories import History
from pytest_manifest.ledger.origins import TaskRuns
from pytest_manifest.ledger.places import (
    NETWORK_FILE_SYSTEMS,
    file_system,
    find_runs_by_digest,
    find_runs_of_manifest,
    next_run_number,
    run_number_of_lock,
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
from pytest_manifest.ledger.store import Ledger
from pytest_manifest.ledger.union import merge_files
from pytest_manifest.ledger.versions import LEDGER_VERSION

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
    "SEGMENTS",
    "SHARD",
    "STOCK_WORKERS",
    "STORE_EMPTIED",
    "UNVERIFIED_WORKERS",
    "AttemptCost",
    "AttemptRow",
    "EntryVerdict",
    "HandedOn",
    "History",
    "Ledger",
    "RunInfo",
    "RunSegment",
    "RunStatus",
    "SendState",
    "Start",
    "StoredVerdict",
    "TaskRuns",
    "damaged",
    "file_system",
    "find_runs_by_digest",
    "find_runs_of_manifest",
    "has_all_starts",
    "info_rows",
    "may_lack_starts",
    "merge_files",
    "next_run_number",
    "run_number_of_lock",
    "segments_json",
    "utc_now",
]
