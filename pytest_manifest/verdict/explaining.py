"""The text of a failed test: the sentence, the differences side by side, and what is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_manifest.schema import Entry, Mismatch, Receipt, Verdict
from pytest_manifest.verdict.text import middle, plain, plural, seconds, short

_WIDTH = 100
_CELL = 60
_LOG_LINES = 20
_TRACEBACK_LINES = 60
_INTERNAL = re.compile(
    r"(site|dist)-packages/(celery|kombu|billiard|pytest_manifest)/|/pytest_manifest/worker/"
)


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """What is told of one attempt: its verdict, and why it was made (None: it was the first)."""

    number: int
    kind: str
    sentence: str
    reason: str | None = None


def explain(
    entry: Entry,
    receipt: Receipt | None,
    verdict: Verdict,
    attempts: Sequence[AttemptLine] = (),
) -> str:
    """Plain text of several lines for a terminal or a report, free of colours and control codes.

    ``attempts``, oldest first, are shown where there is more than one.
    """
    parts = [verdict.sentence]
    if verdict.mismatches:
        parts.append("\n".join(_table(verdict.mismatches)))
    facts = list(_facts(entry, receipt))
    if receipt is not None and verdict.verdict == "forged":
        facts.insert(2, ("receipt", "what follows is what it says, believed or not"))
    parts.append("\n".join(f"  {name:<10}{value}" for name, value in facts))
    if len(attempts) > 1:
        parts.append("\n".join(["Attempts:", *_attempts(attempts)]))
    if receipt is not None:
        parts.extend("\n".join(block) for block in (_traceback(receipt), _log(receipt)) if block)
    return "\n\n".join(parts)


def _table(mismatches: Sequence[Mismatch]) -> Iterator[str]:
    rows = [("", "expected", "actual")]
    for mismatch in mismatches:
        cells = mismatch.path, mismatch.expected, mismatch.actual
        rows.append(tuple(middle(_one_line(cell), _CELL) for cell in cells))  # type: ignore[arg-type]  # three cells
    wide, wider = (max(len(row[column]) for row in rows) for column in (0, 1))
    for path, expected, actual in rows:
        yield f"  {path:<{wide}}  {expected:<{wider}}  {actual}".rstrip()


def _facts(entry: Entry, receipt: Receipt | None) -> Iterator[tuple[str, str]]:
    yield "entry", entry.id
    yield "task", f"{entry.task}({_arguments(entry)})"
    if receipt is not None:
        yield "attempt", f"{receipt.attempt}, task id {plain(receipt.task_id)}"
        yield from _course(receipt)
    if entry.meta:
        yield "meta", _one_line(short(entry.meta, _WIDTH))
    if receipt is not None and receipt.evidence:
        yield "evidence", _one_line(short(receipt.evidence, _WIDTH))


def _attempts(attempts: Sequence[AttemptLine]) -> Iterator[str]:
    wide = max(len(plain(one.kind)) for one in attempts)
    for one in attempts:
        why = f"sent again ({_one_line(one.reason)}): " if one.reason else ""
        said = middle(_one_line(one.sentence), 2 * _WIDTH)
        yield f"  {one.number}  {plain(one.kind):<{wide}}  {why}{said}"


def _arguments(entry: Entry) -> str:
    given = [short(value, _CELL) for value in entry.args]
    given += [f"{key}={short(value, _CELL)}" for key, value in entry.kwargs.items()]
    return middle(_one_line(", ".join(given)), _WIDTH)


def _course(receipt: Receipt) -> Iterator[tuple[str, str]]:
    """Where and when it ran, as far as the receipt says."""
    place = [
        plain(receipt.worker) if receipt.worker else "",
        f"host {plain(receipt.host)}" if receipt.host else "",
        f"pid {receipt.pid}" if receipt.pid is not None else "",
        f"queue {plain(receipt.queue)}" if receipt.queue else "",
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
    for name, parts in (("ran on", place), ("times", times), ("counts", counts)):
        if known := ", ".join(filter(None, parts)):
            yield name, known


def _death(receipt: Receipt) -> str:
    """What is known of when a process died: not the moment, which nobody has seen."""
    began, noticed = receipt.started_at, receipt.finished_at
    if receipt.state != "crashed" or receipt.runtime is not None or None in (began, noticed):
        return ""
    return f"began {began:%H:%M:%S.%f}, was found dead {noticed:%H:%M:%S.%f} UTC"


def _traceback(receipt: Receipt) -> list[str]:
    if receipt.error is None or not receipt.error.traceback:
        return []
    lines = task_traceback(plain(receipt.error.traceback))
    if len(lines) > _TRACEBACK_LINES:
        half = _TRACEBACK_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"  ... {plural(left_out, 'line')} left out ...", *lines[-half:]]
    return ["The worker's traceback:", *(f"  {line}".rstrip() for line in lines)]


def task_traceback(text: str) -> list[str]:
    """The traceback's lines without the frames of Celery and of this package.

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


def _log(receipt: Receipt) -> list[str]:
    if not receipt.log:
        return []
    shown = receipt.log[-_LOG_LINES:]
    earlier = receipt.log_dropped + len(receipt.log) - len(shown)
    before = f" ({plural(earlier, 'earlier one')} not shown)" if earlier else ""
    lines = (middle(_one_line(line), 2 * _WIDTH) for line in shown)
    return [f"The task's last log lines{before}:", *(f"  {line}" for line in lines)]


def _one_line(text: str) -> str:
    return plain(text).replace("\n", "\\n").replace("\t", " ")
