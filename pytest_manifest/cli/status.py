"""Show how far a run is, how fast, and what to know of it, once or until it is over."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeAlias

import typer

from pytest_manifest.analysis.dispositions import ACCEPTANCE, read_dispositions
from pytest_manifest.analysis.following import RunReader
from pytest_manifest.cli import arguments
from pytest_manifest.cli.arguments import complete_run
from pytest_manifest.cli.output import say, shown
from pytest_manifest.cli.stored_run import LAST, find_run, hide_secrets, root_folder, runs_folder
from pytest_manifest.schema.receipts import cost_text
from pytest_manifest.schema.run_status import RunState, RunStatus, Setting, StatusSeries
from pytest_manifest.schema.statuses import SIGNS, STATUSES
from pytest_manifest.text import cells, cut, duration, seconds, short_rate

PERIOD: Final = 1.0
"""Seconds from one look to the next."""
LOG_PERIOD: Final = 10.0
"""Seconds from one line to the next where lines are not redrawn."""
NARROWEST: Final = 40
WIDEST: Final = 200
_SOON: Final = 600.0
"""Seconds before its end from which that is counted down."""
_NAME: Final = 12
"""Columns that a name has at least, as far as other columns can be left out for it."""
_STATES: Final[dict[RunState, tuple[str, str]]] = {
    "running": ("●", "green"),
    "paused": ("‖", "yellow"),
    "draining": ("‖", "yellow"),
    "finished": ("■", ""),
    "stopped": ("■", "yellow"),
    "detached": ("○", "yellow"),
    "left": ("✕", "red"),
}
_ASCII: Final = str.maketrans(
    {"●": "*", "‖": "=", "■": "#", "○": "o", "✕": "x", "·": "|", "▼": "v"}
)
_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.-=+*%#"

_QUANTITY: Final = re.compile(r"(?<=\d) (?=(?:s|min|h|UTC)\b)|(?<=\bmin) (?=\d)|(?<=\bh) (?=\d)")
"""The spaces within a duration or a time, at which no line is broken."""

Piece: TypeAlias = tuple[str, str]
"""A text that is not broken, and its colour, "" for the terminal's own."""
Line: TypeAlias = list[Piece]

Run = Annotated[str, typer.Argument(metavar="RUN", autocompletion=complete_run, show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="go on until the run is over")]


