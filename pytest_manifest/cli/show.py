"""Show the entries of a manifest, the verdicts of a run, or more of either: ``manifest show``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.analysis.throttles import actions_in, throttles_in
from pytest_manifest.cli import arguments
from pytest_manifest.cli.arguments import complete_run
from pytest_manifest.cli.history import show_changes, show_history
from pytest_manifest.cli.output import say, write_rows
from pytest_manifest.cli.stored_run import (
    StoredRun,
    hide_secrets,
    hide_secrets_of_newest,
    runs_folder,
)
from pytest_manifest.errors import ManifestError, PlanError
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.ledger.facts import document_of
from pytest_manifest.ledger.jobs import LoadedAttempt
from pytest_manifest.manifest import dump_entry, read_manifest
from pytest_manifest.redaction.documents import redacted
from pytest_manifest.reporting.descendants import not_known_of, runtime_of
from pytest_manifest.reporting.figures import action_phrases, slowed_phrases
from pytest_manifest.schema import Entry, VerdictStatus, shown
from pytest_manifest.schema.facts import Ended, HandedOn, Job, SendResult, Started, Stored, Withheld
from pytest_manifest.schema.run_facts import JobFact, RunFact, TaskFact
from pytest_manifest.text import plural, seconds, short
from pytest_manifest.verdict.explanation import counts_text, number_of
from pytest_manifest.verdict.judging import Judging
from pytest_manifest.verdict.reasons import RULES, UNEXPLAINED, Reason
from pytest_manifest.verdict.tree import ByDescendant

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
    typer.Option("--runs", help="FILE's last runs, as 'manifest history' shows them"),
]
Last = Annotated[int, typer.Option(min=1, metavar="N", help="so many runs")]
Diff = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", autocompletion=complete_run, help="what has changed since this run"
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="with --diff: every entry")]


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
        show_history(path, runs_folder(folder), last, limit, json=json)
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
        (
            (line, shown.shown_entry(entry))
            for line, entry in manifest.numbered()
            if accepts(entry, None)
        ),
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
        throttled = throttles_in(ledger, run.info.run)
        actions = actions_in(ledger, run.info.run)
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
                "throttled": [one.model_dump(mode="json") for one in throttled],
                "actions": [one.model_dump(mode="json") for one in actions],
            },
            name="entries",
            document=summary_fields,
            title=[
                f"run {run.info.run} of {run.info.manifest} ({status}): {said}",
                *slowed_phrases(throttled),
                *action_phrases(actions),
            ],
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
        "sentence": None if one.verdict is None else shown.shown_text(one.verdict.sentence),
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
        "" if passed or one.verdict is None else shown.shown_text(one.verdict.sentence),
    )


# All that a ledger has of an entry, in order

_OF_RECEIPT: Final = ("state", "attempt", "worker", "pid", "runtime", "error")
"""Fields of a receipt that a person is shown; a program gets all."""


@dataclass(frozen=True, slots=True)
class FactLine:
    """A fact, or what is shown as one: an attempt, a descendant or a verdict."""

    seq: int
    at: datetime
    source: str
    task_id: str
    job: str
    """The job as a person is shown it; "" of what is of the run."""
    what: str
    fields: Mapping[str, JsonValue]

    def document(self) -> dict[str, JsonValue]:
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "source": self.source,
            "task_id": self.task_id or None,
            "what": self.what,
            "fields": dict(self.fields),
        }


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """All that a ledger has of an entry, and the rule by which it decides.

    ``work``: the entry, None where its manifest cannot be read; ``sent``: how many attempts were.
    """

    status: VerdictStatus | None
    work: Entry | None
    rule: dict[str, JsonValue] | None
    lines: Sequence[FactLine]
    task_ids: Sequence[str]
    sent: int


def facts_of(stored: StoredRun, entry: str) -> EntryFacts:
    """Read what a run has of an entry. Raises PlanError where it has no such entry."""
    with stored.read() as ledger:
        attempts = ledger.jobs.of_entry(entry)
        if not attempts:
            raise stored.no_entry(entry)
        work = _work(stored, entry)
        return EntryFacts(
            ledger.verdicts.statuses().get(entry),
            work,
            None if work is None else _rule(ledger, work, attempts),
            sorted(_lines(ledger, entry, work, attempts), key=lambda one: one.seq),
            [one.own.job.task_id for one in attempts],
            sum(one.own.job.reused is None for one in attempts),
        )


def show_facts(entry: str, stored: StoredRun, limit: int, *, json: bool) -> None:
    """Print the facts of an entry and of its run: the newest ``limit``, all where that is 0."""
    found = facts_of(stored, entry)
    lines = found.lines
    left = len(lines) - len(some := lines[-limit:])  # what decides stands at the end
    said = f"{plural(found.sent, 'attempt')}, {plural(len(lines), 'fact')}"
    title = [f"{entry} of run {stored.info.run} ({found.status or 'pending'}): {said}"]
    title += [f"{left:,} earlier ones are left out; --limit=0 shows all"] if left else []
    write_rows(
        some,
        json=json,
        head={
            "run": stored.info.run,
            "entry": entry,
            "verdict": found.status,
            "rule": found.rule,
            "task_ids": [*found.task_ids],
        },
        name="facts",
        document=FactLine.document,
        title=title,
        columns=("#seq", "recorded at", "who", "job", "what", "fields"),
        cells=_cells,
        left_out=left,
        rest="",
    )
    if found.rule is not None and not json:
        say(str(found.rule["sentence"]))


def _lines(
    ledger: Ledger, entry: str, work: Entry | None, attempts: Sequence[LoadedAttempt]
) -> Iterator[FactLine]:
    secrets = () if work is None else shown.secrets_of(work)
    tasks = None if work is None else {work.task}
    names: dict[str, str] = {}
    for attempt in attempts:
        for one in (attempt.own, *attempt.descendants):
            spawn = one.job.spawn
            task_id, number = one.job.task_id, one.job.number
            name = f"attempt {number}" if one.job.reused is None else "reused"
            names[task_id] = name if spawn is None else f"{spawn.task} {task_id[:8]}"
            if tasks is not None and spawn is not None:
                tasks.add(spawn.task)
            yield _planned(one.job, names[task_id], ledger.info.read().created_at)
            for fact in (*one.facts, *one.extra):
                yield _line(fact, names, secrets)
    for run in {one.own.job.run for one in attempts}:
        for of_run in ledger.jobs.run_facts(run).facts:
            if tasks is None or not isinstance(of_run, TaskFact) or of_run.task in tasks:
                yield _line(of_run, names, secrets)
    for seq, at, verdict in ledger.verdicts.each(entry):
        sentence = shown.shown_text(verdict.sentence)
        fields: dict[str, JsonValue] = {"status": verdict.verdict, "sentence": sentence}
        job = "" if verdict.attempt is None else f"attempt {verdict.attempt}"
        yield FactLine(seq, at, "controller", "", job, "verdict", fields)


def _rule(
    ledger: Ledger, work: Entry, attempts: Sequence[LoadedAttempt]
) -> dict[str, JsonValue] | None:
    """Return the rule of the judge that decides by these facts.

    Where they decide nothing, it is that of the reason which an audit has recorded.
    """
    found = Judging(ledger).judge(work, attempts).judgement
    kind: type[Reason] = type(found.finding.reason)
    fact = of_descendant(found.finding.reason, attempts) or found.end
    if not found.is_final and kind is type(UNEXPLAINED):
        known = ledger.verdicts.reasons([work.id]).get(work.id)
        kind = Reason.by_code.get(str(known.reason.get("code")), kind) if known else kind
        overs = ledger.jobs.run_facts(attempts[-1].own.job.run).overs if known else ()
        fact = overs[-1].seq if fact is None and overs else fact
    letter, code = kind.rule, kind.code
    if fact is None and letter == "B":
        fact = held_back_by(attempts)
    if fact is None and found.is_final:  # it was begun once too often
        own = attempts[-1].own
        starts = (*own.each(Started), *own.each(HandedOn))
        fact = max((one.seq for one in starts), default=None)
    by = "" if fact is None else f" by fact {fact}"
    sentence = f"judged {found.status}{by}: {code}, rule {letter} ({RULES[letter]})"
    if kind is type(UNEXPLAINED) and found.status == "pending":
        sentence = "not judged yet: nothing that is recorded says what became of it"
    return {"letter": letter, "code": code, "fact": fact, "sentence": sentence}


def of_descendant(reason: Reason, attempts: Sequence[LoadedAttempt]) -> int | None:
    """Return the last that is known of the descendant by which an attempt is judged."""
    if not isinstance(reason, ByDescendant):
        return None
    tree = attempts[-1].descendants
    return next((one.facts[-1].seq for one in tree if one.job.task_id == reason.task_id), None)


def held_back_by(attempts: Sequence[LoadedAttempt]) -> int | None:
    """Return what held the last attempt back, or refused it."""
    own = attempts[-1].own
    return max((one.seq for one in (*own.each(Withheld), *own.each(SendResult))), default=None)


def _work(stored: StoredRun, entry: str) -> Entry | None:
    """Return the entry as its run's manifest has it; None where that cannot be read."""
    with suppress(ManifestError):
        if entry in stored.manifest:
            return stored.manifest[entry]
    return None


