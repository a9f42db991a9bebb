"""Hold the records of runs against what the project promises of them: ``manifest check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import typer
from pydantic import JsonValue

from pytest_manifest.cli import FOUND
from pytest_manifest.cli.output import say, write_json
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.run.audit import record_size, violations
from pytest_manifest.run.invariants import Violation
from pytest_manifest.text import plural, short


def run(ledgers: Sequence[Path], *, json: bool, limit: int) -> None:
    """Print what each record breaks; end with status FOUND where one breaks something."""
    documents: list[JsonValue] = []
    broken = False
    for path in ledgers:
        stored = StoredRun.open(path)
        with stored.read() as ledger, closing(violations(ledger, stored.manifest)) as found:
            size = record_size(ledger)
            shown, number = _first(found, limit)
        broken = broken or number > 0
        if json:
            documents.append(_document(stored, size.entries, size.verdicts, shown, number))
            continue
        for one in shown:
            of = f" entry {short(one.entry)}" if one.entry else ""
            say(f"{one.promise}:{of} {one.sentence}")
        if number > len(shown):
            say(f"... and {number - len(shown):,} more; --limit=0 shows all")
        state = "is consistent" if not number else f"has {plural(number, 'contradiction')}"
        entries, verdicts = plural(size.entries, "entry"), plural(size.verdicts, "verdict")
        say(f"run {stored.info.run}: its record {state}: {entries}, {verdicts}")
    if json:
        write_json({"runs": documents})
    if broken:
        raise typer.Exit(FOUND)


def _first(found: Iterator[Violation], limit: int) -> tuple[Sequence[Violation], int]:
    """Return the first ``limit`` of these (0: all), and how many there are."""
    shown = list(islice(found, limit or None))
    return shown, len(shown) + sum(1 for _ in found)


def _document(
    stored: StoredRun, entries: int, verdicts: int, shown: Sequence[Violation], number: int
) -> JsonValue:
    broken: list[JsonValue] = [
        {"promise": one.promise, "entry": one.entry or None, "sentence": one.sentence}
        for one in shown
    ]
    return {
        "run": stored.info.run,
        "entries": entries,
        "verdicts": verdicts,
        "violations": number,
        "shown": broken,
    }
