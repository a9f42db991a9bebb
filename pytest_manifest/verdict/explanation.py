"""Write the text of a failed test: the message, the differences side by side, what is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pytest_manifest.schema import Entry, ErrorInfo, Mismatch, Receipt, Verdict
from pytest_manifest.schema import shown as hiding
from pytest_manifest.schema.statuses import NOT_SENT, RAISED
from pytest_manifest.text import many, middle, plural, printable, seconds, short
from pytest_manifest.verdict.messages import SCHEMA_PATH
from pytest_manifest.verdict.reasons import reason_of
from pytest_manifest.verdict.tree import PATH, descendant_of

_WIDTH = 100
_CELL = 60
_LOG_LINES = 20
_TRACEBACK_LINES = 60
_LONGEST_LINE = 1000
"""Characters of a traceback's line: an error's message may be a whole document."""
_INTERNAL = re.compile(
    r"(site|dist)-packages/(celery|kombu|billiard|pytest_manifest)/|/pytest_manifest/worker/"
)
_FRAME = re.compile(r'  File "([^"]*)", line (\d+)(?:, in (.*))?')
_BEGIN = "Traceback (most recent call last):"
_GROUP = re.compile(r"^ *[|+][-+]* ?")
"""The prefix of each line of an exception group's traceback."""
_NAME_LIMIT = 80


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt's line: its verdict, and why it was made (None: it was the first)."""

    number: int
    status: str
    message: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TreeText:
    """All that is known of an attempt's descendants, in a phrase, and the one that failed it.

    ``task`` and ``task_id`` are that one's, "" where there is none, ``receipt`` is what its worker
    sent, None where nothing came.
    """

    phrase: str
    task: str = ""
    task_id: str = ""
    receipt: Receipt | None = None


def next_step(verdict: Verdict) -> str:
    """Return what a verdict's message advises to do; "" for nothing."""
    return reason_of(verdict).advice(verdict.verdict)


def explain(
    entry: Entry,
    receipt: Receipt | None,
    verdict: Verdict,
    attempts: Sequence[AttemptLine] = (),
    tree: TreeText | None = None,
    place: str = "",
) -> str:
    """Return several lines for a terminal or a report, without colours and control codes.

    ``attempts``, oldest first, are shown where there is more than one. ``tree``: None where the
    attempt has no descendants. ``place``: the entry's file and line.
    """
    secrets = hiding.secrets_of(entry, receipt)
    entry, verdict = hiding.shown_entry(entry, secrets), hiding.shown_verdict(verdict, secrets)
    receipt = None if receipt is None else hiding.shown_receipt(receipt, secrets)
    parts = [verdict.sentence]
    if verdict.mismatches:
        parts.append("\n".join(_table(verdict.mismatches)))
    fields = list(_fields(entry, receipt))
    if place:
        fields.insert(1, ("line", place))
    if receipt is not None and verdict.verdict == "forged":
        fields.insert(2, ("receipt", "what follows is what it says, true or not"))
    if tree is not None:
        fields.append(("tree", tree.phrase))
    parts.append(_table_of(fields))
    if len(attempts) > 1:
        told = [replace(one, message=hiding.shown_text(one.message, secrets)) for one in attempts]
        parts.append("\n".join(["Attempts:", *_attempts(told)]))
    if receipt is not None:
        parts.extend("\n".join(block) for block in (_traceback(receipt), _log(receipt)) if block)
    if tree is not None and tree.task_id:
        if tree.receipt is not None:
            tree = replace(tree, receipt=hiding.shown_receipt(tree.receipt, secrets))
        parts.extend(_descendant(tree))
    return "\n\n".join(parts)


def _table_of(fields: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<10}{value}" for name, value in fields)


def _descendant(tree: TreeText) -> Iterator[str]:
    """Yield the blocks about the descendant that made its entry fail."""
    fields = [("task id", printable(tree.task_id))]
    if tree.receipt is None:
        fields.append(("receipt", "none received"))
    else:
        fields += _course(tree.receipt)
    yield f"The descendant {printable(tree.task)!r}:\n{_table_of(fields)}"
    if tree.receipt is not None:
        of = "The descendant's "
        for block in (_traceback(tree.receipt, of), _log(tree.receipt, of)):
            if block:
                yield "\n".join(block)


