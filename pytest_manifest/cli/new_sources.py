"""Make entries of what is there already: an earlier run, or the schedule of Celery's beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from pydantic import JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import dump_entry
from pytest_manifest.schema import Entry
from pytest_manifest.schema.problems import problems
from pytest_manifest.schema.statuses import BAD, outcome_of
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
    """
    from pytest_manifest.run.repeating import Repeating

    manifest = run.manifest
    with run.read() as ledger:
        statuses = ledger.verdicts.statuses()
        names = [row.entry for row in ledger.attempts.newest() if row.entry in manifest]
        if failed:
            names = [
                name
                for name in names
                if outcome_of(statuses.get(name)) in BAD or statuses.get(name) == "skipped"
            ]
        if not names:
            raise PlanError(f"run {run.info.run}: none of its entries has failed")
        names.sort(key=manifest.position_of)
        refused = Repeating(ledger, manifest, names).refusals(unsafe=False)
        repeated = {one.entry for one in refused if one.may_repeat}
        risky = [name for name in names if name in repeated]
    gone = {name for name in manifest.ids if name not in set(names)} if failed else set()
    notes = []
    if risky:
        said = f"{plural(len(risky), 'entry')} may have run and {_be(risky)} not idempotent"
        notes.append(f"{said}: {listed([*map(repr, risky)], _SHOWN)}")
    return Made(_lines(run, names, gone), notes, {"might_run_twice": [*risky]})


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

    Raises PlanError for an app that has none, and for what cannot be an entry.
    """
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.urls import StackAddress

    loaded = load_app(StackAddress("", "", app, is_private=False))
    schedule: Mapping[str, Mapping[str, object]] = loaded.conf.beat_schedule or {}
    if not schedule:
        raise PlanError(f"{app} has no beat_schedule; give one, or another app by --app")
    left_out: dict[str, JsonValue] = {}
    lines = []
    for name, due in schedule.items():
        options = due.get("options")
        given = dict(options) if isinstance(options, Mapping) else {}
        if others := sorted(map(str, set(given).difference(_OPTIONS))):
            left_out[name] = [*others]
        lines.append(_of_beat(app, name, due, given))
    notes = [f"{name!r}: left out {_names(found)}" for name, found in left_out.items()]
    if notes:
        notes.append("an entry has no such options of a message: the task's, or its routes', hold")
    return Made(iter(lines), notes, {"left_out": left_out})


def _names(found: JsonValue) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _of_beat(
    app: str, name: str, due: Mapping[str, object], options: Mapping[str, object]
) -> bytes:
    """Return the line of an entry of the schedule."""
    fields: dict[str, object] = {"id": name, "task": due.get("task")}
    fields |= {key: due[key] for key in ("args", "kwargs") if due.get(key)}
    fields |= {key: _moment(options[key]) for key in _OPTIONS if options.get(key) is not None}
    fields["meta"] = {"schedule": str(due.get("schedule"))}
    try:
        document = {key: to_jsonable_python(value) for key, value in fields.items()}
        return dump_entry(Entry.model_validate(document))
    except ValidationError as error:
        why = "; ".join(problems(error, Entry))
    except ValueError as error:  # an argument that JSON does not have
        why = short(str(error))
    raise PlanError(f"{app}: beat_schedule[{name!r}] cannot be an entry: {why}")


def _moment(value: object) -> object:
    """Return a duration in seconds, and a moment as text, as manifests have them."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, date) else value
