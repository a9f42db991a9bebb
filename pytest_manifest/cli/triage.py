"""Say what is open over all runs, accept it, send it again, approve a run: ``manifest triage``."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from pytest_manifest.analysis.digest import all_digests, runs_going_on, without_parts
from pytest_manifest.analysis.dispositions import (
    ACCEPTANCE,
    FILE,
    Acceptance,
    Disposition,
    baseline_file,
    baseline_of,
    disposition_text,
    read_dispositions,
)
from pytest_manifest.analysis.open_failures import OpenEntry, open_failures, unjudged_of
from pytest_manifest.cli import arguments
from pytest_manifest.cli.ctl import Call, operator, send_again
from pytest_manifest.cli.output import answer, say, write_json, write_table
from pytest_manifest.cli.stored_run import (
    StoredRun,
    hide_secrets,
    pytest_command,
    root_folder,
    runs_folder,
)
from pytest_manifest.errors import LedgerError, PlanError
from pytest_manifest.ledger.files import find_ledger
from pytest_manifest.schema.run_digest import RunDigest
from pytest_manifest.schema.triage import Triage, TriageCause
from pytest_manifest.text import cut, listed, many, plural, short_path

_SHOWN: Final = 3
_TITLE: Final = 60
_PLACE: Final = re.compile(r":\d+ in ")
"""The line in a cause's title, which moves whenever its file is changed."""
_DAYS: Final = re.compile(r"(\d{1,3})([dw])", re.ASCII)

app = typer.Typer(
    help="Say what is open over all runs, by cause; accept it, or have it sent again.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
OfManifest = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="of this manifest alone")
]
Entries = Annotated[list[str] | None, typer.Argument(metavar="ENTRY...", show_default=False)]
OfCause = Annotated[
    str | None, typer.Option("--cause", metavar="CAUSE", help="those of this cause, or a pattern")
]


