"""The ledger: one SQLite file a run, which records what was planned, sent, started and decided.

One process writes (the one that dispatches or audits); any number may read at the same time. A
record is committed before anything is done about it, so a reader sees nothing that a crash undoes.
"""

from pytest_manifest.ledger.attempts import Attempts
from pytest_manifest.ledger.events import WorkerEvents
from pytest_manifest.ledger.files import (
    LEDGER_VERSION,
    NETWORK_FILE_SYSTEMS,
    file_system,
    find_runs_by_digest,
    find_runs_of_manifest,
    next_run_number,
    run_number_of_lock,
)
from pytest_manifest.ledger.merge import merge_files
from pytest_manifest.ledger.queries import (
    BUDGET,
    OVER_BUDGET,
    AttemptCost,
    AttemptCosts,
    BulkQueries,
    Histories,
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
    SEGMENTS,
    SHARD,
    STOCK_WORKERS,
    STORE_EMPTIED,
    UNVERIFIED_WORKERS,
    RunMetadata,
    TaskRuns,
    has_all_starts,
    may_lack_starts,
    segments_json,
)
from pytest_manifest.ledger.verdicts import Verdicts

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


class Ledger(RunMetadata, Attempts, WorkerEvents, AttemptCosts, Verdicts, Histories, BulkQueries):
    """A run's ledger; see :meth:`create` and :meth:`open`. Use one instance per thread.

    A method that writes does so atomically: in the caller's :meth:`transaction`, or in its own. All
    raise LedgerError where the file cannot be read or written.
    """
