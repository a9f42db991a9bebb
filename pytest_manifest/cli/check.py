"""Hold the records of runs against what the project promises of them: ``manifest check``."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import typer
from pydantic import JsonValue

from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.output import say, write_json
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.text import plural, short


def check(
    runs: arguments.RunIds,
    limit: arguments.Limit = 50,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Check the records of runs: what is promised of them holds.

    Each job sent once, no pass without its receipt, a verdict for each entry; the exit status is 1
    where a record breaks a promise. RUN is a run's id, the beginning of one, "last", or the path of
    a ledger.
    """
    from pytest_manifest.run.audit import record_size, violations

    documents: list[JsonValue] = []
    broken = False
    for name in runs:
        stored = StoredRun.named(name, folder)
        with stored.read() as ledger, closing(violations(ledger, stored.manifest)) as found:
            size = record_size(ledger)
            shown = list(islice(found, limit or None))
            number = len(shown) + sum(1 for _ in found)
        documents.append(
            {
                "run": stored.info.run,
                "entries": size.entries,
                "verdicts": size.verdicts,
                "violations": number,
                "shown": [
                    {"promise": one.promise, "entry": one.entry or None, "sentence": one.sentence}
                    for one in shown
                ],
            }
        )
        broken = broken or number > 0
        if json:
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
