"""Steer a run that goes on, from another shell: ``manifest ctl RUN pause``."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from pydantic import JsonValue

from pytest_manifest.analysis.causes import CauseNumbers, Causes
from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.output import answer as print_answer
from pytest_manifest.cli.stored_run import StoredRun, find_run, hide_secrets, runs_folder
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.commands import DRY_RUN, KEPT, Answer
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.processes import is_held
from pytest_manifest.schema.run_facts import Action
from pytest_manifest.schema.statuses import BAD, outcome_of
from pytest_manifest.text import listed, many, plural

WAIT: Final = 10.0
"""Seconds that an answer is waited for: the run answers between two polls, unless it waits for a
broker that is away."""
_POLL: Final = 0.02
_SHOWN: Final = 5

app = typer.Typer(
    help='Steer a run that goes on: RUN is a run\'s id, the beginning of one, or "last".',
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reason = Annotated[str, typer.Option(metavar="TEXT", help="why; kept in the run's record")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would happen, and do nothing")]
Entries = Annotated[list[str] | None, typer.Argument(metavar="ENTRY...", show_default=False)]
Task = Annotated[
    str | None, typer.Option(metavar="NAME", help="those of this task; * stands for anything")
]


@dataclass
class Call:
    """The run of a command, and how it is answered."""

    name: str
    folder: Path | None

    @cached_property
    def files(self) -> RunFiles:
        """Return the run's files, once the command wants them: its help needs none."""
        return RunFiles(find_run(self.name, runs_folder(self.folder)))

    @cached_property
    def id(self) -> str:
        """Return the run's id; what is shown of it from here on has no secrets."""
        hide_secrets()
        with Ledger.open(self.files.ledger) as ledger:
            ledger.info.hide_secrets()
            return ledger.info.read().run

    @cached_property
    def run(self) -> StoredRun:
        """Return the run with its manifest, which takes a while where that is large."""
        return StoredRun.open(self.files.ledger)

    @property
    def is_followed(self) -> bool:
        """Return whether a pytest follows the run."""
        return is_held(self.files.lock)

    def give(
        self,
        action: Action,
        reason: str,
        data: Mapping[str, JsonValue] | None = None,
        *,
        json: bool,
    ) -> None:
        """Give the run a command, wait for what it answers, and print that."""
        kept = action in KEPT
        if not self.is_followed and not kept:
            raise PlanError(
                f"run {self.id}: no pytest follows it, so there is nothing to {action}; "
                "--manifest-resume goes on with it"
            )
        with Ledger.open(self.files.ledger, write=True) as ledger:
            if merged := ledger.info.merged():
                raise PlanError(
                    f"run {self.id} is a merge of {many(len(merged), 'run')}, which no "
                    "session goes on with: steer those"
                )
            number = ledger.commands.add(action, operator(), reason, data)
            found = self._answer(ledger, number)
            if found is None and kept and not self.is_followed:
                # By its id: a run that is begun meanwhile is the newest, and knows nothing of it.
                go_on = ledger.command("--manifest-resume", f"--manifest-run={self.id}")
                said = f"no pytest follows this run now: it is kept for {shlex.join(go_on)}"
                found = Answer(True, True, said, data or {})
        self.show(action, found, number=number, json=json)
        if found is None or not found.applied:
            raise typer.Exit(FOUND)

    def refuse_kept(self, action: Action, why: str) -> NoReturn:
        """Raise PlanError: there is nothing that could be kept for a resume."""
        raise PlanError(
            f"run {self.id}: nothing to {action}: {why}; --manifest-resume goes on with the rest"
        )

    def _answer(self, ledger: Ledger, number: int) -> Answer | None:
        until = time.monotonic() + WAIT
        while (found := ledger.commands.answer_of(number)) is None:
            if time.monotonic() > until or not self.is_followed:
                return ledger.commands.answer_of(number)  # it may have come with its end
            time.sleep(_POLL)
        return found

    def show(
        self, action: Action, found: Answer | None, *, number: int | None = None, json: bool
    ) -> None:
        waiting = "not answered yet: the run carries it out when it goes round again"
        if action in KEPT:
            waiting += ", or --manifest-resume does"
        document: dict[str, JsonValue] = {
            "run": self.id,
            "command": number,
            "action": action,
            "applied": found is not None and found.applied,
            "changed": found is not None and found.changed,
            "message": waiting if found is None else found.message,
            "data": {} if found is None else dict(found.data),
        }
        print_answer(document, [f"{action}: {document['message']}"], json=json)


