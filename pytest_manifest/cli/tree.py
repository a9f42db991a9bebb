"""Show the tasks that an entry's job started: ``manifest show RUN --tree=ENTRY``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from pydantic import JsonValue

from pytest_manifest.cli.output import AT_ONCE, say, write_rows_as_json, write_table
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import AttemptRow, Descendant, Ledger
from pytest_manifest.reporting.descendants import not_known_of, runtime_of
from pytest_manifest.reporting.terminal_layout import Sheet, padded
from pytest_manifest.schema.shown import shown_text
from pytest_manifest.text import cells, seconds
from pytest_manifest.verdict.descendants import counts_text, number_of

Row = TypeVar("Row")
_COLUMNS: Final = ("status", "task", "how", "task id", "#runtime", "what happened")
_STATUS, _TASK, _HOW, _ID, _RUNTIME, _WHY = range(len(_COLUMNS))
_LEAST: Final = 16
"""Columns that the name of a task has on a terminal, however narrow."""
_INDENT = "  "
_DEEPEST = 20
"""Depth from which tasks are no longer indented further."""


def run(stored: StoredRun, entry: str, limit: int, *, json: bool) -> None:
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
            rows = _counted((_document(ledger, *one) for one in walked), numbers)
            write_rows_as_json(head, "descendants", rows, numbers)
            return
        reason = not_known_of(ledger, last)
        said = [counts_text(counts)] if number_of(counts) or not reason else []
        said += [f"reused from run {last.reused_from.run}"] if last.reused_from is not None else []
        said += [f"descendants: {reason}"] if reason else []
        say(f"{entry} of run {stored.info.run} ({last.status or 'pending'}): {'; '.join(said)}")
        shown = {"shown": 0}
        found = _counted((_cells(ledger, *one) for one in walked), shown)
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
        parts = [padded(shown[one], wide[one], right=one == _RUNTIME) for one in order]
        yield "  ".join(parts).rstrip()
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


def _document(ledger: Ledger, depth: int, one: Descendant) -> JsonValue:
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


def _cells(ledger: Ledger, depth: int, one: Descendant) -> tuple[str, ...]:
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
