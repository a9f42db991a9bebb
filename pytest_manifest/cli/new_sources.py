"""Make entries of what is there already: an earlier run, or the schedule of Celery's beat."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from pydantic import JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import Manifest, dump_entry
from pytest_manifest.schema import Entry
from pytest_manifest.schema.problems import problems
from pytest_manifest.schema.statuses import BAD, VerdictStatus, outcome_of
from pytest_manifest.text import listed, plural, short

_OPTIONS: Final = ("queue", "priority", "countdown", "eta", "expires", "headers")
"""Options of a message that an entry has, too, under the same name."""
_SHOWN: Final = 5


@dataclass
class Made:
    """The lines of entries, and what is to be said of them: ``notes``, and by name for programs."""

    lines: Iterator[bytes]
    notes: list[str] = field(default_factory=list)
    document: dict[str, JsonValue] = field(default_factory=dict)


def of_run(run: StoredRun, *, failed: bool) -> Made:
    """Return a run's entries as they were: all, or those that failed or were skipped for it.

    Ids stay as they are, so that an entry keeps its history. What has passed is waited for no more.
    Left out is what waits for an entry that has neither passed nor failed, and what waits for that.
    """
    from pytest_manifest.run.repeating import Repeating

    manifest = run.manifest
    with run.read() as ledger:
        statuses = ledger.verdicts.statuses()
        in_run = [row.entry for row in ledger.attempts.newest() if row.entry in manifest]
        names, left = in_run, dict[str, str]()
        if failed:
            names = [
                name
                for name in in_run
                if outcome_of(statuses.get(name)) in BAD or statuses.get(name) == "skipped"
            ]
            left = _held_back(manifest, in_run, names, statuses)
        notes = [f"left out {name!r}: {why}" for name, why in left.items()]
        names = [name for name in names if name not in left]
        if not names:
            why = "; ".join(notes[:_SHOWN]) or "none of its entries has failed"
            raise PlanError(f"run {run.info.run}: {why}")
        names.sort(key=manifest.position_of)
        refused = Repeating(ledger, manifest, names).refusals(unsafe=False)
        repeated = {one.entry for one in refused if one.may_repeat}
        risky = [name for name in names if name in repeated]
    gone = {name for name in manifest.ids if name not in set(names)} if failed else set()
    if risky:
        said = f"{plural(len(risky), 'entry')} may have run and {_be(risky)} not idempotent"
        notes.append(f"{said}: {listed([*map(repr, risky)], _SHOWN)}")
    document: dict[str, JsonValue] = {"might_run_twice": [*risky], "entries_left_out": {**left}}
    return Made(_lines(run, names, gone), notes, document)


def _held_back(
    manifest: Manifest,
    in_run: Collection[str],
    names: Collection[str],
    statuses: Mapping[str, VerdictStatus],
) -> dict[str, str]:
    """Return which of these entries of a run wait for one that has not passed and is not among
    them, or for one that waits so, and for which."""
    waiting: dict[str, list[str]] = {}
    for entry in manifest.some(names):
        for one in entry.after:
            waiting.setdefault(one, []).append(entry.id)
    missing = set(in_run).difference(names)
    fallen = deque(
        one for one in waiting if one in missing and outcome_of(statuses.get(one)) != "passed"
    )
    left: dict[str, str] = {}
    while fallen:
        culprit = fallen.popleft()
        how = "is left out" if culprit in left else "has neither passed nor failed"
        status = f" ({statuses[culprit]})" if culprit in missing and culprit in statuses else ""
        for name in waiting.get(culprit, ()):
            if name not in left:
                left[name] = f"it waits for {culprit!r}, which {how}{status}"
                fallen.append(name)
    return left


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _lines(run: StoredRun, names: Sequence[str], gone: set[str]) -> Iterator[bytes]:
    for line in run.manifest.lines(names):
        entry = run.manifest.parse(line.raw)
        if gone.isdisjoint(entry.after):
            yield line.raw.rstrip(b"\r\n")
        else:
            left = [name for name in entry.after if name not in gone]
            yield dump_entry(entry.model_copy(update={"after": left}))


def of_beat(app: str) -> Made:
    """Return an entry for each of an app's ``beat_schedule``, by its name, with when it is due.

    What cannot be an entry is left out, and named. Raises PlanError for an app without a schedule,
    and where nothing is left.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.urls import StackAddress

    loaded = load_app(StackAddress("", "", app, is_private=False))
    schedule: Mapping[object, object] = loaded.conf.beat_schedule or {}
    if not schedule:
        raise PlanError(f"{app} has no beat_schedule; give one, or another app by --app")
    options: dict[str, JsonValue] = {}
    unfit: dict[str, JsonValue] = {}
    marked: list[str] = []
    lines = []
    for name, due in schedule.items():
        try:
            made = _of_beat(name, due, str(loaded.conf.task_serializer))
        except PlanError as error:
            unfit[str(name)] = str(error)
            continue
        lines.append(made.line)
        if made.left_out:
            options[str(name)] = [*made.left_out]
        if made.is_marked:
            marked.append(repr(name))
    notes = [f"{name!r}: left out {_names(found)}" for name, found in options.items()]
    if notes:
        notes.append("an entry has no such options of a message: the task's, or its routes', hold")
    if marked:
        said = f"{listed(marked, _SHOWN)}: arguments that JSON lacks are written with the marks"
        notes.append(f"{said} of Celery's JSON, so that the task gets what beat gives it")
    notes += [f"left out {name!r}, which cannot be an entry: {why}" for name, why in unfit.items()]
    if not lines:
        raise PlanError(f"{app}: nothing of beat_schedule is written; {'; '.join(notes[:_SHOWN])}")
    return Made(iter(lines), notes, {"left_out": options, "entries_left_out": unfit})