def _planned(job: Job, name: str, run_began: datetime) -> FactLine:
    spawn = job.spawn
    if spawn is None:
        # Its own time is that of its sending; the first ones were planned as the run began.
        at = min(job.at, run_began) if job.why == "first" else job.at
        fields: dict[str, JsonValue] = {"why": job.why, "task_id": job.task_id}
        fields |= {"asked_for": True} if job.asked_for else {}
        fields |= {"reused_from": job.reused.run} if job.reused is not None else {}
        return FactLine(job.seq, at, "controller", job.task_id, name, "planned", fields)
    fields = {"how": spawn.how, "parent": spawn.parent, "task_id": job.task_id}
    return FactLine(job.seq, job.at, "worker", job.task_id, name, "spawned", fields)


def _line(fact: JobFact | RunFact, names: Mapping[str, str], secrets: shown.Secrets) -> FactLine:
    if isinstance(fact, Ended | Stored) and fact.receipt is not None:
        fact = replace(fact, receipt=shown.shown_receipt(fact.receipt, secrets))
    hidden = redacted(document_of(fact), secrets)
    assert isinstance(hidden, dict)
    who, what = _words(fact.source.name), _words(fact.kind.name)
    return FactLine(fact.seq, fact.at, who, fact.job, names.get(fact.job, ""), what, hidden)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _cells(line: FactLine) -> tuple[str, ...]:
    at = line.at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    return str(line.seq), at, line.source, line.job, line.what, _text(line.fields)


def _text(fields: Mapping[str, JsonValue]) -> str:
    found: dict[str, JsonValue] = {}
    for name, value in fields.items():
        if name == "receipt" and isinstance(value, dict):
            found |= {key: value[key] for key in _OF_RECEIPT if value.get(key) is not None}
        else:
            found[name] = value
    return ", ".join(
        f"{name}={value if isinstance(value, str) else short(value)}"
        for name, value in found.items()
    )
