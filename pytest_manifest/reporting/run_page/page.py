"""Write a page from top to bottom, in one pass over the run's records."""

from __future__ import annotations

import base64
import gzip
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from pytest_manifest.analysis.comparison import Comparison
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.statistics import Statistics, statistics
from pytest_manifest.ledger import RunInfo, RunSegment
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_page.assets import page_parts
from pytest_manifest.reporting.run_page.columns import Columns
from pytest_manifest.reporting.run_page.details import details
from pytest_manifest.reporting.run_page.figures import (
    comparison_figures,
    figures,
    run_document,
)
from pytest_manifest.reporting.run_page.text import script_json, visible

BLOCK: Final = 200
"""Entries whose details are compressed together; opening one unpacks its block."""
DETAILS_BUDGET: Final = 4_500_000
"""Bytes of a page for details; table, plots and libraries take 1.2 MB at 10,000 entries."""
LONGEST: Final = 20_000
SHORTEST: Final = 300
"""Characters to which a passed entry's text is cut, at most and at least."""
FORMAT: Final = 1


@dataclass(frozen=True)
class PageFacts:
    """The data of a page beside the records of its entries."""

    info: RunInfo
    status: str
    expected: int
    """Number of records that will come, which share the bytes for details."""
    remarks: Sequence[str] = ()
    comparison: Comparison | None = None
    parts: Sequence[RunSegment] = ()
    written: datetime = field(default_factory=lambda: datetime.now(UTC))


def write_page(path: Path, facts: PageFacts, records: Iterable[EntryRecord]) -> Statistics:
    """Write the page, whole or not at all; return the statistics of the same pass.

    Raises OSError if it cannot be written.
    """
    parts = page_parts()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(parts.before(html.escape(visible(_title(facts.info)))))
        body = _Body(file, facts)
        found = statistics(body.written(records), facts.info, facts.parts)
        body.finish(found)
        file.write(parts.after())
    return found


def _title(info: RunInfo) -> str:
    plan = ":".join(part for part in (info.workflow, info.mode) if part)
    return f"{plan or info.manifest.name} - run {info.run}"


class _Body:
    """Write details in blocks as records come, then everything else."""

    def __init__(self, file: IO[bytes], facts: PageFacts) -> None:
        self._file = file
        self._facts = facts
        self._columns = Columns(facts.info.created_at)
        self._block: list[dict[str, object]] = []
        self._blocks = 0
        self._limit = _limit_at_first(facts.expected)
        self._spent = 0

    def written(self, records: Iterable[EntryRecord]) -> Iterator[EntryRecord]:
        """Yield the same records; each is in the page when the next one is asked for."""
        for record in records:
            self._columns.add(record)
            self._block.append(details(record, self._columns.since, self._limit))
            if len(self._block) == BLOCK:
                self._close_block()
            yield record

    def _close_block(self) -> None:
        packed = gzip.compress(script_json(self._block).encode(), compresslevel=6, mtime=0)
        block = base64.b64encode(packed)
        self._file.write(b'<script type="text/plain" id="details-%d">' % self._blocks)
        self._file.write(block)
        self._file.write(b"</script>\n")
        self._blocks += 1
        self._spent += len(block)
        self._limit = self._next_limit(len(self._block))
        self._block = []

    def _next_limit(self, just_now: int) -> int:
        """Return the limit at which the entries left would use the bytes left, within bounds.

        It supposes that their texts compress as well as those so far.
        """
        done = len(self._columns.ids)
        rest = max(self._facts.expected - done, just_now)
        share = (DETAILS_BUDGET - self._spent) / rest
        taken = self._spent / done
        return int(min(max(self._limit * share / taken, SHORTEST), LONGEST))

    def finish(self, found: Statistics) -> None:
        """Close the last block, and write the data."""
        if self._block:
            self._close_block()
        facts = self._facts
        self._columns.number_causes(found.causes)
        document = {
            "format": FORMAT,
            "run": run_document(facts.info, facts.status, facts.remarks, facts.written),
            "figures": figures(found),
            "comparison": None
            if facts.comparison is None
            else comparison_figures(facts.comparison),
            "details": {"size": BLOCK, "blocks": self._blocks},
            **self._columns.document(),
        }
        self._file.write(b'<script type="application/json" id="data">')
        self._file.write(script_json(document).encode())
        self._file.write(b"</script>\n")


def _limit_at_first(entries: int) -> int:
    """Return the first limit, as if nothing could be compressed; the next ones are measured."""
    return int(min(max(DETAILS_BUDGET / max(entries, 1) / 2, SHORTEST * 4), LONGEST))
