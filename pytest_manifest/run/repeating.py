"""Say where the entries of a run are, and which of them may be sent again, by its ledger alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.resume_rules import DEADLY, NOT_SENT
from pytest_manifest.schema.facts import HandedOn, Moved, Started
from pytest_manifest.schema.statuses import GIVEN_UP, OPEN
from pytest_manifest.verdict.belief import start_order
from pytest_manifest.verdict.judge import Judgement
from pytest_manifest.verdict.judging import Judging

Place: TypeAlias = Literal["unsent", "waiting", "running", "ended", "dropped", "absent"]
"""unsent: no message of it has left; waiting: for a worker, maybe between two tries; running: a
worker has begun it; ended: it has a verdict that is final; dropped: an operator has cancelled it;
absent: it is not in the run."""
GOING_ON: Final[frozenset[Place]] = frozenset({"unsent", "waiting", "running"})


def places(ledger: Ledger, entries: Sequence[str]) -> dict[str, Place]:
    """Return where entries are, by what the ledger has of their newest attempts."""
    found: dict[str, Place] = dict.fromkeys(entries, "absent")
    statuses = {name: one.status for name, one in ledger.verdicts.reasons(entries).items()}
    newest = {row.entry: row for row in ledger.attempts.of_entries(entries)}
    starts = ledger.events.each(Started, [row.task_id for row in newest.values()])
    retried = ledger.events.each(HandedOn, list(starts))
    running = {i for i, some in starts.items() if not _is_retried(some, retried.get(i, ()))}
    for name, row in newest.items():
        status = statuses.get(name)
        if status is not None and status not in OPEN:
            found[name] = "dropped" if status == "cancelled" else "ended"
        elif row.state in NOT_SENT:
            found[name] = "unsent"
        else:
            found[name] = "running" if row.task_id in running else "waiting"
    return found


def _is_retried(starts: Iterable[Started], handed_on: Iterable[HandedOn]) -> bool:
    """Return whether the newest of a job's executions has ended, and its next try waits."""
    last = max(starts, key=start_order)
    return any(one.execution == last.execution and one.how != "canvas" for one in handed_on)


@dataclass(frozen=True)
class Refusal:
    """An entry that is not sent again, and why.

    ``may_repeat``: as it might run twice, or kill its worker again; ``culprit``: the entry that it
    waits for in vain.
    """

    entry: str
    why: str
    may_repeat: bool = False
    culprit: str = ""


_UNPROVEN: Final = "its job may still be queued or running"
_RISKY: Final = "it may have run and is not idempotent"


class Repeating:
    """Say which entries of a run may be sent again, by what its ledger has."""

    def __init__(self, ledger: Ledger, manifest: Manifest, entries: Sequence[str]) -> None:
        self._ledger, self._manifest = ledger, manifest
        self._places = places(ledger, entries)
        self._statuses = ledger.verdicts.statuses()
        self._may_have_run: dict[str, bool] = {}
        self.doubtful: dict[str, str] = {}
        """Entries whose job may yet be on the stack, by its task id: it has to be looked for."""
        self._refused = {name: why for name in self._places if (why := self._why_never(name))}
        ended = (manifest[name] for name in self._places if name not in self._refused)
        judging = Judging(ledger)
        self._over: dict[str, str] = {}
        for one in judging.each(ended):
            self._note(one.entry.id, one.judgement)
        for task_id, moved in ledger.events.each(Moved, list(self._over)).items():
            if moved[-1].how == "left":  # a dead worker had it, and the broker gives it back
                self.doubtful[task_id] = self._over[task_id]
        lost = (manifest[name] for name, why in self._refused.items() if why == _UNPROVEN)
        judged = (one for one in judging.each(lost) if not one.entry.idempotent)
        self._risky = {one.entry.id for one in judged if one.judgement.may_have_run}
        """Entries of which it is not known whether they go on, have run, or may be sent again."""

    def refusals(
        self, *, unsafe: bool, doubts: Iterable[str] = (), coming: Container[str] | None = None
    ) -> list[Refusal]:
        """Return those of the entries that are not sent again.

        ``doubts``: those whose job may still be there; ``coming``: entries that are still to come
        to an end in this session, None: those that have no verdict.
        """
        found = {name: Refusal(name, why) for name, why in self._refused.items()}
        if not unsafe:
            found |= {name: Refusal(name, _RISKY, may_repeat=True) for name in self._risky}
        found |= {name: Refusal(name, _UNPROVEN) for name in doubts}
        for name in () if unsafe else self._may_have_run:
            if why := self._why_unsafe(name):
                found.setdefault(name, Refusal(name, why, may_repeat=True))
        waiting: dict[str, list[str]] = {}
        for name in self._may_have_run:
            for one in self._manifest[name].after:
                waiting.setdefault(one, []).append(name)
        known = self._ledger.attempts.known_entries(list(waiting)) if coming is None else coming
        fallen = deque(one for one in waiting if self._has_fallen(one, found, known))
        while fallen:
            culprit = fallen.popleft()
            for name in waiting.get(culprit, ()):
                if name not in found:
                    why = f"it waits for {culprit!r}, which has not passed"
                    found[name] = Refusal(name, why, culprit=culprit)
                    fallen.append(name)
        return list(found.values())

    def _why_never(self, name: str) -> str:
        """Return why an entry is not sent again whatever becomes of others; "" where it may be."""
        place, status = self._places[name], self._statuses.get(name)
        if place == "absent" or name not in self._manifest:
            return "the run has no such entry"
        if status == "unknown":
            return _UNPROVEN
        if status is None or place not in ("ended", "dropped"):
            return f"it has no verdict yet, as it is {place}"
        if status == "passed":
            return "it has passed"
        return ""

    def _why_unsafe(self, name: str) -> str:
        """Return why an entry that has ended is not sent again unless somebody insists."""
        if self._may_have_run[name] and not self._manifest[name].idempotent:
            return _RISKY
        return DEADLY if self._statuses[name] == "quarantined" else ""

    def _note(self, name: str, judged: Judgement) -> None:
        """Note what is to be known of an entry that has come to an end."""
        if judged.goes_on:
            self._refused[name] = "a task that its job started may still run"
            return
        is_over = self._statuses[name] not in GIVEN_UP | OPEN
        if judged.task_id and judged.receipt is None:
            (self._over if is_over else self.doubtful)[judged.task_id] = name
        self._may_have_run[name] = judged.may_have_run

    def _has_fallen(self, name: str, refused: Container[str], coming: Container[str]) -> bool:
        """Return whether an entry has not passed, and will not in this session."""
        status = self._statuses.get(name)
        if status == "passed" or (name in self._may_have_run and name not in refused):
            return False
        return (status is not None and status not in OPEN) or name not in coming