def _table(mismatches: Sequence[Mismatch]) -> Iterator[str]:
    cells = [("", "expected", "actual"), *((m.path, m.expected, m.actual) for m in mismatches)]
    rows = [[middle(_one_line(cell), _CELL) for cell in row] for row in cells]
    wide, wider = (max(len(row[column]) for row in rows) for column in (0, 1))
    for path, expected, actual in rows:
        yield f"  {path:<{wide}}  {expected:<{wider}}  {actual}".rstrip()


def _fields(entry: Entry, receipt: Receipt | None) -> Iterator[tuple[str, str]]:
    yield "entry", entry.id
    given = [short(value, _CELL) for value in entry.args]
    given += [f"{key}={short(value, _CELL)}" for key, value in entry.kwargs.items()]
    yield "task", f"{entry.task}({middle(_one_line(', '.join(given)), _WIDTH)})"
    if receipt is not None:
        yield "attempt", f"{receipt.attempt}, task id {printable(receipt.task_id)}"
        yield from _course(receipt)
    if entry.meta:
        yield "meta", _one_line(short(entry.meta, _WIDTH))
    if receipt is not None and receipt.evidence:
        yield "evidence", _one_line(short(receipt.evidence, _WIDTH))


def _attempts(attempts: Sequence[AttemptLine]) -> Iterator[str]:
    wide = max(len(printable(one.status)) for one in attempts)
    for one in attempts:
        why = f"sent again ({_one_line(one.reason)}): " if one.reason else ""
        found = middle(_one_line(one.message), 2 * _WIDTH)
        yield f"  {one.number}  {printable(one.status):<{wide}}  {why}{found}"


def _course(receipt: Receipt) -> Iterator[tuple[str, str]]:
    """Yield where and when it ran, as far as the receipt says."""
    location = [
        printable(receipt.worker) if receipt.worker else "",
        f"host {printable(receipt.host)}" if receipt.host else "",
        f"pid {receipt.pid}" if receipt.pid is not None else "",
        f"queue {printable(receipt.queue)}" if receipt.queue else "",
    ]
    sent = receipt.sent_at.isoformat(sep=" ").replace("+00:00", " UTC") if receipt.sent_at else ""
    times = [
        f"sent {sent}" if sent else "",
        f"waited {seconds(receipt.wait)}" if receipt.wait is not None else "",
        f"ran {seconds(receipt.runtime)}" if receipt.runtime is not None else "",
        _death(receipt),
        f"CPU {seconds(receipt.cpu)}" if receipt.cpu is not None else "",
    ]
    counts = [
        plural(receipt.executions, "execution") if receipt.executions > 1 else "",
        "redelivered" if receipt.redelivered else "",
        plural(receipt.retries, "retry") if receipt.retries else "",
    ]
    for name, parts in (("ran on", location), ("times", times), ("counts", counts)):
        if known := ", ".join(filter(None, parts)):
            yield name, known


def _death(receipt: Receipt) -> str:
    """Return the times between which a process died; the exact time is unknown."""
    began, noticed = receipt.started_at, receipt.finished_at
    if receipt.state != "crashed" or receipt.runtime is not None or None in (began, noticed):
        return ""
    return f"began {began:%H:%M:%S.%f}, was found dead {noticed:%H:%M:%S.%f} UTC"


def _traceback(receipt: Receipt, of: str = "The worker's ") -> list[str]:
    if receipt.error is None or not receipt.error.traceback:
        return []
    lines = task_traceback(printable(receipt.error.traceback))
    if len(lines) > _TRACEBACK_LINES:
        half = _TRACEBACK_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"  ... {plural(left_out, 'line')} left out ...", *lines[-half:]]
    return [f"{of}traceback:", *(f"  {middle(line, _LONGEST_LINE)}".rstrip() for line in lines)]


