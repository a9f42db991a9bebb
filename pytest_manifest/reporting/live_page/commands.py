"""Give a run the commands that the buttons of its page stand for: those of ``manifest ctl``."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast, get_args

from pydantic import JsonValue

from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.listing import Wanted
from pytest_manifest.processes import is_held
from pytest_manifest.schema.run_facts import Action
from pytest_manifest.schema.run_status import RunStatus

ANSWER_SECONDS: Final = 5.0
"""Seconds for which the answer of the run is waited for."""
_POLL_SECONDS: Final = 0.05
_KEPT: Final = ("cancel", "requeue")
"""Commands that a run which nobody follows keeps for the session that goes on with it."""
_LONGEST_REASON: Final = 500
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "set": ("limits",),
    "stop": ("how",),
    "cancel": ("entries", "running"),
    "requeue": ("entries", "cause", "unsafe"),
}
"""What the data of an action may have."""

OfCause = Callable[[str], Sequence[int]]


def give(
    path: Path, document: Mapping[str, JsonValue], status: RunStatus | None, of_cause: OfCause
) -> str:
    """Write a command into a ledger, and return what the run answers, or that nobody does.

    ``status``: the run as it was seen last; ``of_cause`` returns the numbers of a cause's entries.
    Raises PlanError for what is no command, or what nobody would obey; LedgerError.
    """
    action, reason, data = (document.get(name) for name in ("action", "reason", "data"))
    if action not in get_args(Action) or not isinstance(data, dict):
        raise PlanError("there is no such command")
    known = cast("Action", action)
    if status is not None and status.is_over and known not in _KEPT:
        raise PlanError(f"nobody would obey: the run is {status.state}")
    with Ledger.open(path, write=True) as ledger:
        given = _checked(ledger, known, data, of_cause)
        by = f"{getpass.getuser()}@{socket.gethostname()} (page)"
        number = ledger.commands.add(known, by, str(reason or "")[:_LONGEST_REASON], given)
        deadline = time.monotonic() + (ANSWER_SECONDS if is_held(RunFiles(path).lock) else 0.0)
        while time.monotonic() < deadline:
            if (answer := ledger.commands.answer_of(number)) is not None:
                return answer.message
            time.sleep(_POLL_SECONDS)
    if known in _KEPT:
        return "no pytest has answered; it is kept for the session that resumes the run"
    return "no pytest has answered; it is done as soon as one follows the run"


def _checked(
    ledger: Ledger, action: Action, data: Mapping[str, JsonValue], of_cause: OfCause
) -> dict[str, JsonValue]:
    """Return the data of a command as the run reads it. Raises PlanError."""
    given = {name: one for name, one in data.items() if name in _FIELDS.get(action, ())}
    if action == "set":
        limits = given.pop("limits", None)
        if not isinstance(limits, dict) or not limits:
            raise PlanError("fill in what is to be set")
        return {str(name): str(text) for name, text in limits.items()}
    if (cause := given.pop("cause", None)) is not None:
        some = ledger.listing.some(Wanted(numbers=of_cause(str(cause))), most=0)
        given["entries"] = [name for name, _ in some]
    if action in _KEPT and not given.get("entries"):
        raise PlanError("there is no entry that this is about")
    return given
