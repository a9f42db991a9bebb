"""Show the entries of a manifest, the verdicts of a run, or more of either: ``manifest show``."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.cli import arguments
from pytest_manifest.cli.arguments import complete_run
from pytest_manifest.cli.facts import show_facts
from pytest_manifest.cli.history import show_changes, show_history
from pytest_manifest.cli.output import write_rows
from pytest_manifest.cli.stored_run import (
    StoredRun,
    hide_secrets,
    hide_secrets_of_newest,
    runs_folder,
)
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import dump_entry, read_manifest
from pytest_manifest.reporting.descendants import not_known_of, runtime_of
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.shown import shown_entry, shown_text
from pytest_manifest.text import plural, seconds, short
from pytest_manifest.verdict.explanation import counts_text, number_of

Accepts = Callable[[Entry, VerdictStatus | None], bool]
_DEEPEST = 20
"""Depth from which tasks are no longer indented further."""


What = Annotated[
    str, typer.Argument(metavar="FILE|RUN|ENTRY", autocompletion=complete_run, show_default=False)
]
Statuses = Annotated[
    list[str] | None, typer.Option(metavar="STATUS", help="only these verdicts of a run")
]
Task = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this task; * stands for anything")
]
Tag = Annotated[str | None, typer.Option(metavar="TAG", help="only with this tag")]
Tree = Annotated[
    str | None,
    typer.Option(metavar="ENTRY", help="the tasks that the job of this entry of a run started"),
]
Facts = Annotated[bool, typer.Option("--facts", help="all that is recorded of ENTRY, in order")]
Run = Annotated[
    str, typer.Option(metavar="RUN", autocompletion=complete_run, help="the run of --facts")
]
Runs = Annotated[
    bool,
    typer.Option(
        "--runs", help="FILE's last runs, and its entries that fail, are flaky or slowing"
    ),
]
Last = Annotated[int, typer.Option(min=1, metavar="N", help="so many runs")]
Diff = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", autocompletion=complete_run, help="what has changed since this run"
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="with --runs or --diff: every entry")]


def show(
    what: What,
    status: Statuses = None,
    task: Task = None,
    tag: Tag = None,
    tree: Tree = None,
    facts: Facts = False,
    run: Run = "last",
    runs: Runs = False,
    last: Last = 10,
    diff: Diff = None,
    everything: Everything = False,
    limit: arguments.Limit = 50,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Show a manifest's entries or a run's verdicts.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    modes = {"--tree": tree is not None, "--facts": facts, "--runs": runs, "--diff": diff}
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise PlanError(f"{' and '.join(given)} show different things; choose one")
    path = Path(what)
    if facts:
        show_facts(what, StoredRun.named(run, folder), limit, json=json)
    elif runs:
        show_history(path, runs_folder(folder), last, limit, everything=everything, json=json)
    elif diff is not None:
        before, after = StoredRun.named(diff, folder), StoredRun.named(what, folder)
        show_changes(before, after, everything=everything, json=json)
    elif tree is not None:
        _show_tree(StoredRun.named(what, folder), tree, limit, json=json)
    else:
        accepts = _filter(status or (), task, tag)
        if not path.is_file() or path.suffix == ".sqlite":
            _show_run(StoredRun.named(what, folder), accepts, limit, json=json)
            return
        if status:
            raise PlanError(
                f"{path}: a manifest has no statuses; name a run, or leave out --status"
            )
        hide_secrets_of_newest(runs_folder(folder))
        _show_manifest(path, accepts, limit, json=json)


def _filter(statuses: list[str] | tuple[()], task: str | None, tag: str | None) -> Accepts:
    known = get_args(VerdictStatus)
    unknown = sorted(set(statuses).difference(known))
    if unknown:
        raise PlanError(
            f"--status: there is no status {unknown[0]!r}; there are: {', '.join(known)}"
        )
    return lambda entry, status: (
        (not statuses or (status or "pending") in statuses)
        and (task is None or fnmatchcase(entry.task, task))
        and (tag is None or tag in entry.tags)
    )


def _show_manifest(path: Path, accepts: Accepts, limit: int, *, json: bool) -> None:
    hide_secrets()
    manifest = read_manifest(path, lean=True)
    write_rows(
        ((line, shown_entry(entry)) for line, entry in manifest.numbered() if accepts(entry, None)),
        json=json,
        head={"manifest": str(path), "entries_in_all": len(manifest)},
        name="entries",
        document=lambda row: {"line": row[0], **from_json(dump_entry(row[1]))},
        title=[f"{path}: {plural(len(manifest), 'entry')}"],
        columns=("#line", "id", "task", "arguments", "tags"),
        cells=_entry_cells,
        limit=limit,
    )


def _entry_cells(row: tuple[int, Entry]) -> tuple[str, ...]:
    line, entry = row
    given = [short(value) for value in entry.args]
    given += [f"{name}={short(value)}" for name, value in entry.kwargs.items()]
    return str(line), entry.id, entry.task, ", ".join(given), " ".join(entry.tags)


def _show_run(run: StoredRun, accepts: Accepts, limit: int, *, json: bool) -> None:
    with run.read() as ledger:
        counts, status = ledger.verdicts.counts(), ledger.info.status
        trees = ledger.trees.statuses() if ledger.descendants.any() else {}
        reused = ledger.queries.reused_runs()
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    said += f" ({sum(reused.values())} reused)" if reused else ""
    said = f"{said or 'no verdict yet'}{'; ' + counts_text(trees) if trees else ''}"
    with run.records() as records:
        write_rows(
            (record for record in records if accepts(record.entry, record.kind)),
            json=json,
            head={
                "run": run.info.run,
                "manifest": str(run.info.manifest),
                "created_at": run.info.created_at.isoformat(),
                "status": status,
                "verdicts": {str(one): number for one, number in counts.items()},
                "reused": dict(reused),
                "descendants": {one or "pending": number for one, number in trees.items()},
            },
            name="entries",
            document=summary_fields,
            title=[f"run {run.info.run} of {run.info.manifest} ({status}): {said}"],
            columns=("status", "id", "task", "#runtime", "#attempts", "what happened"),
            cells=_record_cells,
            limit=limit,
        )


def _record_cells(record: EntryRecord) -> tuple[str, ...]:
    last = record.last
    runtime = None if last is None else last.runtime
    why = "" if record.reused_from is None else f"reused from run {record.reused_from.run}"
    if record.verdict is None:
        was_sent = last is not None and last.sent_at is not None
        seen = "sent" if last is None or last.started_at is None else "begun"
        pending = f"{seen}, and without a verdict" if was_sent else "not sent"
    else:
        pending = record.verdict.sentence
    return (
        record.kind or "pending",
        record.id,
        record.task,
        "" if runtime is None else seconds(runtime),
        str(len(record.attempts)),
        why if record.outcome == "passed" else pending,
    )


def _show_tree(stored: StoredRun, entry: str, limit: int, *, json: bool) -> None:
    """Print the tree of the entry's last attempt, at most ``limit`` of it, all where that is 0."""
    with stored.read() as ledger:
        attempts = ledger.attempts.of_entry(entry)
        if not attempts:
            raise stored.no_entry(entry)
        last = attempts[-1]
        counts = ledger.trees.statuses_of([last.task_id]).get(last.task_id, {})
        reason = not_known_of(ledger, last)
        said = [counts_text(counts)] if number_of(counts) or not reason else []
        said += [f"reused from run {last.reused_from.run}"] if last.reused_from is not None else []
        said += [f"descendants: {reason}"] if reason else []
        walked = list(ledger.trees.walk(last.task_id, limit))
        write_rows(
            walked,
            json=json,
            head={
                "run": stored.info.run,
                "entry": last.entry,
                "attempt": last.attempt,
                "task_id": last.task_id,
                "verdict": last.status,
            },
            name="descendants",
            document=lambda row: _tree_document(ledger, *row),
            title=[
                f"{entry} of run {stored.info.run} ({last.status or 'pending'}): {'; '.join(said)}"
            ],
            columns=("status", "task", "how", "task id", "#runtime", "what happened"),
            cells=lambda row: _tree_cells(ledger, *row),
            left_out=sum(counts.values()) - len(walked),
            rest="and {:,} more; --limit=0 shows all"
            if limit
            else "and {:,} whose parent is unknown",
        )


def _tree_document(ledger: Ledger, depth: int, one: Descendant) -> JsonValue:
    step = ledger.trees.step(one.task_id)
    moments = {
        "spawned_at": one.spawned_at,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
    }
    return {
        "depth": depth,
        "task_id": one.task_id,
        "parent": one.parent,
        "task": one.task,
        "how": one.how,
        "status": one.status,
        "sentence": None if one.verdict is None else shown_text(one.verdict.sentence),
        **{name: None if at is None else at.isoformat() for name, at in moments.items()},
        "runtime": runtime_of(step),
    }


def _tree_cells(ledger: Ledger, depth: int, one: Descendant) -> tuple[str, ...]:
    runtime = runtime_of(ledger.trees.step(one.task_id))
    passed = one.verdict is None or one.verdict.verdict == "passed"
    return (
        one.status or "pending",
        "  " * min(depth - 1, _DEEPEST) + one.task,
        one.how,
        one.task_id,
        "" if runtime is None else seconds(runtime),
        "" if passed or one.verdict is None else shown_text(one.verdict.sentence),
    )