def task_traceback(text: str) -> list[str]:
    """Return a traceback's lines without the frames of Celery and of this package.

    A traceback that has no other frames stays as it is.
    """
    kept: list[str] = []
    inside = frames = False
    for line in text.rstrip().splitlines():
        if line.startswith('  File "'):
            inside = _INTERNAL.search(line.replace("\\", "/")) is not None
            frames = frames or not inside
        elif not line.startswith("  "):
            inside = False
        if not inside:
            kept.append(line)
    return kept if frames else text.rstrip().splitlines()


def error_place(traceback: str | None) -> str | None:
    """Return a traceback's last frame, like ``jobs.py:12 in charge``; None without a frame.

    Frames of Celery and of this package, and lines of an error's message, do not count.
    """
    if not traceback:
        return None
    group = "Exception Group Traceback" in traceback
    origin, inside = None, False
    for raw in task_traceback(printable(traceback)):
        line = _GROUP.sub("", raw) if group else raw
        if line.endswith(_BEGIN):
            inside = True
        elif inside and (frame := _FRAME.match(line)) is not None:
            name = re.split(r"[/\\]", frame[1])[-1][-_NAME_LIMIT:]
            within = f" in {frame[3][:_NAME_LIMIT]}" if frame[3] else ""
            origin = f"{name}:{frame[2]}{within}"
        elif inside and line and not line.startswith("  "):
            inside = False
    return origin


def _log(receipt: Receipt, of: str = "The task's ") -> list[str]:
    if not receipt.log:
        return []
    shown = receipt.log[-_LOG_LINES:]
    earlier = receipt.log_dropped + len(receipt.log) - len(shown)
    before = f" ({plural(earlier, 'earlier one')} not shown)" if earlier else ""
    lines = (middle(_one_line(line), 2 * _WIDTH) for line in shown)
    return [f"{of}last log lines{before}:", *(f"  {line}" for line in lines)]


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", " ")


_LIMIT: Final = 300


def brief(verdict: Verdict, receipt: Receipt | None) -> str:
    """Return one line of text for a list of failures."""
    reason, text = best_known(verdict, receipt), verdict.sentence
    if isinstance(reason, Mismatch):
        text = f"{reason.path} is {reason.actual} where {reason.expected} was expected"
    elif reason is not None and verdict.verdict == "failed":
        text = f"{reason.type}: {reason.message}" if reason.message else reason.type
    elif found := descendant_of(verdict):
        text = f"its descendant {printable(found.task)!r} {found.came_to}: {found.said}"
    return middle(" ".join(printable(text).split()), _LIMIT)


def best_known(verdict: Verdict, receipt: Receipt | None) -> Mismatch | ErrorInfo | None:
    """Return what best explains a failure; None where the verdict's sentence does."""
    error = None
    if receipt is not None and verdict.verdict in RAISED:
        error = receipt.error
    mismatch = verdict.mismatches[0] if verdict.mismatches else None
    if mismatch is None or mismatch.path in ("code", SCHEMA_PATH, PATH):
        return error
    if mismatch.path == "state" and (verdict.verdict != "failed" or error is not None):
        return error
    return mismatch


_Status = TypeVar("_Status", bound=str | None)


def number_of(counts: Mapping[_Status, int]) -> int:
    """Return how many descendants ran, or should have, by their numbers by status."""
    return sum(number for status, number in counts.items() if status != NOT_SENT)


def failed_of(counts: Mapping[_Status, int]) -> int:
    """Return how many descendants have an end that is no success, by their numbers by status."""
    others = (None, "passed", "pending", NOT_SENT)
    return sum(number for status, number in counts.items() if status not in others)


def counts_text(counts: Mapping[_Status, int]) -> str:
    """Return in words how many descendants there are, and how they ended."""
    return f"{many(number_of(counts), 'descendant')}: {ends_text(counts)}"


def ends_text(counts: Mapping[_Status, int]) -> str:
    """Return in words how descendants ended, like ``1 failed, 25 passed``."""
    ends = sorted((status or "pending", count) for status, count in counts.items())
    return ", ".join(f"{count:,} {status}" for status, count in ends)