def operator() -> str:
    """Return who gives the command."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


@app.callback()
def _of_run(
    context: typer.Context,
    run: arguments.RunId,
    folder: arguments.Folder = None,
) -> None:
    context.obj = Call(run, folder)


@app.command()
def pause(
    context: typer.Context,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Send nothing new; what is in flight goes on, and so does the run's deadline."""
    _simple(context, "pause", reason, dry_run=dry_run, json=json)


@app.command()
def resume(
    context: typer.Context,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Send again after a pause."""
    _simple(context, "resume", reason, dry_run=dry_run, json=json)


@app.command()
def drain(
    context: typer.Context,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Send nothing new, and end the run when what is in flight has ended."""
    _simple(context, "drain", reason, dry_run=dry_run, json=json)


@app.command()
def stop(
    context: typer.Context,
    take_back: Annotated[
        bool, typer.Option("--take-back", help="take back what waits, whatever the settings say")
    ] = False,
    leave: Annotated[
        bool, typer.Option("--leave", help="leave to the workers what is in flight")
    ] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """End the run as Ctrl-C in its terminal does."""
    if take_back and leave:
        raise PlanError("--take-back and --leave exclude one another; choose one")
    how = "take-back" if take_back else "leave" if leave else None
    _simple(
        context, "stop", reason, None if how is None else {"how": how}, dry_run=dry_run, json=json
    )


def _simple(
    context: typer.Context,
    action: Action,
    reason: str,
    data: Mapping[str, JsonValue] | None = None,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    call: Call = context.obj
    call.give(action, reason, {**(data or {}), DRY_RUN: True} if dry_run else data, json=json)


@app.command(name="set")
def set_limits(
    context: typer.Context,
    limits: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", show_default=False)],
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Change limits that the run has: window=200, limit.KEY=5, rate=200/s, max-failed=2%,
    budget=30, deadline=+2h."""
    data: dict[str, JsonValue] = {}
    for one in limits:
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise PlanError(f"{one}: write it like window=200")
        if name in data:
            raise PlanError(f"{name} is given twice; keep one")
        data[name] = value
    _simple(context, "set", reason, data, dry_run=dry_run, json=json)


@app.command()
def cancel(
    context: typer.Context,
    entries: Entries = None,
    task: Task = None,
    running: Annotated[
        bool, typer.Option("--running", help="end those that run, too: they may be half done then")
    ] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Take entries out of the run: what waits is taken back, what was not sent never will be."""
    from pytest_manifest.run.kept_commands import asked_of
    from pytest_manifest.run.repeating import places

    call: Call = context.obj
    with call.run.read() as ledger:
        names = _chosen(call, ledger, entries or (), task)
        at = places(ledger, names) | dict.fromkeys(asked_of(ledger)[1].keys() & {*names}, "unsent")
        told = ledger.verdicts.reasons(names)
    passed = {name for name, one in told.items() if one.status == "passed"}
    open_ones = [name for name in names if at[name] in ("unsent", "waiting", "running")]
    wanted = names if entries else open_ones
    runs = [name for name in names if at[name] == "running"]
    if dry_run:
        found: dict[str, JsonValue] = {"entries": list(open_ones), "running": list(runs)}
        call.show("cancel", Answer(True, False, _would_cancel(open_ones, runs), found), json=json)
        return
    if runs and not running and sys.stdin.isatty() and not json:
        running = typer.confirm(
            f"{_running(runs)}. End them, too? They may be half done then", default=False
        )
    if not call.is_followed and all(at[name] == "dropped" or name in passed for name in names):
        call.refuse_kept("cancel", "each has passed, or is cancelled already")
    call.give("cancel", reason, {"entries": list(wanted), "running": running}, json=json)


def _would_cancel(names: Sequence[str], runs: Sequence[str]) -> str:
    said = f"{many(len(names), 'entry')} would be cancelled"
    return f"{said}; {_running(runs)}, and may be half done by --running" if runs else said


def _running(runs: Sequence[str]) -> str:
    verb = "runs" if len(runs) == 1 else "run"
    return f"{listed(list(map(repr, runs)), _SHOWN)} {verb} at this moment"


@app.command()
def requeue(
    context: typer.Context,
    entries: Entries = None,
    task: Task = None,
    cause: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="those of this cause, as status counts")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="all that have failed")] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="also what may run twice, or is quarantined")
    ] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    json: arguments.Json = False,
) -> None:
    """Send entries again that have come to an end other than passed."""
    call: Call = context.obj
    with call.run.read() as ledger:
        names = _chosen(call, ledger, entries or (), task, cause=cause, failed=failed)
    send_again(call, names, unsafe=unsafe, reason=reason, dry_run=dry_run, json=json)


