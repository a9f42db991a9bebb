"""Show a run's statistics in the terminal: tasks, slowest entries, causes, workers, advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_manifest.reporting.cells import cells
from pytest_manifest.reporting.layout import (
    BLANK,
    Line,
    Sheet,
    gap_of,
    lasting,
    pace_text,
    padded,
    rate_text,
    shown,
    table_lines,
    table_width,
    time_text,
    widths,
)
from pytest_manifest.verdict import plural

if TYPE_CHECKING:
    from pytest_manifest.analysis.causes import Cause
    from pytest_manifest.analysis.quantiles import Distribution
    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.analysis.statistics import Statistics, TaskRow, WorkerRow

FEW = 4
"""Entries from which statistics are shown: of fewer, pytest's own lines say everything."""
SLOW = 6
"""Entries from which the five slowest and the workers are shown."""
_TASKS = 20
_CAUSES = 10
_WORKERS = 8
_BAR = 20


def summary_lines(figures: Statistics, sheet: Sheet) -> Iterator[Line]:
    """Yield the statistics beyond the counts of verdicts; nothing for a small run."""
    judged = figures.entries - figures.outcomes.get("pending", 0)
    if figures.entries < FEW or judged == 0:
        return
    for text in _pace(figures):
        yield from map(Line, sheet.wrapped(text, indent=2, hanging=2))
    yield from _by_task(figures.tasks, sheet)
    if figures.entries >= SLOW:
        yield from _slowest(figures.slowest, sheet)
    yield from _by_cause(figures.causes, sheet)
    if figures.entries >= SLOW:
        yield from _workers(figures.workers, sheet)
    if figures.advice:
        yield BLANK
    for sentence in figures.advice:
        for line in sheet.wrapped(f"hint: {sentence}", indent=2, hanging=6):
            yield Line(line, yellow=True)


def _pace(figures: Statistics) -> Iterator[str]:
    """Yield the run's duration and rate, and its numbers of retries and redeliveries."""
    parts = []
    if figures.duration is not None:
        parts.append(duration_phrase(figures))
    if figures.throughput is not None:
        parts.append(pace_text(figures.throughput))
    again = [plural(figures.retries, "retry")] if figures.retries else []
    again += [plural(figures.redeliveries, "redelivery")] if figures.redeliveries else []
    yield from (", ".join(told) for told in (parts, again) if told)


def duration_phrase(figures: Statistics) -> str:
    """Return how long a run was worked on; its duration is known, in seconds."""
    took, pauses = lasting(figures.duration or 0.0), figures.pauses or 0.0
    if figures.parts < 2:
        return f"{took} from first sending to last end"
    left_out = f" ({lasting(pauses)} between them not counted)" if pauses >= 1 else ""
    return f"{took} of work in {figures.parts} parts{left_out}"


# By task

_TIMES = ("p50", "p95", "max")


def _by_task(tasks: Sequence[TaskRow], sheet: Sheet) -> Iterator[Line]:
    """Yield one table by task if it fits, else two, else each task in lines of its own."""
    told = tasks if sheet.all else _most_numerous(tasks)
    names = ["task", *(sheet.cut(row.task, max(sheet.width - 4, 20)) for row in told)]
    counts = _counts(told)
    times = [[*_TIMES, *_TIMES], *(_time_cells(row) for row in told)]
    rates = [
        "per s",
        *("-" if row.throughput is None else rate_text(row.throughput) for row in told),
    ]
    count_table = [[name, *cells] for name, cells in zip(names, counts, strict=True)]
    time_table = [[name, *cells] for name, cells in zip(names, times, strict=True)]
    rated = [[*cells, rate] for cells, rate in zip(count_table, rates, strict=True)]
    whole = [
        [*cells, *more, rate] for cells, more, rate in zip(count_table, times, rates, strict=True)
    ]
    gap, apart = gap_of(whole, sheet), (gap_of(rated, sheet), gap_of(time_table, sheet))
    yield BLANK
    if gap is not None:
        yield from _with_times(whole, len(counts[0]) + 1, gap)
    elif apart[0] is not None and apart[1] is not None:
        yield from table_lines(rated, apart[0])
        yield BLANK
        yield from _with_times(time_table, 1, apart[1])
    else:
        yield Line("  by task (seconds: median, 95 %, longest)", bold=True)
        for name, row in zip(names[1:], told, strict=True):
            yield from _task_in_lines(name, row)
    if len(told) < len(tasks):
        yield Line(f"  and {plural(len(tasks) - len(told), 'more task')} (-v shows all)")


_COUNTS: Mapping[str, Callable[[TaskRow], int]] = {
    "count": lambda row: row.count,
    "passed": lambda row: row.passed,
    "failed": lambda row: row.failed,
}
_RARE: Mapping[str, Callable[[TaskRow], int]] = {
    "error": lambda row: row.errors,
    "skipped": lambda row: row.skipped,
    "pending": lambda row: row.pending,
}


def _most_numerous(tasks: Sequence[TaskRow]) -> list[TaskRow]:
    largest = sorted(tasks, key=lambda row: -row.count)[:_TASKS]
    return sorted(largest, key=lambda row: row.task)


def _counts(rows: Sequence[TaskRow]) -> list[list[str]]:
    """Return rows of counts, heads first; rare ones have a column only if one is not 0."""
    rare = {name: value for name, value in _RARE.items() if any(map(value, rows))}
    values = {**_COUNTS, **rare}
    return [[*values], *([str(value(row)) for value in values.values()] for row in rows)]


