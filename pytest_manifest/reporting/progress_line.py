"""Put progress into words: a line for a terminal, one for a log, one for a receipt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pytest_manifest.reporting.progress_meter import ProgressStats
from pytest_manifest.schema.statuses import SIGNS, outcome
from pytest_manifest.text import cells, clock, cut, short_rate, terminal_line

if TYPE_CHECKING:
    from pytest_manifest.ledger import EntryVerdict

LEAST_NAME: Final = 12
MOST_NAME: Final = 40
"""Columns for the name of an entry, at least and at most."""
ROOMY: Final = 60
"""Columns of a terminal from which a separator stands between the numbers."""
NOTEWORTHY: Final = 1.0
"""Seconds that an entry must have been running to be named as the slowest."""
ALWAYS, NEEDED, WANTED, GOOD, EXTRA, LAST = range(6)


class Markup(Protocol):
    """pytest's function that colours a text, or returns it as it is where colours are off."""

    def __call__(self, text: str, **markup: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the line; ``name``, between two texts, is as wide as the room allows."""

    text: str
    rank: int
    color: str | None = None
    name: str = ""
    after: str = ""

    @property
    def least(self) -> int:
        return len(self.text) + len(self.after) + min(cells(self.name), LEAST_NAME)

    def shown(self, left: int, markup: Markup) -> str:
        room = min(cells(self.name), LEAST_NAME) + left
        text = f"{self.text}{cut(self.name, min(room, MOST_NAME))}{self.after}"
        return markup(text, **{self.color: True}) if self.color else text


def live_line(stats: ProgressStats, width: int, markup: Markup, encoding: str = "utf-8") -> str:
    """Return the numbers in at most ``width`` columns, without the less important in a narrow one.

    The number of entries that are done is always there.
    """
    between = _separator(width, encoding)
    parts = list(_parts(stats, encoding))
    chosen: set[int] = set()
    left = width + len(between)
    for index in sorted(range(len(parts)), key=lambda i: (parts[i].rank, i)):
        needed = parts[index].least + len(between)
        if parts[index].rank == ALWAYS or needed <= left:
            chosen.add(index)
            left -= needed
    return between.join(
        part.shown(left, markup) for index, part in enumerate(parts) if index in chosen
    )


def _separator(width: int, encoding: str) -> str:
    if width < ROOMY:
        return "  "
    return " \xb7 " if terminal_line("\xb7", encoding) == "\xb7" else " | "


def _parts(stats: ProgressStats, encoding: str) -> Iterator[_Part]:
    yield _Part("manifest", LAST)
    yield _Part(f"{stats.done}/{stats.total}", ALWAYS)
    yield _Part(f"sent {stats.sent}", EXTRA if stats.sent < stats.total else LAST)
    yield _Part(f"running {stats.running}", WANTED)
    if stats.retrying:
        due = _due(stats)
        yield _Part(f"retry {stats.retrying}{f' in {due}' if due else ''}", WANTED)
    if stats.stranded:
        yield _Part(f"held {stats.stranded}", NEEDED, "yellow")
    if stats.unattended is not None:
        yield _Part(f"no worker for {clock(stats.unattended)}", NEEDED, "yellow")
    yield _Part(f"passed {stats.passed}", GOOD, "green" if stats.passed else None)
    # A zero is shown too; that none failed matters more than that none was lost.
    for name, count, rank in (("failed", stats.failed, GOOD), ("lost", stats.lost, EXTRA)):
        yield _Part(f"{name} {count}", NEEDED if count else rank, "red" if count else None)
    if stats.unknown:
        yield _Part(f"unknown {stats.unknown}", NEEDED, "red")
    if stats.skipped:
        yield _Part(f"skipped {stats.skipped}", GOOD, "yellow")
    if stats.rate is not None:
        yield _Part(short_rate(stats.rate), GOOD)
    if stats.eta is not None:
        yield _Part(f"ETA {clock(max(stats.eta, 1))}", WANTED)
    if stats.slowest is not None and stats.slowest[1] >= NOTEWORTHY:
        entry, seconds = stats.slowest
        yield _Part("slowest ", GOOD, None, terminal_line(entry, encoding), f" {clock(seconds)}")


def _due(stats: ProgressStats) -> str:
    """Return the time until the first next try, nothing where it is not known or over."""
    return clock(stats.next_try) if stats.next_try is not None and stats.next_try >= 1 else ""


def log_line(stats: ProgressStats) -> str:
    """Return all numbers on one line of ASCII, for a log."""
    text = (
        f"manifest after {clock(stats.elapsed)}: {stats.done} of {stats.total} done; "
        f"sent {stats.sent}, running {stats.running}, passed {stats.passed}, "
        f"failed {stats.failed}, lost {stats.lost}"
    )
    if stats.unknown:
        text += f", unknown {stats.unknown}"
    if stats.skipped:
        text += f", skipped {stats.skipped}"
    if stats.stranded:
        text += f", held by no worker that answers {stats.stranded}"
    if stats.retrying:
        due = _due(stats)
        text += f", waiting for their own next try {stats.retrying}"
        text += f" (the first in {due})" if due else ""
    if stats.unattended is not None:
        text += f"; no worker has answered for {clock(stats.unattended)}"
    if stats.rate is not None:
        text += f"; {short_rate(stats.rate)}"
    if stats.eta is not None:
        text += f", ETA {clock(max(stats.eta, 1))}"
    if stats.slowest is not None:
        entry, seconds = stats.slowest
        text += (
            f"; slowest running {cut(terminal_line(entry, 'ascii'), MOST_NAME)} {clock(seconds)}"
        )
    return text


def receipt_line(found: EntryVerdict, encoding: str = "utf-8") -> tuple[str, str]:
    """Return verdict, entry, runtime and worker of a new verdict, and the line's colour.

    A dash stands for a runtime or worker that is not known, and ``reused`` for the runtime of what
    an earlier run has run.
    """
    verdict, receipt = found.verdict, found.receipt
    runtime = None if receipt is None else receipt.runtime
    worker = None if receipt is None else receipt.worker
    took = "-" if runtime is None else f"{runtime:.3f} s"
    if receipt is not None and receipt.reused is not None:
        took, worker = "reused", None
    words = [
        verdict.verdict,
        terminal_line(verdict.entry, encoding),
        took,
        terminal_line(worker or "-", encoding),
    ]
    return "  ".join(words), SIGNS[outcome(verdict.verdict)].colour
