"""The ledger: a SQLite file a run, the record of what was planned, sent, started and judged.

One process writes (the one that dispatches or audits); any number may read while it does. A record
is committed before anyone acts on it, so a reader sees nothing that would not survive a crash.
"""

from pytest_manifest.ledger.accounts import BUDGET, OVER_BUDGET, Account
from pytest_manifest.ledger.doubts import (
    EMPTIED,
    GAVE_UP,
    OTHER_BROKER,
    PLAIN_WORKERS,
    STRANGERS,
    has_doubts,
    is_witnessed,
)
from pytest_manifest.ledger.facts import MERGED_SHARDS, PARTS, SHARD, parts_text
from pytest_manifest.ledger.histories import History
from pytest_manifest.ledger.origins import Origins
from pytest_manifest.ledger.places import (
    NETWORK_FILE_SYSTEMS,
    file_system,
    find_runs,
    find_runs_of,
    next_number,
    number_in,
)
from pytest_manifest.ledger.rows import (
    MERGED,
    UNFIT,
    AttemptRow,
    HandedOn,
    Judgement,
    Part,
    RunInfo,
    RunStatus,
    SendState,
    Settled,
    Start,
    damaged,
    info_rows,
    utc_now,
)
from pytest_manifest.ledger.store import Ledger
from pytest_manifest.ledger.union import unite
from pytest_manifest.ledger.versions import LEDGER_VERSION

__all__ = [
    "BUDGET",
    "EMPTIED",
    "GAVE_UP",
    "LEDGER_VERSION",
    "MERGED",
    "MERGED_SHARDS",
    "NETWORK_FILE_SYSTEMS",
    "OTHER_BROKER",
    "OVER_BUDGET",
    "PARTS",
    "PLAIN_WORKERS",
    "SHARD",
    "STRANGERS",
    "UNFIT",
    "Account",
    "AttemptRow",
    "HandedOn",
    "History",
    "Judgement",
    "Ledger",
    "Origins",
    "Part",
    "RunInfo",
    "RunStatus",
    "SendState",
    "Settled",
    "Start",
    "damaged",
    "file_system",
    "find_runs",
    "find_runs_of",
    "has_doubts",
    "info_rows",
    "is_witnessed",
    "next_number",
    "number_in",
    "parts_text",
    "unite",
    "utc_now",
]
