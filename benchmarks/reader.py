"""What following a run costs: a look at one of 40,000 entries, and all looks together.

    python -m benchmarks.reader [--entries=N] [--json=FILE]

A ledger is made up as a run writes it, some entries at a time, and a reader looks after each time,
as ``manifest status --follow`` and the live page do each second. Told are a look at the end against
one at a tenth of the entries, of as many new ones, and the processor time of all looks against
reading the same receipts once (``json.loads``). One entry in fifty has failed in some groups.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import audit
from benchmarks.side_by_side import Figure, figure, tell

ENTRIES: Final = 40_000
STEP: Final = 100
"""Entries that are judged between two looks."""
LOOKS: Final = 20
"""Looks of which a median is taken, at both ends."""
MOST_GROWTH: Final = 2.0
MOST_MS: Final = 5.0


def measure(entries: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took, size = follow(folder, entries)
        early, late = took[entries // STEP // 10 - LOOKS // 2 :][:LOOKS], took[-LOOKS:]
        once = read_receipts(folder, entries)
    return [
        figure(
            f"a look at {entries:,} entries",
            f"one at {entries // 10:,}",
            [median(late) / median(early)],
            MOST_GROWTH,
            at_most=True,
            ms=median(late) * 1e3,
            bytes=size,
        ),
        figure(
            f"following {entries:,} entries",
            "reading their receipts once",
            [sum(took) / once],
            us_an_entry=sum(took) / entries * 1e6,
        ),
    ]


def follow(folder: Path, entries: int) -> tuple[list[float], int]:
    """Return the processor time (s) of each look, and the size of the last document."""
    from pytest_manifest.analysis.following import RunReader
    from pytest_manifest.ledger import Ledger, RunInfo
    from pytest_manifest.manifest import write_manifest
    from pytest_manifest.run.changes import keep_manifest
    from pytest_manifest.schema import Header

    manifest = write_manifest(
        folder / "m.jsonl", Header(workflow="made_up"), map(audit.entry, range(entries))
    )
    path = folder / f"{audit.RUN}.sqlite"
    info = RunInfo(
        *(audit.RUN, manifest.path, manifest.sha256, "made_up", None, entries, audit.BEGUN),
        *("", "", True, 60),
    )
    took: list[float] = []
    with Ledger.create(path, info) as ledger:
        keep_manifest(manifest, path)
        for first in range(0, entries, audit.BATCH):
            audit.plan(ledger, range(first, min(first + audit.BATCH, entries)))
        with RunReader(path) as reader:
            reader.look()
            for first in range(0, entries, STEP):
                audit.record(ledger, range(first, min(first + STEP, entries)))
                began = time.process_time()
                found = reader.look()
                took.append(time.process_time() - began)
    return took, len(found.model_dump_json())


def read_receipts(folder: Path, entries: int) -> float:
    """Return the processor time (s) in which their receipts are read once."""
    from pytest_manifest.ledger import Ledger

    with Ledger.open(folder / f"{audit.RUN}.sqlite") as ledger:
        texts = [text for text, _ in ledger.queries.raw_receipts()]
    assert len(texts) == entries
    began = time.process_time()
    for text in texts:
        json.loads(text)
    return time.process_time() - began


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.entries), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