def send_again(
    call: Call, names: Sequence[str], *, unsafe: bool, reason: str, dry_run: bool, json: bool
) -> None:
    """Have entries of a run sent again, or say what that would do, and print the answer."""
    from pytest_manifest.run.repeating import GOING_ON, Repeating, places
    from pytest_manifest.run.resume_rules import DEADLY

    with call.run.read() as ledger:
        repeating = Repeating(ledger, call.run.manifest, names)
        at = places(ledger, names)
        left = repeating.refusals(unsafe=unsafe)
        asked = repeating.refusals(unsafe=False)
    why = listed([f"{one.entry!r}: {one.why}" for one in left], _SHOWN)
    why += " (--unsafe sends it all the same)" if any(one.may_repeat for one in left) else ""
    open_ones = [name for name in names if at[name] in GOING_ON]  # a resume may find them lost
    without = {one.entry for one in left}
    again = [name for name in names if name not in without]
    risky = {one.entry for one in asked if one.may_repeat and one.why != DEADLY}
    twice = sorted(risky.intersection(again))
    if dry_run:
        said = f"{many(len(again), 'entry')} would be sent again"
        said += f", of which {plural(len(twice), 'entry')} might run twice" if twice else ""
        said += f"; left: {why}" if why else ""
        data: dict[str, JsonValue] = {
            "entries": list(again),
            "might_run_twice": list(twice),
            "left": {one.entry: one.why for one in left},
        }
        call.show("requeue", Answer(bool(again), False, said, data), json=json)
        return
    if twice and sys.stdin.isatty() and not json:
        typer.confirm(f"{plural(len(twice), 'entry')} might run twice. Send them?", abort=True)
    if not again and not open_ones and not call.is_followed:
        call.refuse_kept("requeue", why)
    given: dict[str, JsonValue] = {"entries": list(names), "unsafe": unsafe}
    call.give("requeue", reason, given, json=json)


def _chosen(
    call: Call,
    ledger: Ledger,
    entries: Sequence[str],
    task: str | None,
    *,
    cause: int | None = None,
    failed: bool = False,
) -> list[str]:
    """Return the entries that a command names. Raises PlanError for one that is not there."""
    ways = [bool(entries), task is not None, cause is not None, failed]
    if sum(ways) != 1:
        raise PlanError("name entries, or choose them by one option; see manifest ctl RUN --help")
    manifest = call.run.manifest
    if entries:
        known = ledger.attempts.known_entries(list(entries))
        for name in entries:
            if name not in known:
                raise call.run.no_entry(name)
        return list(dict.fromkeys(entries))
    in_run = [row.entry for row in ledger.attempts.newest() if row.entry in manifest]
    if task is not None:
        found = [one.id for one in manifest.some(in_run) if fnmatchcase(one.task, task)]
        nothing = f"--task={task}: no entry of run {call.run.info.run} is of such a task"
    elif failed:
        statuses = ledger.verdicts.statuses()
        found = [name for name in in_run if outcome_of(statuses.get(name)) in BAD]
        nothing = f"run {call.run.info.run}: none of its entries has failed"
    else:
        found = _of_cause(ledger, (cause or 1) - 1)
        nothing = f"--cause={cause}: there is no such cause; see manifest show or status"
    if not found:
        raise PlanError(nothing)
    return found


def _of_cause(ledger: Ledger, wanted: int) -> list[str]:
    """Return the entries of a cause, by its place among those of the run, the largest first."""
    causes, numbers = Causes(), CauseNumbers()
    numbered: list[tuple[str, int]] = []
    for settled in ledger.queries.all_verdicts():
        verdict, receipt = settled.verdict, settled.receipt
        causes.add(verdict.entry, verdict, receipt)
        numbered.append((verdict.entry, numbers.number(verdict, receipt)))
    positions = numbers.positions(causes.largest_first())
    return [name for name, number in numbered if number >= 0 and positions[number] == wanted]
