"""Say why an entry has its verdict, whether it may be sent again, and the next command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Annotated

import typer

from pytest_manifest.cli import arguments
from pytest_manifest.cli.arguments import complete_run
from pytest_manifest.cli.output import say, write_json
from pytest_manifest.cli.show import FactLine, facts_of
from pytest_manifest.cli.stored_run import LAST, StoredRun
from pytest_manifest.processes import is_held
from pytest_manifest.schema import Entry, shown
from pytest_manifest.schema.statuses import REQUEUE, outcome_of
from pytest_manifest.schema.why import EntryWhy, WhyAgain, WhyFact, WhyRule

Run = Annotated[
    str, typer.Option(metavar="RUN", autocompletion=complete_run, help="the run; default: last")
]


def why(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", show_default=False)],
    run: Run = LAST,
    limit: arguments.Limit = 20,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Say why an entry has its verdict, and what to do.

    The rule of the judge and the facts by which it decided, whether the entry may be sent again,
    and the next command.
    """
    stored = StoredRun.named(run, folder)
    found = explained(stored, entry, limit)
    if json:
        write_json(found.model_dump(mode="json"))
        return
    for line in _lines(found):
        say(line)
    facts = ["manifest", "show", entry, "--facts", f"--run={found.run}", *stored.folder_option]
    say(f"  what is recorded: {shlex.join(facts)}")


def explained(stored: StoredRun, name: str, limit: int) -> EntryWhy:
    """Return why an entry of a run has its verdict; the newest ``limit`` facts, 0: all."""
    known = facts_of(stored, name)
    with stored.read() as ledger:
        settled = ledger.verdicts.reasons([name]).get(name)
        sentences = [one.sentence for _, _, one in ledger.verdicts.each(name)]
        # What nobody knows the end of only a resume looks for on the stack.
        is_finished = ledger.info.status == "finished" and known.status != "unknown"
    is_cancelled = known.status == "cancelled"
    again, culprit = None, ""
    if known.work is not None:
        again, culprit = _again(stored, known.work, is_cancelled=is_cancelled)
    command = _Commands(stored, name, is_finished=is_finished, is_cancelled=is_cancelled)
    insists = again is not None and again.might_run_twice
    if known.status == "unknown" and command.is_followed:
        insists = False  # its session refuses that, too, while the job may be there
    sentence = shown.shown_text(sentences[-1]) if settled and sentences else None
    if sentence is not None and is_cancelled:
        sentence = sentence.replace(REQUEUE, command.send(unsafe=insists))
    passed = outcome_of(known.status) == "passed"
    some = known.lines[-limit:]
    return EntryWhy(
        run=stored.info.run,
        manifest=str(stored.info.manifest),
        entry=name,
        task=None if known.work is None else known.work.task,
        verdict=known.status,
        outcome=outcome_of(known.status),
        sentence=sentence,
        attempts=known.sent,
        rule=None if known.rule is None else WhyRule.model_validate(known.rule),
        again=again,
        next=None if passed or again is None else command.next(again, culprit),
        insist=command.send(unsafe=True) if insists else None,
        facts=[_fact(one) for one in some],
        left_out=len(known.lines) - len(some),
    )


def _fact(line: FactLine) -> WhyFact:
    return WhyFact.model_validate(line.document())


def _again(stored: StoredRun, entry: Entry, *, is_cancelled: bool) -> tuple[WhyAgain, str]:
    """Return whether an entry may be sent again, by what the ledger has, and for which other one
    it waits in vain."""
    from pytest_manifest.run.repeating import Repeating

    with stored.read() as ledger:
        repeating = Repeating(ledger, stored.manifest, [entry.id])
        # What was cancelled is asked for by a requeue, and looked for by who carries that out.
        doubts = () if is_cancelled else repeating.doubtful.values()
        refused = repeating.refusals(unsafe=False, doubts=doubts)
    found = next((one for one in refused if one.entry == entry.id), None)
    harmless = "running it twice does no harm" if entry.idempotent else "it has not run"
    again = WhyAgain(
        safe=found is None,
        reason=harmless if found is None else found.why,
        idempotent=entry.idempotent,
        might_run_twice=found is not None and found.may_repeat,
    )
    return again, "" if found is None else found.culprit


class _Commands:
    """The commands by which an entry goes on: for the pytest that follows its run, or a new one."""

    def __init__(
        self, stored: StoredRun, entry: str, *, is_finished: bool, is_cancelled: bool
    ) -> None:
        self._stored, self._entry, self._is_finished = stored, entry, is_finished
        self._is_cancelled = is_cancelled
        self.is_followed = is_held(stored.files.lock)

    def next(self, again: WhyAgain, culprit: str) -> str:
        if again.safe:
            return self.send(unsafe=False)
        if culprit:
            return self._manifest("why", culprit, f"--run={self._run}")
        if again.might_run_twice:
            return self._manifest("show", self._entry, "--facts", f"--run={self._run}")
        if self.is_followed or self._is_finished:
            return self._manifest("status", self._run)
        return self._resume("--manifest-resume")

    def send(self, *, unsafe: bool) -> str:
        """Return the command that sends the entry again; ``unsafe``: though it may have run."""
        if self.is_followed or self._is_cancelled:  # no resume sends that by itself
            insist = ["--unsafe"] if unsafe else []
            return self._manifest("ctl", self._run, "requeue", self._entry, *insist)
        if self._is_finished:
            name = os.path.relpath(self._stored.info.manifest)
            insist = [] if self._stored.manifest.header.rerun else ["--manifest-rerun"]
            return shlex.join(self._stored.command(f"{name}::entry[{self._entry}]", *insist))
        return self._resume(f"--manifest-resume{'=unsafe' if unsafe else ''}")

    @property
    def _run(self) -> str:
        return self._stored.info.run

    def _manifest(self, *words: str) -> str:
        return shlex.join(["manifest", *words, *self._stored.folder_option])

    def _resume(self, option: str) -> str:
        with self._stored.read() as ledger:
            shard = ledger.info.shard()
        part = [] if shard is None else [f"--manifest-shard={shard}"]
        return shlex.join(self._stored.command(*part, option))


def _lines(found: EntryWhy) -> Iterator[str]:
    yield f"{found.entry} of run {found.run}: {found.verdict or 'no verdict yet'}"
    if found.sentence:
        yield f"  {found.sentence}"
    if found.rule is not None:
        yield f"  {found.rule.sentence}"
    if found.again is not None and found.outcome != "passed":
        yield f"  safe to send again: {'yes' if found.again.safe else 'no'}, {found.again.reason}"
    if found.next is not None:
        yield f"  next: {found.next}"
    if found.insist is not None:
        yield f"  to send it all the same: {found.insist}"
