"""Keep what operators ask of a run while no session could do it, and answer it when one has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.commands import KEPT, Answer, Command
from pytest_manifest.redaction.texts import redact
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.resume_rules import Decision
from pytest_manifest.schema.run_facts import Steered, cancelled_by, names_in
from pytest_manifest.text import listed, many

SHOWN: Final = 5
"""Entries that a message names."""


def asked_of(ledger: Ledger) -> tuple[frozenset[str], Mapping[str, bool]]:
    """Return the entries that operators have cancelled, and those that they want sent again, with
    whether also where these might run twice: by what took effect, and by what still waits."""
    cancelled = set(cancelled_by(ledger.jobs.run_facts().steered))
    again: dict[str, bool] = {}
    for command in ledger.commands.open():
        names = names_in(command.data)
        if command.action == "cancel":
            cancelled |= set(names)
            again = {name: unsafe for name, unsafe in again.items() if name not in names}
        elif command.action == "requeue":
            cancelled -= set(names)
            again |= dict.fromkeys(names, bool(command.data.get("unsafe")))
    return frozenset(cancelled), again


def answer_stale(ledger: Ledger) -> None:
    """Answer what was asked of a session that has ended; call it as the next one takes the run up.

    Not later: what is asked while that one prepares is meant for it.
    """
    for command in ledger.commands.open():
        if command.action not in KEPT:
            over = "the session that it was meant for has ended"
            ledger.commands.answer(command.number, Answer(False, False, over))


def answer_passed(path: Path) -> int:
    """Answer what was kept for a session that has nothing to do, as every entry of the run at this
    path has passed; return how many commands these were."""
    over = "every entry has passed: none is sent again, and none is left to be cancelled"
    with Ledger.open(path, write=True) as ledger:
        kept = [one.number for one in ledger.commands.open()]
        for number in kept:
            ledger.commands.answer(number, Answer(False, False, over))
    return len(kept)


def answer_kept(ledger: Ledger, facts: FactLog, decided: Iterable[Decision]) -> None:
    """Answer what was kept for this session and is carried out by what it has decided to send.

    Of what it does not look at is asked again, for a later one. What was cancelled since is left.
    """
    decisions = {one.entry: one for one in decided}
    noted = {one.command for one in ledger.jobs.run_facts().steered}
    commands = ledger.commands.open()
    for command in commands:
        if command.action != "requeue":
            continue
        since = [one for one in commands if one.number > command.number and one.action == "cancel"]
        dropped = {name for one in since for name in names_in(one.data)}
        names = names_in(command.data)
        again = [one for one in names if one in decisions and decisions[one].action == "send"]
        left = {one: decisions[one].reason for one in names if one in decisions}
        left |= dict.fromkeys(dropped.intersection(names), "it was cancelled since")
        left = {name: why for name, why in left.items() if name not in again}
        if command.number not in noted:
            facts.add(None, steered_by(command, bool(again), {"entries": list(again)}))
        ledger.commands.answer(command.number, requeued_answer(again, left))
        if rest := [one for one in names if one not in decisions and one not in dropped]:
            data = {**command.data, "entries": list[JsonValue](rest)}
            ledger.commands.add("requeue", command.by, command.reason, data)


def requeued_answer(again: Sequence[str], left: Mapping[str, str]) -> Answer:
    """Return the answer to what was to be sent again; ``left``: what is not, and why."""
    said = f"{many(len(again), 'entry')} sent again" if again else "nothing is sent again"
    why = [f"{name!r}: {reason}" for name, reason in left.items()]
    data: dict[str, JsonValue] = {"entries": list(again), "left": dict(left)}
    return Answer(
        bool(again), bool(again), said + (f"; left: {listed(why, SHOWN)}" if why else ""), data
    )


def steered_by(command: Command, changed: bool, data: Mapping[str, JsonValue]) -> Steered:
    return Steered(
        **stamp(),
        command=command.number,
        action=command.action,
        by=command.by,
        reason=redact(command.reason),
        changed=changed,
        data=data,
    )
