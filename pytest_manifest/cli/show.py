"""Show the entries of a manifest, or the verdicts of a run: filtered, and not too many.

Show the tasks that an entry's job started: ``manifest show RUN --tree=ENTRY``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar, get_args

from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.cli.output import AT_ONCE, say, write_rows_as_json, write_table
from pytest_manifest.cli.runs_folder import find_run, hide_secrets, hide_secrets_of_newest
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import AttemptRow, Descendant, Ledger
from pytest_manifest.manifest import dump_entry, read_manifest
from pytest_manifest.reporting.descendants import not_known_of, runtime_of
from pytest_manifest.reporting.terminal_layout import Sheet
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.shown import shown_entry, shown_text
from pytest_manifest.text import cells, plural, seconds, short
from pytest_manifest.verdict.explanation import counts_text, number_of

Row = TypeVar("Row")
_COLUMNS: Final = ("status", "task", "how", "task id", "#runtime", "what happened")
_STATUS, _TASK, _HOW, _ID, _RUNTIME, _WHY = range(len(_COLUMNS))
_LEAST: Final = 16
"""Columns that the name of a task has on a terminal, however narrow."""
_INDENT = "  "
_DEEPEST = 20
"""Depth from which tasks are no longer indented further."""


def show_tree(stored: StoredRun, entry: str, limit: int, *, json: bool) -> None:
    """Print the tree of the entry's last attempt, at most ``limit`` of it, all where that is 0."""
    with stored.read() as ledger:
        attempts = ledger.attempts.of_entry(entry)
        if not attempts:
            raise PlanError(
                f"run {stored.info.run}: there is no entry {entry!r} in it; its entries are shown "
                f"by manifest show {stored.info.run}"
            )
        last = attempts[-1]
        counts = ledger.trees.statuses_of([last.task_id]).get(last.task_id, {})
        all_of_them = sum(counts.values())
        walked = ledger.trees.walk(last.task_id, limit)
        if json:
            head = _head(stored, last)
            numbers = {"matching": all_of_them, "shown": 0}
            rows = _counted((_tree_document(ledger, *one) for one in walked), numbers)
            write_rows_as_json(head, "descendants", rows, numbers)
            return
        reason = not_known_of(ledger, last)
        said = [counts_text(counts)] if number_of(counts) or not reason else []
        said += [f"reused from run {last.reused_from.run}"] if last.reused_from is not None else []
        said += [f"descendants: {reason}"] if reason else []
        say(f"{entry} of run {stored.info.run} ({last.status or 'pending'}): {'; '.join(said)}")
        shown = {"shown": 0}
        found = _counted((_tree_cells(ledger, *one) for one in walked), shown)
        if sys.stdout.isatty():
            _write_lines(found, shutil.get_terminal_size().columns)
        else:
            write_table(_COLUMNS, found)
    left = all_of_them - shown["shown"]
    if left and limit:
        say(f"and {left:,} more; --limit=0 shows all")
    elif left:
        say(f"and {left:,} whose parent is unknown")


def _write_lines(rows: Iterable[Sequence[str]], width: int) -> None:
    left = iter(rows)
    while some := list(islice(left, AT_ONCE)):
        for line in tree_lines(some, width):
            say(line)


def tree_lines(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a line for each of these cells' rows, what happened below it, for such a terminal.

    How a task was started is left out where there is no room for it and the whole task id.
    """
    sheet = Sheet(width=width, terminal=True)
    wide = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    order = [_STATUS, _TASK, _RUNTIME, _HOW, _ID]
    if sum(wide[column] for column in order) + 2 * (len(order) - 1) > width:
        order.remove(_HOW)
    others = sum(wide[column] + 2 for column in order if column != _TASK)
    wide[_TASK] = min(wide[_TASK], max(width - others, _LEAST))
    for row in rows:
        shown = [*row]
        name = row[_TASK].lstrip()
        indent = row[_TASK][: len(row[_TASK]) - len(name)]
        shown[_TASK] = indent + sheet.cut(name, wide[_TASK] - len(indent))
        pads = {one: " " * max(wide[one] - cells(shown[one]), 0) for one in order}
        pads[_RUNTIME], shown[_RUNTIME] = "", pads[_RUNTIME] + shown[_RUNTIME]
        yield "  ".join(shown[one] + pads[one] for one in order).rstrip()
        if row[_WHY]:
            yield from sheet.wrapped(row[_WHY], indent=wide[_STATUS] + 2)


def _counted(rows: Iterable[Row], numbers: dict[str, int]) -> Iterator[Row]:
    for row in rows:
        numbers["shown"] += 1
        yield row


def _head(stored: StoredRun, last: AttemptRow) -> dict[str, JsonValue]:
    return {
        "run": stored.info.run,
        "entry": last.entry,
        "attempt": last.attempt,
        "task_id": last.task_id,
        "verdict": last.status,
    }


def _tree_document(ledger: Ledger, depth: int, one: Descendant) -> JsonValue:
    step = ledger.trees.step(one.task_id)
    moments = one.spawned_at, step.started_at, step.finished_at
    spawned, started, finished = (None if at is None else at.isoformat() for at in moments)
    return {
        "depth": depth,
        "task_id": one.task_id,
        "parent": one.parent,
        "task": one.task,
        "how": one.how,
        "status": one.status,
        "sentence": None if one.verdict is None else shown_text(one.verdict.sentence),
        "spawned_at": spawned,
        "started_at": started,
        "finished_at": finished,
        "runtime": runtime_of(step),
    }


def _tree_cells(ledger: Ledger, depth: int, one: Descendant) -> tuple[str, ...]:
    runtime = runtime_of(ledger.trees.step(one.task_id))
    passed = one.verdict is None or one.verdict.verdict == "passed"
    return (
        one.status or "pending",
        _INDENT * min(depth - 1, _DEEPEST) + one.task,
        one.how,
        one.task_id,
        "" if runtime is None else seconds(runtime),
        "" if passed or one.verdict is None else shown_text(one.verdict.sentence),
    )


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


def run(what: str, folder: Path, chosen: Filter, tree: str | None = None, *, json: bool) -> None:
    """Print the manifest's entries, or the run's verdicts, or what one of its entries started."""
    path = Path(what)
    if tree is not None:
        stored = StoredRun.open(find_run(what, folder))
        show_tree(stored, tree, chosen.limit, json=json)
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
    document: dict[str, JsonValue] = from_json(dump_entry(entry))
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
