"""Show all that a ledger has of an entry, in order: ``manifest show ENTRY --facts``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from pytest_manifest.cli.output import say, write_rows
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.facts import document_of
from pytest_manifest.ledger.jobs import LoadedAttempt
from pytest_manifest.redaction.documents import redacted
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import Ended, Job, SendResult, Stored, Withheld
from pytest_manifest.schema.run_facts import JobFact, RunFact, TaskFact
from pytest_manifest.schema.shown import Secrets, secrets_of, shown_receipt, shown_text
from pytest_manifest.text import plural, short
from pytest_manifest.verdict.judging import Judging
from pytest_manifest.verdict.reasons import RULES, UNEXPLAINED, Reason
from pytest_manifest.verdict.tree import ByDescendant

_OF_RECEIPT: Final = ("state", "attempt", "worker", "pid", "runtime", "error")
"""Fields of a receipt that a person is shown; a program gets all."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A fact, or what is shown as one: an attempt, a descendant or a verdict."""

    seq: int
    at: datetime
    source: str
    task_id: str
    job: str
    """The job as a person is shown it; "" of what is of the run."""
    what: str
    fields: Mapping[str, JsonValue]


def show_facts(entry: str, stored: StoredRun, limit: int, *, json: bool) -> None:
    """Print the facts of an entry and of its run: the newest ``limit``, all where that is 0."""
    with stored.read() as ledger:
        attempts = ledger.jobs.of_entry(entry)
        if not attempts:
            raise stored.no_entry(entry)
        status = ledger.verdicts.statuses().get(entry)
        work = _work(stored, entry)
        rule = None if work is None else _rule(ledger, work, attempts)
        lines = sorted(_lines(ledger, entry, work, attempts), key=lambda one: one.seq)
    left = len(lines) - len(some := lines[-limit:])  # what decides stands at the end
    sent = sum(one.own.job.reused is None for one in attempts)
    said = f"{plural(sent, 'attempt')}, {plural(len(lines), 'fact')}"
    title = [f"{entry} of run {stored.info.run} ({status or 'pending'}): {said}"]
    title += [f"{left:,} earlier ones are left out; --limit=0 shows all"] if left else []
    write_rows(
        some,
        json=json,
        head={
            "run": stored.info.run,
            "entry": entry,
            "verdict": status,
            "rule": rule,
            "task_ids": [one.own.job.task_id for one in attempts],
        },
        name="facts",
        document=_document,
        title=title,
        columns=("#seq", "recorded at", "who", "job", "what", "fields"),
        cells=_cells,
        left_out=left,
        rest="",
    )
    if rule is not None and not json:
        say(str(rule["sentence"]))


def _lines(
    ledger: Ledger, entry: str, work: Entry | None, attempts: Sequence[LoadedAttempt]
) -> Iterator[_Line]:
    secrets = () if work is None else secrets_of(work)
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
        sentence = shown_text(verdict.sentence)
        fields: dict[str, JsonValue] = {"status": verdict.verdict, "sentence": sentence}
        job = "" if verdict.attempt is None else f"attempt {verdict.attempt}"
        yield _Line(seq, at, "controller", "", job, "verdict", fields)


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


def _planned(job: Job, name: str, run_began: datetime) -> _Line:
    spawn = job.spawn
    if spawn is None:
        # Its own time is that of its sending; the first ones were planned as the run began.
        at = min(job.at, run_began) if job.why == "first" else job.at
        fields: dict[str, JsonValue] = {"why": job.why, "task_id": job.task_id}
        fields |= {"asked_for": True} if job.asked_for else {}
        fields |= {"reused_from": job.reused.run} if job.reused is not None else {}
        return _Line(job.seq, at, "controller", job.task_id, name, "planned", fields)
    fields = {"how": spawn.how, "parent": spawn.parent, "task_id": job.task_id}
    return _Line(job.seq, job.at, "worker", job.task_id, name, "spawned", fields)


def _line(fact: JobFact | RunFact, names: Mapping[str, str], secrets: Secrets) -> _Line:
    if isinstance(fact, Ended | Stored) and fact.receipt is not None:
        fact = replace(fact, receipt=shown_receipt(fact.receipt, secrets))
    hidden = redacted(document_of(fact), secrets)
    assert isinstance(hidden, dict)
    who, what = _words(fact.source.name), _words(fact.kind.name)
    return _Line(fact.seq, fact.at, who, fact.job, names.get(fact.job, ""), what, hidden)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _document(line: _Line) -> JsonValue:
    return {
        "seq": line.seq,
        "at": line.at.isoformat(),
        "source": line.source,
        "task_id": line.task_id or None,
        "what": line.what,
        "fields": dict(line.fields),
    }


def _cells(line: _Line) -> tuple[str, ...]:
    at = line.at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    return str(line.seq), at, line.source, line.job, line.what, _text(line.fields)


def _text(fields: Mapping[str, JsonValue]) -> str:
    shown: dict[str, JsonValue] = {}
    for name, value in fields.items():
        if name == "receipt" and isinstance(value, dict):
            shown |= {key: value[key] for key in _OF_RECEIPT if value.get(key) is not None}
        else:
            shown[name] = value
    return ", ".join(
        f"{name}={value if isinstance(value, str) else short(value)}"
        for name, value in shown.items()
    )
