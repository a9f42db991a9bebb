"""Show the entries of a manifest, or the verdicts of a run: filtered, and not too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import msgspec
from pydantic import JsonValue

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.cli.output import say, write_rows_as_json, write_table
from pytest_manifest.cli.runs_folder import find_run, hide_secrets, hide_secrets_of_newest
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import dump_entry, read_manifest
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.shown import shown_entry
from pytest_manifest.text import plural, seconds, short
from pytest_manifest.verdict.descendants import counts_text


@dataclass
class Filter:
    """The shown entries: with one of the ``statuses``, of a ``task`` (a pattern), with a
    ``tag``; ``limit``: at most so many, 0: all. It counts those that match."""

    statuses: frozenset[str] = frozenset()
    task: str | None = None
    tag: str | None = None
    limit: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"matching": 0, "shown": 0})

    def __post_init__(self) -> None:
        known = get_args(VerdictStatus)
        unknown = sorted(self.statuses.difference(known))
        if unknown:
            raise PlanError(
                f"--status: there is no status {unknown[0]!r}; there are: {', '.join(known)}"
            )

    def accepts(self, task: str) -> bool:
        """Return whether entries of this task are shown."""
        return self.task is None or fnmatchcase(task, self.task)

    def count(self) -> bool:
        """Count an entry that matches; return whether it is one of those that are shown."""
        self.counts["matching"] += 1
        shown = not self.limit or self.counts["shown"] < self.limit
        self.counts["shown"] += shown
        return shown

    def rest(self) -> str | None:
        """Return a line on what is not shown, None where all is."""
        left = self.counts["matching"] - self.counts["shown"]
        return f"and {left:,} more; --limit=0 shows all" if left else None


def show_facts(entry: str, run: str, folder: Path, limit: int, *, json: bool) -> None:
    """Print what a run's ledger has of one of its entries."""
    from pytest_manifest.cli import facts as command

    command.run(StoredRun.open(find_run(run, folder)), entry, limit, json=json)


def run(what: str, folder: Path, chosen: Filter, tree: str | None = None, *, json: bool) -> None:
    """Print the manifest's entries, or the run's verdicts, or what one of its entries started."""
    path = Path(what)
    if tree is not None:
        from pytest_manifest.cli import tree as command

        stored = StoredRun.open(find_run(what, folder))
        command.run(stored, tree, chosen.limit, json=json)
        return
    if path.is_file() and path.suffix != ".sqlite":
        hide_secrets_of_newest(folder)
        if chosen.statuses:
            raise PlanError(
                f"{path}: a manifest has no statuses; name a run, or leave out --status"
            )
        _show_manifest(path, chosen, json=json)
    else:
        _show_run(StoredRun.open(find_run(what, folder)), chosen, json=json)


def _show_manifest(path: Path, chosen: Filter, *, json: bool) -> None:
    hide_secrets()
    manifest = read_manifest(path, lean=True)
    entries = (
        (line, shown_entry(entry))
        for line, entry in manifest.numbered()
        if chosen.accepts(entry.task)
        and (chosen.tag is None or chosen.tag in entry.tags)
        and chosen.count()
    )
    if json:
        head: dict[str, JsonValue] = {"manifest": str(path), "entries_in_all": len(manifest)}
        rows = ({"line": line, **_document(entry)} for line, entry in entries)
        write_rows_as_json(head, "entries", rows, chosen.counts)
        return
    say(f"{path}: {plural(len(manifest), 'entry')}")
    cells = (
        (str(line), entry.id, entry.task, _arguments(entry), " ".join(entry.tags))
        for line, entry in entries
    )
    write_table(("#line", "id", "task", "arguments", "tags"), cells)
    _say_rest(chosen)


def _document(entry: Entry) -> dict[str, JsonValue]:
    """Return an entry as its manifest has it."""
    document: dict[str, JsonValue] = msgspec.json.decode(dump_entry(entry))
    return document


def _arguments(entry: Entry) -> str:
    given = [short(value) for value in entry.args]
    given += [f"{name}={short(value)}" for name, value in entry.kwargs.items()]
    return ", ".join(given)


def _show_run(run: StoredRun, chosen: Filter, *, json: bool) -> None:
    with run.read() as ledger:
        counts, status = ledger.verdicts.counts(), ledger.info.status
        trees = ledger.trees.statuses() if ledger.descendants.any() else {}
        reused = ledger.queries.reused_runs()
    with _matching(run, chosen) as records:
        if json:
            head: dict[str, JsonValue] = {
                "run": run.info.run,
                "manifest": str(run.info.manifest),
                "created_at": run.info.created_at.isoformat(),
                "status": status,
                "verdicts": {str(one): number for one, number in counts.items()},
                "reused": dict(reused),
                "descendants": {one or "pending": number for one, number in trees.items()},
            }
            rows = (summary_fields(record) for record in records)
            write_rows_as_json(head, "entries", rows, chosen.counts)
            return
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        said += f" ({sum(reused.values())} reused)" if reused else ""
        said = f"{said or 'no verdict yet'}{'; ' + counts_text(trees) if trees else ''}"
        say(f"run {run.info.run} of {run.info.manifest} ({status}): {said}")
        columns = ("status", "id", "task", "#runtime", "#attempts", "what happened")
        write_table(columns, map(_cells, records), notes=True)
    _say_rest(chosen)


@contextmanager
def _matching(run: StoredRun, chosen: Filter) -> Iterator[Iterator[EntryRecord]]:
    """Open the records of the run that match, as far as they are shown."""
    opened: AbstractContextManager[Iterator[EntryRecord]] = run.records()
    with opened as records:
        yield (
            record
            for record in records
            if (not chosen.statuses or (record.kind or "pending") in chosen.statuses)
            and chosen.accepts(record.task)
            and (chosen.tag is None or chosen.tag in record.entry.tags)
            and chosen.count()
        )


def _cells(record: EntryRecord) -> tuple[str, ...]:
    runtime = None if record.last is None else record.last.runtime
    return (
        record.kind or "pending",
        record.id,
        record.task,
        "" if runtime is None else seconds(runtime),
        str(len(record.attempts)),
        _what_happened(record),
    )


def _what_happened(record: EntryRecord) -> str:
    """Return why an entry has not passed, or the run in which it has where that is another."""
    if record.outcome != "passed":
        return record.sentence or ""
    return "" if record.reused_from is None else f"reused from run {record.reused_from.run}"


def _say_rest(chosen: Filter) -> None:
    rest = chosen.rest()
    if rest is not None:
        say(rest)
