"""Put the figures into words: a line for a terminal, one for a log, one for a receipt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pytest_manifest.reporting.cells import cells
from pytest_manifest.reporting.progress_figures import Figures
from pytest_manifest.reporting.progress_text import clock, cut, pace, visible
from pytest_manifest.verdict import outcome

if TYPE_CHECKING:
    from pytest_manifest.ledger import EntryVerdict

LEAST_NAME: Final = 12
MOST_NAME: Final = 40
"""Columns for the name of an entry, at least and at most."""
ROOMY: Final = 60
"""Columns of a terminal from which a separator stands between the figures."""
NOTEWORTHY: Final = 1.0
"""Seconds that an entry must have been running to be named as the slowest."""
ALWAYS, NEEDED, WANTED, GOOD, EXTRA, LAST = range(6)
COLORS: Final = {"passed": "green", "failed": "red", "error": "red", "skipped": "yellow"}


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


def live_line(figures: Figures, width: int, markup: Markup, encoding: str = "utf-8") -> str:
    """Return the figures in at most ``width`` columns, without the less important in a narrow one.

    The number of entries that are done is always there.
    """
    between = _between(width, encoding)
    parts = list(_parts(figures, encoding))
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


def _between(width: int, encoding: str) -> str:
    if width < ROOMY:
        return "  "
    return " \xb7 " if visible("\xb7", encoding) == "\xb7" else " | "


def _parts(figures: Figures, encoding: str) -> Iterator[_Part]:
    yield _Part("manifest", LAST)
    yield _Part(f"{figures.done}/{figures.total}", ALWAYS)
    yield _Part(f"sent {figures.sent}", EXTRA if figures.sent < figures.total else LAST)
    yield _Part(f"running {figures.running}", WANTED)
    if figures.held:
        yield _Part(f"held {figures.held}", NEEDED, "yellow")
    yield _Part(f"passed {figures.passed}", GOOD, "green" if figures.passed else None)
    # A zero is shown too; that none failed matters more than that none was lost.
    for name, count, rank in (("failed", figures.failed, GOOD), ("lost", figures.lost, EXTRA)):
        yield _Part(f"{name} {count}", NEEDED if count else rank, "red" if count else None)
    if figures.unknown:
        yield _Part(f"unknown {figures.unknown}", NEEDED, "red")
    if figures.skipped:
        yield _Part(f"skipped {figures.skipped}", GOOD, "yellow")
    if figures.rate is not None:
        yield _Part(pace(figures.rate), GOOD)
    if figures.eta is not None:
        yield _Part(f"ETA {clock(max(figures.eta, 1))}", WANTED)
    if figures.slowest is not None and figures.slowest[1] >= NOTEWORTHY:
        entry, seconds = figures.slowest
        yield _Part("slowest ", GOOD, None, visible(entry, encoding), f" {clock(seconds)}")


def log_line(figures: Figures) -> str:
    """Return all figures on one line of ASCII, for a log."""
    text = (
        f"manifest after {clock(figures.elapsed)}: {figures.done} of {figures.total} done; "
        f"sent {figures.sent}, running {figures.running}, passed {figures.passed}, "
        f"failed {figures.failed}, lost {figures.lost}"
    )
    if figures.unknown:
        text += f", unknown {figures.unknown}"
    if figures.skipped:
        text += f", skipped {figures.skipped}"
    if figures.held:
        text += f", held by no worker that answers {figures.held}"
    if figures.rate is not None:
        text += f"; {pace(figures.rate)}"
    if figures.eta is not None:
        text += f", ETA {clock(max(figures.eta, 1))}"
    if figures.slowest is not None:
        entry, seconds = figures.slowest
        text += f"; slowest running {cut(visible(entry, 'ascii'), MOST_NAME)} {clock(seconds)}"
    return text


def receipt_line(settled: EntryVerdict, encoding: str = "utf-8") -> tuple[str, str]:
    """Return verdict, entry, runtime and worker of a new verdict, and the line's colour.

    A dash stands for a runtime or worker that is not known.
    """
    verdict, receipt = settled.verdict, settled.receipt
    runtime = None if receipt is None else receipt.runtime
    worker = None if receipt is None else receipt.worker
    words = [
        verdict.verdict,
        visible(verdict.entry, encoding),
        "-" if runtime is None else f"{runtime:.3f} s",
        visible(worker or "-", encoding),
    ]
    return "  ".join(words), COLORS[outcome(verdict.verdict)]
