"""List a run's entries by where they are, a few at a time, while it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.tables import PRESENT
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import BAD as BAD_OUTCOMES
from pytest_manifest.schema.statuses import STATUSES, in_sql

RUNNING: Final = "running"
WAITING: Final = "waiting"
UNSENT: Final = "not sent"
BAD: Final = "bad"
"""What did not pass: failed, or of an unknown fate."""

_BEGUN: Final = f"""
    EXISTS (SELECT 1 FROM facts f WHERE f.job = a.n AND f.kind = {Kind.STARTED:d} AND NOT f.aside)
"""  # noqa: S608 - fixed text
_WAS_SENT: Final = "a.state IN ('intent', 'sent', 'uncertain')"
_STATE: Final = f"""
    CASE WHEN v.status IS NOT NULL THEN v.status WHEN {_BEGUN} THEN '{RUNNING}'
        WHEN {_WAS_SENT} THEN '{WAITING}' ELSE '{UNSENT}' END
"""
_WHERE: Final[Mapping[str, str]] = {
    "": "1",
    BAD: f"v.status IN {in_sql(s for s, one in STATUSES.items() if one.outcome in BAD_OUTCOMES)}",
    RUNNING: f"v.status IS NULL AND {_BEGUN}",
    WAITING: f"v.status IS NULL AND {_WAS_SENT} AND NOT {_BEGUN}",
    UNSENT: f"v.status IS NULL AND NOT {_WAS_SENT} AND NOT {_BEGUN}",
    **{status: f"v.status = '{status}'" for status in STATUSES},
}
_NEWEST: Final = f"""
    FROM jobs a LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.entry")}
    WHERE a.name IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jobs b WHERE b.name = a.name AND b.attempt > a.attempt
    )
"""  # noqa: S608 - fixed text
_BY_WORKER: Final = f"""
    AND EXISTS (SELECT 1 FROM facts f WHERE f.job = a.n AND f.kind = {Kind.STARTED:d}
        AND NOT f.aside AND f.worker = ?)
"""  # noqa: S608 - fixed text
STATES: Final = frozenset(_WHERE)
"""Where an entry may be: "" anywhere, :data:`BAD`, a verdict's status, or on its way."""


@dataclass(frozen=True)
class Wanted:
    """A choice of entries: of a state of :data:`STATES`, begun by a worker of this name, with this
    text in their ids; of these ids, and of these numbers in the ledger, where some are given."""

    state: str = ""
    worker: str = ""
    text: str = ""
    names: Sequence[str] | None = None
    numbers: Sequence[int] | None = None


class Listing(LedgerPart):
    """Lists of entries, in the manifest's order."""

    def some(self, wanted: Wanted, after: int = 0, most: int = 200) -> list[tuple[str, str]]:
        """Return entry and state of the next ones that match, behind so many; 0: all."""
        where, values = _matching(wanted)
        query = f"SELECT a.name, {_STATE} {_NEWEST} {where} ORDER BY a.position, a.name"
        if most:
            query, values = f"{query} LIMIT ? OFFSET ?", [*values, most, after]
        return [(str(name), str(state)) for name, state in self._db.read(query, values)]

    def count(self, wanted: Wanted) -> int:
        """Count the entries that match."""
        where, values = _matching(wanted)
        return self._db.number(f"SELECT count(*) {_NEWEST} {where}", values)


def _matching(wanted: Wanted) -> tuple[str, list[str | int]]:
    where, values = f"AND {_WHERE[wanted.state]}", list[str | int]()
    if wanted.worker:
        where, values = where + _BY_WORKER, [*values, wanted.worker]
    if wanted.text:
        where, values = f"{where} AND instr(lower(a.name), ?)", [*values, wanted.text.lower()]
    some: dict[str, Sequence[str] | Sequence[int] | None]
    some = {"name": wanted.names, "entry": wanted.numbers}
    for column, given in some.items():
        if given is not None:
            where += f" AND a.{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - fixed text
            values.append(json.dumps(list(given), ensure_ascii=False))
    return where, values