@app.callback()
def triage(
    context: typer.Context,
    manifest: OfManifest = None,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Say what is open over all runs, by cause; accept it, or have it sent again."""
    if context.invoked_subcommand is not None:
        return
    digests, some = _open(manifest, folder)
    unjudged = unjudged_of(digests)
    going_on = runs_going_on(runs_folder(folder), manifest)
    accepted = Acceptance(read_dispositions(root_folder()))
    groups: dict[tuple[Path, str], list[OpenEntry]] = {}
    for one in some:
        groups.setdefault((one.manifest, one.cause), []).append(one)
    ordered = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    causes = [_cause(cause, path, group, accepted) for (path, cause), group in ordered]
    if json:
        found = Triage(open=len(some), causes=causes, unjudged=unjudged, going_on=going_on)
        write_json(found.model_dump(mode="json"))
        return
    for run, number in unjudged.items():
        say(f"{many(number, 'entry')} of run {run} without a verdict: manifest status {run}")
    for run in going_on:
        say(f"run {run} goes on, and is not counted: manifest status {run}")
    if not some:
        passed = "each entry passed in the last run that had it"
        say("nothing has failed" if unjudged or going_on else f"nothing is open: {passed}")
        return
    rows = [_row(one) for one in causes]
    columns = ["cause", "#entries", "first seen", "owner", "safe again", "accepted", "such as"]
    if len({one.manifest for one in causes}) > 1:
        columns.insert(1, "manifest")
        for cause, row in zip(causes, rows, strict=True):
            row.insert(1, short_path(Path(cause.manifest), Path.cwd()))
    write_table(columns, rows)
    say(f"{many(len(some), 'entry')} open")
    if any(one.accepted < one.may_be_accepted for one in causes):
        say("accept: manifest triage accept ENTRY --reason TEXT --until DAY")
    say("send again: manifest triage requeue ENTRY")


def _open(
    manifest: Path | None, folder: Path | None
) -> tuple[Sequence[RunDigest], Sequence[OpenEntry]]:
    """Return the runs that are over, and what is open by them. Raises LedgerError for none."""
    hide_secrets()
    runs = runs_folder(folder)
    digests = without_parts(all_digests(runs, manifest).values())
    if not digests:
        what = f"{manifest}: there is no run of it" if manifest else "there is no run"
        raise LedgerError(
            f"{what} in {runs} that is over, so what is open is not known; dispatch it with "
            f"{shlex.join(pytest_command())} --manifest={manifest or 'FILE'}, or name another "
            "folder with --in"
        )
    return digests, open_failures(digests)


def _cause(cause: str, path: Path, group: Sequence[OpenEntry], accepted: Acceptance) -> TriageCause:
    first = min(group, key=lambda one: one.since)
    days = [by.until for one in group if (by := _by(one, accepted)) is not None]
    return TriageCause(
        cause=cause,
        manifest=str(path),
        count=len(group),
        first_seen=first.since,
        first_run=first.first,
        owners=sorted({one.owner for one in group if one.owner}),
        safe_to_run_again=sum(one.is_safe for one in group),
        may_be_accepted=sum(one.may_be_accepted for one in group),
        accepted=len(days),
        accepted_until=min(days, default=None),
        verdicts=sorted({one.verdict for one in group}),
        entries=[one.id for one in group],
    )


def _by(one: OpenEntry, accepted: Acceptance) -> Disposition | None:
    """Return by which disposition an entry is accepted today, as far as its digest says that."""
    if not one.may_be_accepted:
        return None
    return next(
        (
            by
            for by in accepted.dispositions
            if by.until >= accepted.today
            and by.is_about(one.manifest, one.id)
            and by.covers(one.cause)
        ),
        None,
    )


def _row(one: TriageCause) -> list[str]:
    safe, until = one.safe_to_run_again, f"until {one.accepted_until}"
    return [
        cut(one.cause, _TITLE),
        f"{one.count:,}",
        f"{one.first_seen:%Y-%m-%d}",
        listed(one.owners, _SHOWN) or "-",
        "yes" if safe == one.count else "no" if not safe else f"{safe} of {one.count}",
        "never"
        if not one.may_be_accepted
        else "-"
        if not one.accepted
        else until
        if one.accepted == one.count
        else f"{one.accepted} of {one.count}",
        cut(listed(one.entries, _SHOWN), _TITLE),
    ]


@app.command()
def accept(
    entries: Entries = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="why; it is in every report")] = "",
    until: Annotated[
        str, typer.Option(metavar="DAY", help="the last day, like 2027-01-31, or 14d from now")
    ] = "",
    issue: Annotated[str, typer.Option(metavar="TEXT", help="where somebody works on it")] = "",
    cause: OfCause = None,
    manifest: OfManifest = None,
    folder: arguments.Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print it, and write nothing")] = False,
    json: arguments.Json = False,
) -> None:
    """Accept known failures until a day: a table for each in dispositions.toml."""
    if not (reason and until):
        raise PlanError("add --reason TEXT and --until DAY: nothing is accepted without them")
    root, day = root_folder(), _day(until)
    chosen = _chosen(_open(manifest, folder)[1], entries or (), cause)
    for one in chosen:
        if not one.may_be_accepted:
            raise PlanError(f"entry {one.id!r} is {one.verdict}, which is never accepted")
    path = manifest.name if manifest is not None else ""
    if entries:
        made = [
            Disposition(0, reason, day, glob.escape(one.id), _cause_of(one), path, issue)
            for one in chosen
        ]
    else:
        made = [Disposition(0, reason, day, "", cause or "", path, issue)]
    known = {disposition_text(one) for one in read_dispositions(root)}
    texts = [one for one in map(disposition_text, made) if one not in known]
    if not texts:
        raise PlanError(f"{FILE} accepts this already, for the same reason and until {day}")
    text = "\n".join(texts)
    if not dry_run:
        _append(root / FILE, text)
    what = "would accept" if dry_run else "accepts"
    lines = [f"{FILE} {what} {many(len(chosen), 'entry')} until {day}:", *text.splitlines()]
    entries_of: list[JsonValue] = [one.id for one in chosen]
    answer({"file": str(root / FILE), "entries": entries_of, "text": text}, lines, json=json)


def _append(path: Path, text: str) -> None:
    before = path.read_text("utf-8") if path.exists() else ""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{gap}{text}")


def _day(text: str) -> date:
    today = datetime.now(timezone.utc).date()
    if (match := _DAYS.fullmatch(text)) is not None:
        return today + timedelta(days=int(match[1]) * (7 if match[2] == "w" else 1))
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise PlanError(f"--until={text}: write a day, like 2027-01-31 or 14d") from error
    if day < today:
        raise PlanError(f"--until={text}: that day is over; name a later one")
    return day


def _cause_of(one: OpenEntry) -> str:
    """Return the pattern of an entry's cause, wherever in its file that moves."""
    return _PLACE.sub(":* in ", glob.escape(one.cause))


def _chosen(some: Iterable[OpenEntry], names: Sequence[str], cause: str | None) -> list[OpenEntry]:
    """Return the open entries that a command names. Raises PlanError for one that is not open."""
    if bool(names) == (cause is not None):
        raise PlanError("name entries, or choose them by --cause; see manifest triage")
    known: dict[str, list[OpenEntry]] = {}
    for one in some:
        known.setdefault(one.id, []).append(one)
    every = [one for group in known.values() for one in group]
    if cause is not None:
        found = [one for one in every if one.cause == cause or fnmatchcase(one.cause, cause)]
        if not found:
            raise PlanError(f"--cause={cause}: nothing is open by it; see manifest triage")
        return found
    for name in names:
        if name not in known:
            raise PlanError(f"entry {name!r} is not open; see manifest triage")
        if len(known[name]) > 1:
            raise PlanError(f"entry {name!r} is open in several manifests; add --manifest FILE")
    return [known[name][0] for name in dict.fromkeys(names)]


@app.command()
def requeue(
    entries: Entries = None,
    cause: OfCause = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="also what may run twice, or is quarantined")
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="why; kept in the record")] = "",
    manifest: OfManifest = None,
    folder: arguments.Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would happen, and do nothing")
    ] = False,
    json: arguments.Json = False,
) -> None:
    """Have open entries sent again by the last run that had them, as manifest ctl RUN requeue."""
    by_run: dict[str, list[str]] = {}
    for one in _chosen(_open(manifest, folder)[1], entries or (), cause):
        by_run.setdefault(one.run, []).append(one.id)
    runs = runs_folder(folder)
    for run in by_run:
        if find_ledger(runs, run) is None:
            raise PlanError(
                f"run {run}: its ledger is gone, so nothing can be sent again by it; run the "
                "manifest again"
            )
    if json and len(by_run) > 1:
        raise PlanError(f"these are of {plural(len(by_run), 'run')}; with --json name one's alone")
    for run, names in by_run.items():
        if len(by_run) > 1:
            say(f"run {run}:")
        call = Call(run, folder)
        send_again(call, names, unsafe=unsafe, reason=reason, dry_run=dry_run, json=json)


@app.command()
def approve(
    run: arguments.RunId,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Approve a run as the baseline of its manifest, for --manifest-gate=no-new."""
    stored = StoredRun.named(run, folder)
    ACCEPTANCE.now.begin()  # what it passed is what it passed
    with stored.read() as ledger:
        if ledger.info.status != "finished":
            raise PlanError(f"run {stored.info.run} has not finished; approve one that has")
    if stored.info.entries < len(stored.manifest):
        raise PlanError(
            f"run {stored.info.run} is of {stored.info.entries:,} of {len(stored.manifest):,} "
            "entries; approve one of all"
        )
    with stored.records() as records:
        some = ((one.entry, one.kind == "passed") for one in records)
        info = stored.info
        made = baseline_of(info.manifest.name, info.run, info.created_at, some, operator())
    path = baseline_file(stored.info.manifest)
    path.write_text(f"{made.model_dump_json(indent=1)}\n", "utf-8")
    bad = len(made.not_passed)
    answer(
        {"run": made.run, "file": str(path), "passed": made.entries - bad, "not_passed": bad},
        [f"run {made.run}: {made.entries - bad:,} passed, {bad:,} not; wrote {path}"],
        json=json,
    )