def status(
    run: Run = LAST,
    follow: Follow = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Show how far a run is, how fast, and what to know of it.

    RUN is a run's id, the beginning of one, "last" (the default), or the path of a ledger.
    """
    hide_secrets()
    ACCEPTANCE.now.begin(read_dispositions(root_folder()))
    with RunReader(find_run(run, runs_folder(folder))) as reader:
        if json:
            for found in _looks(reader, PERIOD, follow=follow):
                text = found.model_dump_json(indent=None if follow else 1, ensure_ascii=True)
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
        elif not follow:
            _draw(reader.look())
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            _redraw(reader)
        else:
            for found in _looks(reader, LOG_PERIOD, follow=True):
                if found.is_over:
                    _draw(found)
                else:
                    say(log_line(found))
                    sys.stdout.flush()


def _looks(reader: RunReader, period: float, *, follow: bool) -> Iterator[RunStatus]:
    """Yield the run as it is now and, to follow it, again and again until it is over."""
    while True:
        found = reader.look()
        yield found
        if found.is_over or not follow:
            return
        time.sleep(period)


def _redraw(reader: RunReader) -> None:
    """Show the run in the same place of the terminal until it is over."""
    height = 0
    for found in _looks(reader, PERIOD, follow=True):
        size = shutil.get_terminal_size()
        most = None if found.is_over else max(size.lines - 1, 1)
        if height:
            sys.stdout.write(f"\x1b[{height}A\r\x1b[J")
        height = _draw(found, most)
        sys.stdout.flush()


def _draw(found: RunStatus, most: int | None = None) -> int:
    """Print a run, in ``most`` lines; return how many there are."""
    from rich.console import Console
    from rich.text import Text

    width = shutil.get_terminal_size((100, 24)).columns
    console = Console(width=max(width, 1), highlight=False, soft_wrap=True)
    lines = list(picture(found, width, sys.stdout.encoding or "utf-8"))[:most]
    for line in lines:
        text = Text()
        for piece, colour in line:
            text.append(shown(piece), style=colour)
        console.print(text, no_wrap=True, crop=False, overflow="ignore")
    return len(lines)


def log_line(found: RunStatus) -> str:
    """Return the figures of a run on one line, for a log."""
    parts = [
        f"{found.at:%H:%M:%S} {found.state}",
        f"{found.done:,} of {found.total:,}",
        *(f"{status} {count:,}" for status, count in found.counts.items()),
        f"running {found.running:,}",
        f"waiting {found.waiting:,}",
        *([] if found.rate is None else [short_rate(found.rate)]),
        *([] if found.eta is None else [f"ends about {_clock(found.eta.at, found.at)}"]),
        *(one.text for one in found.notices[:1]),
    ]
    return ", ".join(parts)


# The picture


def picture(found: RunStatus, width: int, encoding: str = "utf-8") -> Iterator[Line]:
    """Yield the lines of a run, each at most ``width`` columns wide; from 40 on nothing is lost.

    No line wraps, and no number is cut.
    """
    width = min(max(width, 1), WIDEST)
    plain = not _can("●‖■○✕·▼▁█░", encoding)
    for line in _lines(found, width, plain):
        yield [(text.translate(_ASCII) if plain else text, colour) for text, colour in line]


def _can(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _lines(found: RunStatus, width: int, plain: bool) -> Iterator[Line]:
    yield from _flow(_head(found, width), width)
    yield from _flow(_progress(found), width)
    if not found.is_over:
        yield [_bar(found, min(width, 100), plain)]
    yield from _flow(_counts(found), width)
    for one in found.notices:
        yield from _wrapped(f"! {one.text}", width, "bold yellow")
        yield from _wrapped(f"  {one.evidence}", width, "")
        yield from _wrapped(f"  {one.remedy}", width, "cyan")
    yield from _rate(found, width, plain)
    for table in (_causes(found), _workers(found), _longest(found), _tasks(found)):
        yield from table.lines(width)
    yield from _story(found, width)


def _head(found: RunStatus, width: int) -> Iterator[Piece]:
    sign, colour = _STATES[found.state]
    yield cut(Path(found.manifest).name, min(width, 60)), "bold"
    yield f"run {found.run}", ""
    yield f"began {_clock(found.began, found.at)} UTC", ""
    yield f"{sign} {found.state} {duration(found.elapsed)}", colour


def _progress(found: RunStatus) -> Iterator[Piece]:
    yield f"{found.done:,} of {found.total:,}", "bold"
    if found.verdict is not None:
        yield f"· {found.verdict}", "bold"
    if found.eta is not None:
        eta, now = found.eta, found.at
        left = (eta.at - now).total_seconds()
        soon = left < _SOON
        ends = (
            f"ends in about {duration(round(left))}"
            if soon
            else f"ends about {_clock(eta.at, now)}"
        )
        yield f"· {ends}", ""
        if not soon and _clock(eta.earliest, now) != _clock(eta.latest, now):
            yield f"({_clock(eta.earliest, now)} to {_clock(eta.latest, now)})", ""
        if eta.before is not None and _clock(eta.before, now) != _clock(eta.at, now):
            yield f"(was {_clock(eta.before, now)})", ""
    if found.rate is not None:
        yield f"· {short_rate(found.rate)}", ""
    cost = found.cost
    if cost.total is not None or cost.budget is not None:
        of = "" if cost.budget is None else f" of {cost_text(cost.budget)}"
        over = cost.budget is not None and (cost.foreseen or 0.0) > cost.budget
        yield f"· cost {cost_text(cost.total or 0.0)}{of}", "yellow" if over else ""


def _bar(found: RunStatus, width: int, plain: bool) -> Piece:
    share = found.done / found.total if found.total else 1.0
    full = int(share * width)
    return ("#." if plain else "█░")[0] * full + ("#." if plain else "█░")[1] * (
        width - full
    ), "green"


def _counts(found: RunStatus) -> Iterator[Piece]:
    for status_, count in found.counts.items():
        yield f"{status_} {count:,}", SIGNS[STATUSES[status_].outcome].colour
    if found.accepted:
        yield f"accepted {found.accepted:,}", ""
    if found.reused:
        yield f"reused {found.reused:,}", ""
    if not found.is_over or found.running:
        yield f"running {found.running:,}", ""
    if not found.is_over or found.waiting:
        yield f"waiting {found.waiting:,}", ""
    if found.retrying:
        due = "" if found.next_try is None else f" from {_clock(found.next_try, found.at)}"
        yield f"trying again {found.retrying:,}{due}", ""
    if found.unsent:
        yield f"not sent {found.unsent:,}", ""


def _rate(found: RunStatus, width: int, plain: bool) -> Iterator[Line]:
    """Yield the rate over time as bars, with the last flag below its moment."""
    series = found.series
    if len(series.done) < 2:
        return
    usual = "" if found.median_rate is None else f"usually {short_rate(found.median_rate)}"
    title: Line = [("RATE", "bold"), (f"  {usual}" if usual else "", "")]
    yield title
    columns = min(width, 100)
    bars = _PLAIN_BARS if plain else _BARS
    heights = _resampled(series, columns)
    top = max(heights) or 1.0
    drawn = "".join(bars[min(int(one / top * len(bars)), len(bars) - 1)] for one in heights)
    yield [(drawn, "green")]
    for flag in found.series.flags[-1:]:
        label = f"▼ {_clock(flag.at, found.at)} {flag.text}"
        passed = (flag.at - series.began).total_seconds() / series.width
        place = int(max(passed, 0) / max(len(series.done), 1) * len(heights))
        label = cut(label, width)
        yield [(" " * max(min(place, width - cells(label)), 0) + label, "yellow")]


def _resampled(series: StatusSeries, most: int) -> list[float]:
    """Return the rates of the run's buckets in at most so many equal parts."""
    done = series.done
    if len(done) <= most:
        return [float(one) for one in done]
    edges = [place * len(done) // most for place in range(most + 1)]
    return [sum(done[a:b]) / (b - a) for a, b in pairwise(edges)]


class _Column(NamedTuple):
    """A column of a table; ``rank``: the higher, the sooner it is left out; 0: never.

    ``is_text``: it may be cut, and is as wide as there is room for.
    """

    head: str
    rank: int = 0
    is_text: bool = False


class _Table(NamedTuple):
    """Rows below a title; ``more``: how many further ones there are."""

    columns: Sequence[_Column]
    rows: Sequence[Sequence[str]]
    colours: Sequence[str] = ()
    more: int = 0

    def lines(self, width: int) -> Iterator[Line]:
        if not self.rows:
            return
        chosen = list(range(len(self.columns)))
        while self._needed(chosen) > width and len(chosen) > 1:
            worst = max(chosen, key=lambda place: self.columns[place].rank)
            if not self.columns[worst].rank:
                break
            chosen.remove(worst)
        widths = self._widths(chosen, width)
        heads = [self.columns[place].head for place in chosen]
        yield [(self._row(heads, chosen, widths), "bold")]
        for number, row in enumerate(self.rows):
            colour = self.colours[number] if self.colours else ""
            yield [(self._row([row[place] for place in chosen], chosen, widths), colour)]
        if self.more:
            yield [(cut(f"and {self.more:,} more", width), "")]

    def _wide(self, place: int) -> int:
        return max(cells(self.columns[place].head), *(cells(row[place]) for row in self.rows))

    def _least(self, place: int) -> int:
        return min(self._wide(place), max(_NAME, cells(self.columns[place].head)))

    def _needed(self, chosen: Sequence[int]) -> int:
        texts = (self._least(one) for one in chosen if self.columns[one].is_text)
        numbers = (self._wide(one) for one in chosen if not self.columns[one].is_text)
        return sum(texts) + sum(numbers) + 2 * (len(chosen) - 1)

    def _widths(self, chosen: Sequence[int], width: int) -> list[int]:
        """Return the columns' widths; what is left over goes to texts, the first ones first."""
        widths = {
            one: self._least(one) if self.columns[one].is_text else self._wide(one)
            for one in chosen
        }
        left = width - sum(widths.values()) - 2 * (len(chosen) - 1)
        for one in chosen:
            if self.columns[one].is_text:
                more = max(min(left, self._wide(one) - widths[one]), 0)
                widths[one] += more
                left -= more
        first = chosen[0]
        if left < 0:  # numbers alone are too wide for the terminal
            widths[first] = max(widths[first] + left, 1)
        return [widths[one] for one in chosen]

    def _row(self, texts: Sequence[str], chosen: Sequence[int], widths: Sequence[int]) -> str:
        found = []
        for text, place, wide in zip(texts, chosen, widths, strict=True):
            is_text = self.columns[place].is_text
            fitted = cut(text, wide) if is_text else text
            pad = " " * (wide - cells(fitted))
            found.append(fitted + pad if is_text else pad + fitted)
        return "  ".join(found).rstrip()


def _causes(found: RunStatus) -> _Table:
    new = {True: "new", False: "", None: ""}
    return _Table(
        (
            *(_Column("WHAT GOES WRONG", is_text=True), _Column("entries")),
            *(_Column("last minute", 2), _Column("", 3), _Column("such as", 4, is_text=True)),
            _Column("no", 5),
        ),
        [
            (
                *(one.title, f"{one.count:,}", f"+{one.last_minute:,}" if one.last_minute else ""),
                *(new[one.is_new], one.example, str(one.number)),
            )
            for one in found.causes
        ],
        [SIGNS[STATUSES[one.kind].outcome].colour for one in found.causes],
        found.more_causes,
    )


def _workers(found: RunStatus) -> _Table:
    def heard(at: datetime | None) -> str:
        if at is None:
            return "never"
        ago = max((found.at - at).total_seconds(), 0.0)
        return f"{duration(round(ago))} ago"

    return _Table(
        (
            *(_Column("WORKERS", is_text=True), _Column("runs"), _Column("ended")),
            *(_Column("a second", 3), _Column("heard", 2), _Column("has", 4, is_text=True)),
        ),
        [
            (
                *(one.name, f"{one.running:,}", f"{one.done:,}", f"{one.rate:.2g}"),
                *("gone" if one.is_gone else heard(one.heard), ", ".join(one.has)),
            )
            for one in found.workers
        ],
        ["red" if one.is_gone else "" for one in found.workers],
        found.more_workers,
    )


def _longest(found: RunStatus) -> _Table:
    return _Table(
        (
            *(_Column("RUN LONGEST", is_text=True), _Column("for"), _Column("p95", 2)),
            *(_Column("task", 3, is_text=True), _Column("worker", 4, is_text=True)),
        ),
        [
            (
                *(one.id, duration(one.seconds), "" if one.p95 is None else _spell(one.p95)),
                *(one.task or "", one.worker or ""),
            )
            for one in found.longest
        ],
        [
            "yellow" if one.p95 is not None and one.seconds > 2 * one.p95 + 1 else ""
            for one in found.longest
        ],
    )


def _tasks(found: RunStatus) -> _Table:
    def number(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    return _Table(
        (
            *(_Column("TASKS", is_text=True), _Column("passed"), _Column("failed", 1)),
            *(_Column("p50", 4), _Column("p95", 3), _Column("running", 5), _Column("waiting", 2)),
        ),
        [
            (
                *(one.task, number(one.passed), number(one.failed)),
                *("" if one.p50 is None else _spell(one.p50),),
                *("" if one.p95 is None else _spell(one.p95),),
                *(number(one.running), number(one.waiting)),
            )
            for one in found.tasks
        ],
        ["red" if one.failed and not one.passed else "" for one in found.tasks],
        found.more_tasks,
    )


def _spell(value: float) -> str:
    """Return seconds with three digits."""
    return seconds(float(f"{value:.3g}")) if value < 60 else duration(value)


def _story(found: RunStatus, width: int) -> Iterator[Line]:
    if found.limits:
        given = [f"{name}={_setting(name, value)}" for name, value in found.limits.items()]
        yield from _flow([("LIMITS", "bold"), *((cut(one, width), "") for one in given)], width)
    for one in found.actions[:3]:
        waits = ", not carried out yet" if one.waits else ""
        what = f"{_clock(one.at, found.at)} {one.action} by {one.by}{waits}"
        yield from _wrapped(f"{what}: {one.reason}" if one.reason else what, width, "")
    for held in found.throttling[:2]:
        until = "" if held.ended is None else f" to {_clock(held.ended, found.at)}"
        text = f"{_clock(held.began, found.at)}{until} held back by {held.why}: {held.detail}"
        yield from _wrapped(text, width, "")


def _setting(name: str, value: Setting) -> str:
    if name == "deadline" and isinstance(value, int | float):
        return duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clock(at: datetime, now: datetime) -> str:
    """Return a moment (UTC) as a time of the day, with its date where that is another one."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%d %b %H:%M}"


def _flow(pieces: Iterable[Piece], width: int) -> Iterator[Line]:
    """Yield lines of pieces, none of which is broken; one that is too wide loses its middle."""
    line: Line = []
    taken = 0
    for text, colour in pieces:
        wide = cells(text)
        if wide > width:
            yield from ([line] if line else [])
            yield from _wrapped(text, width, colour)
            line, taken = [], 0
            continue
        if line and taken + 2 + wide > width:
            yield line
            line, taken = [], 0
        if line:
            line.append(("  ", ""))
            taken += 2
        line.append((text, colour))
        taken += wide
    if line:
        yield line


def _wrapped(text: str, width: int, colour: str) -> Iterator[Line]:
    """Yield a sentence in lines, broken between words; a word that is too wide loses its middle.

    So that an option with a run's id can be copied of the narrowest terminal, a word that fits
    without the indentation goes without it.
    """
    widest = max(map(cells, text.split()), default=0)
    indent = "  " if text[:1] in " !" and widest + 2 <= width else ""
    room = max(width - len(indent), 1)
    words = _QUANTITY.sub("\u00a0", " ".join(cut(word, room) for word in text.split()))
    first = indent if text.startswith(" ") else ""
    for line in textwrap.wrap(
        words,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield [(line.replace("\u00a0", " "), colour)]
