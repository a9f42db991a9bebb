"""Keep what operators ask of a run, and what was answered: the way from another process into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, get_args

from pydantic import JsonValue

from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.redaction.texts import redact
from pytest_manifest.schema.run_facts import Action
from pytest_manifest.text import one_line

_ADD: Final = "INSERT INTO commands (at, by, action, reason, data) VALUES (?, ?, ?, ?, ?)"
KEPT: Final[frozenset[Action]] = frozenset({"cancel", "requeue"})
"""Commands that wait for the next session of a run which nobody follows."""
DRY_RUN: Final = "dry_run"
"""In a command's data: it asks what would happen, and nothing does."""
_OPEN: Final = """
    SELECT n, at, by, action, reason, data FROM commands
    WHERE answered_at IS NULL AND action IN (SELECT value FROM json_each(?)) ORDER BY n
"""
_KNOWN: Final = json.dumps(get_args(Action))
"""What another version of this package may ask for, and this one does not know, has no answer."""
_ANSWER: Final = "UPDATE commands SET answered_at = ?, answer = ? WHERE n = ?"
_ANSWER_OF: Final = "SELECT answer FROM commands WHERE n = ? AND answered_at IS NOT NULL"


@dataclass(frozen=True)
class Command:
    """A command that waits for the run; ``by``: who gave it, ``at`` (UTC) when."""

    number: int
    at: datetime
    by: str
    action: Action
    reason: str
    data: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Answer:
    """The answer of a run to a command.

    ``applied``: what was asked for holds now; ``changed``: it did not before. ``message``: what has
    happened, in a sentence; ``data``: more of it, for programs.
    """

    applied: bool
    changed: bool
    message: str
    data: Mapping[str, JsonValue] = field(default_factory=dict)


class Commands(LedgerPart):
    """Commands in the order in which they were given; each is answered once."""

    def add(
        self, action: Action, by: str, reason: str = "", data: Mapping[str, JsonValue] | None = None
    ) -> int:
        """Give the run a command; return its number, from 1. Secrets in its reason are hidden."""
        given = json.dumps(data or {}, ensure_ascii=False)
        now = rows.microseconds(rows.utc_now())
        with self._db.writing() as db:
            return (
                db.execute(
                    _ADD, (now, one_line(by), action, one_line(redact(reason)), given)
                ).lastrowid
                or 0
            )

    def open(self) -> list[Command]:
        """Return the commands that have no answer."""
        return list(self._db.build_each(_command_of_row, _OPEN, (_KNOWN,)))

    def answer(self, number: int, answer: Answer) -> None:
        """Record what became of a command; call it with all that it has changed."""
        now = rows.microseconds(rows.utc_now())
        with self._db.writing() as db:
            db.execute(_ANSWER, (now, json.dumps(vars(answer), ensure_ascii=False), number))

    def answer_of(self, number: int) -> Answer | None:
        """Return the answer to a command; None where there is none yet."""
        row = self._db.read_one(_ANSWER_OF, (number,))
        with self._db.parse_errors():
            return None if row is None else Answer(**json.loads(row[0]))


def _command_of_row(row: rows.Row) -> Command:
    number, at, by, action, reason, data = row
    return Command(int(number), rows.moment_of(at), by, action, reason, json.loads(data))
