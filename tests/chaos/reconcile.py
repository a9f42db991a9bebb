"""An account of every message: what was sent has run, was revoked, is lost, or is still there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.drain import Remains
from tests.chaos.executions import Execution
from tests.chaos.record import Sending
from tests.chaos.workload import Group

PLACES = ("executed", "lost", "revoked", "there")
"""Where a message can be in the end, each in one of them."""
NEVER_LEFT = ("planned", "withheld")
TAKEN_BACK = ("revoked", "withdrawn", "cancelled", "expired", "rejected", "quarantined", "skipped")
"""What a message was called that its worker, or the run, has taken away and told so."""
MISSED = ("lost", "unknown", "timed_out", "crashed", "pending")
"""What a message that is nowhere may be called; an entry that is pending has its own flaw."""
OVER = ("rejected", "unknown_task", "skipped")
"""What says, as "lost" does, that no worker will begin it any more."""
NOBODY = Group("nobody", 0)


@dataclass
class Account:
    """Where the messages of a round are; those that were sent are the sum.

    ``recovered``: a sentence for each that was called lost, and came all the same; ``flaws``: one
    for each that does not add up.
    """

    executed: int = 0
    lost: int = 0
    revoked: int = 0
    there: int = 0
    recovered: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Books:
    """What is held against one another. ``lines``: what the tasks wrote; ``sendings``: what the
    ledgers know; ``remains``: what was drained; ``killed``: pids of processes that were killed;
    ``forced``: the fault makes messages come twice."""

    members: Mapping[str, Group]
    lines: Sequence[Execution]
    sendings: Sequence[Sending]
    remains: Sequence[Remains]
    killed: Collection[int] = ()
    forced: bool = False


def reconcile(books: Books) -> Account:
    """Account for each message that a ledger, a task, or a broker knows of."""
    account = Account()
    by_id: dict[str, list[Execution]] = {}
    for line in books.lines:
        by_id.setdefault(line.task_id, []).append(line)
    places: dict[str, list[str]] = {}
    for message in (one for some in books.remains for one in some.messages):
        places.setdefault(message.task_id, []).append(message.place)
    known = {one.task_id: one for one in books.sendings}
    for task_id in dict.fromkeys([*known, *by_id, *places]):
        lines, there = by_id.get(task_id, []), places.get(task_id, [])
        sending = known.get(task_id)
        if sending is None:
            sending = Sending(task_id, _entry_of(lines), "sent", "")
            account.flaws += _stranger(sending, lines, known.values())
        elif sending.state in NEVER_LEFT:
            if lines or there:
                account.flaws.append(f"{_name(sending)} was never sent, and it left: {there}")
            continue
        _enter(account, sending, lines, there, books)
    for one in books.remains:
        account.flaws += one.odd
    return account


def _enter(
    account: Account,
    sending: Sending,
    lines: Sequence[Execution],
    there: Sequence[str],
    books: Books,
) -> None:
    """Put a message where it belongs, once, and say what does not fit."""
    if lines:
        account.executed += 1
    elif there:
        account.there += 1
    elif sending.state == "withdrawn" or sending.kind in TAKEN_BACK:
        account.revoked += 1
    else:
        account.lost += 1
        account.flaws += _untold(sending, books)
    came = _came(sending, lines, there)
    if came:
        account.recovered.append(f"{_name(sending)} was called lost, and {came}")
    account.flaws += _surplus(sending, lines, there, books)


def _untold(sending: Sending, books: Books) -> Iterator[str]:
    """A message that is nowhere, and nobody said so; a descendant's may be told by its entry."""
    if sending.root:
        (root,) = (one for one in books.sendings if one.task_id == sending.root)
        if "passed" in (sending.kind, root.kind):
            yield f"{_name(sending)} is nowhere, and it or its entry is called 'passed'"
    elif sending.kind not in MISSED:
        yield f"{_name(sending)} is nowhere, and is called {sending.kind or 'nothing'!r}"


def _came(sending: Sending, lines: Sequence[Execution], there: Sequence[str]) -> str:
    """How a message came that was called lost once, if it did."""
    if sending.kind != "lost" and "lost" not in sending.told:
        return ""
    if there:
        return f"is in {there[0]}"
    if any(line.what == "end" for line in lines):
        return "ran to its end"
    told = sending.told.get("lost")
    if told is not None and any(line.what == "start" and line.at > told for line in lines):
        return "was begun later"
    return ""


def _surplus(
    sending: Sending, lines: Sequence[Execution], there: Sequence[str], books: Books
) -> Iterator[str]:
    """What is in the broker and should not be: it would run, or run again."""
    group = books.members.get(sending.entry, NOBODY)
    again = books.forced or group.is_late
    if not there or again:
        return
    if len(there) > 1:
        yield f"{_name(sending)} is in the broker {len(there)} times: {', '.join(there)}"
    ended = [line for line in lines if line.what == "end"]
    if ended and not any(line.pid in books.killed for line in ended):
        yield f"{_name(sending)} ran to its end, and is in {there[0]}: it would run again"
    if sending.kind in OVER:
        yield f"{_name(sending)} is called {sending.kind!r}, and is in {there[0]}"


def _stranger(
    sending: Sending, lines: Sequence[Execution], known: Iterable[Sending]
) -> Iterator[str]:
    """A message that no ledger knows. What a job has started may be unknown that did not pass."""
    kinds = Counter(one.kind for one in known if one.entry == sending.entry)
    is_twig = bool(lines) and all("/" in line.key for line in lines)
    if not is_twig or (kinds["passed"] and len(kinds) == 1):
        yield f"{_name(sending)} ran or waits, and no ledger has it"


def _entry_of(lines: Sequence[Execution]) -> str:
    return lines[0].key.partition("/")[0] if lines else ""


def _name(sending: Sending) -> str:
    what = "a descendant of " if sending.root else ""
    return f"{what}{sending.entry or 'nobody'} ({sending.task_id})"