def _with_times(rows: Sequence[Sequence[str]], first: int, gap: int) -> Iterator[Line]:
    """Yield a table, and titles above its six columns of times, which begin at ``first``."""
    wide = widths(rows)
    spans = [sum(wide[start : start + 3]) + 2 * gap for start in (first, first + 3)]
    titles = [
        f" {name}, s ".center(span, "-") for name, span in zip(("wait", "run"), spans, strict=True)
    ]
    between = " " * gap
    before = " " * table_width(wide[:first], gap)
    yield Line(f"{before}{between}{between.join(titles)}", bold=True)
    yield from table_lines(rows, gap)


def _time_cells(row: TaskRow) -> list[str]:
    return [*_spread_cells(row.wait), *_spread_cells(row.runtime)]


def _spread_cells(times: Distribution | None) -> tuple[str, ...]:
    if times is None:
        return ("-", "-", "-")
    return tuple(map(time_text, (times.p50, times.p95, times.max)))


def _task_in_lines(name: str, row: TaskRow) -> Iterator[Line]:
    yield Line(f"  {name}")
    counts = [plural(row.count, "entry"), f"{row.passed} passed"]
    counts += [f"{row.failed} failed"] if row.failed else []
    counts += [f"{_RARE[name](row)} {name}" for name in _RARE if _RARE[name](row)]
    rate = "" if row.throughput is None else f"; {rate_text(row.throughput)} a second"
    yield Line(f"    {', '.join(counts)}{rate}")
    for what, times in (("wait", row.wait), ("run", row.runtime)):
        if times is not None:
            yield Line(f"    {what:<5}{'  '.join(cell.rjust(6) for cell in _spread_cells(times))}")


# Entries


def _slowest(records: Sequence[EntryRecord], sheet: Sheet) -> Iterator[Line]:
    if not records:
        return
    yield BLANK
    yield Line("  slowest", bold=True)
    names = [sheet.cut(record.id, sheet.width // 2) for record in records]
    wide = widths([[name] for name in names])[0]
    for name, record in zip(names, records, strict=True):
        last = record.last
        if last is not None and last.runtime is not None:
            text = f"    {time_text(last.runtime):>6} s  {padded(name, wide)}  "
            where = f" on {last.place}" if last.place else ""
            room = max(sheet.width - cells(text), 10)
            yield Line(text + sheet.cut(f"{record.entry.task}{where}", room))


def _by_cause(causes: Sequence[Cause], sheet: Sheet) -> Iterator[Line]:
    if not causes:
        return
    yield BLANK
    yield Line("  failures by cause", bold=True)
    told = causes if sheet.all else causes[:_CAUSES]
    wide = max(len(str(cause.count)) for cause in told)
    for cause in told:
        room = sheet.width - wide - 6
        yield Line(f"    {cause.count:>{wide}}  {sheet.cut(cause.title, room)}", red=True)
        indent = " " * (wide + 6)
        yield from (Line(indent + line) for line in _message(cause, sheet, room))
        yield Line(indent + _examples(cause, sheet, room))
    if len(told) < len(causes):
        yield Line(f"    and {plural(len(causes) - len(told), 'more cause')} (-v shows all)")


def _message(cause: Cause, sheet: Sheet, room: int) -> Iterator[str]:
    """Yield a cause's message in at most two lines; actual and expected in one each."""
    message = shown(cause.message)
    if cells(message) <= room:
        yield from (message,) if message else ()
        return
    if cause.expected is None or cause.actual is None:
        yield from sheet.in_two_lines(message, room)
        return
    yield sheet.cut(cause.actual, room)
    before, after = "where ", " was expected"
    left = room - len(before) - len(after)
    yield f"{before}{sheet.cut(cause.expected, left)}{after}"


def _examples(cause: Cause, sheet: Sheet, room: int) -> str:
    more = cause.count - len(cause.examples)
    rest = f" and {more} more" if more else ""
    each = (room - len(rest)) // len(cause.examples) - 2
    return ", ".join(sheet.cut(name, max(each, 8)) for name in cause.examples) + rest


def _workers(workers: Sequence[WorkerRow], sheet: Sheet) -> Iterator[Line]:
    if len(workers) < 2:
        return
    yield BLANK
    yield Line("  workers", bold=True)
    told = workers if sheet.all else workers[:_WORKERS]
    figures = [
        f"{row.share:>5.0%}  {plural(row.jobs, 'job')}, {time_text(row.busy)} s" for row in told
    ]
    room = sheet.width - 8 - max(map(len, figures))
    names = [sheet.cut(row.place, min(room, 60)) for row in told]
    wide = widths([[name] for name in names])[0]
    bar = min(_BAR, room - wide)
    most = max((row.share for row in told), default=0.0)
    for name, row, text in zip(names, told, figures, strict=True):
        length = round(bar * row.share / most) if most and bar >= 5 else 0
        filled = ("\u2588" if sheet.rich else "#") * length
        gap = f"  {padded(filled, bar)}" if bar >= 5 else ""
        yield Line(f"    {padded(name, wide)}{gap}{text}")
    if len(told) < len(workers):
        left = workers[len(told) :]
        share = sum(row.share for row in left)
        yield Line(f"    and {len(left)} more with {share:.0%} of the work (-v shows all)")