def _names(found: JsonValue) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


@dataclass(frozen=True)
class _Scheduled:
    """An entry of the schedule: its line, the options that it cannot have, and whether arguments
    have marks for what JSON lacks."""

    line: bytes
    left_out: list[str]
    is_marked: bool


def _of_beat(name: object, due: object, serializer: str) -> _Scheduled:
    """Return what an item of the schedule comes to. Raises PlanError where that is no entry.

    ``serializer``: the app's, of messages.
    """
    from pytest_manifest.broker.messages import in_celerys_json
    from pytest_manifest.broker.routing import queue_name

    if not isinstance(due, Mapping):
        raise PlanError("it is no mapping with a task and a schedule")
    given = due.get("options")
    options = dict(given) if isinstance(given, Mapping) else {}
    if (queue := queue_name(options)) is not None:
        options["queue"] = queue
    fields: dict[str, object] = {"id": name, "task": due.get("task")}
    arguments = {key: due[key] for key in ("args", "kwargs") if due.get(key)}
    fields |= {key: _option(options[key]) for key in _OPTIONS if options.get(key) is not None}
    fields["meta"] = {"schedule": str(due.get("schedule"))}
    is_marked = not _is_json(arguments)
    if is_marked and serializer != "json":
        raise PlanError(f"JSON lacks what its arguments hold, which the app sends as {serializer}")
    try:
        fields |= in_celerys_json(arguments)
        document = {key: to_jsonable_python(value) for key, value in fields.items()}
        line = dump_entry(Entry.model_validate(document))
    except ValidationError as error:
        raise PlanError("; ".join(problems(error, Entry))) from error
    except (TypeError, ValueError) as error:  # as of a set, which beat could not send, either
        raise PlanError(short(str(error))) from error
    return _Scheduled(line, sorted(map(str, set(options).difference(_OPTIONS))), is_marked)


def _is_json(arguments: object) -> bool:
    """Return whether JSON has all of these; that it has no NaN is said where they are written."""
    try:
        json.dumps(arguments)
    except (TypeError, ValueError):
        return False
    return True


def _option(value: object) -> object:
    """Return a duration in seconds, and a moment as text, as manifests have them."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, date) else value
