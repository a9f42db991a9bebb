"""Show a run's statistics, and its comparison with another run, in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_manifest.reporting.terminal_layout import (
    BLANK,
    Line,
    Sheet,
    gap_of,
    padded,
    table_lines,
    table_width,
    widths,
)
from pytest_manifest.schema import cost_text
from pytest_manifest.text import (
    cells,
    duration,
    job_rate,
    one_line,
    plural,
    rate_text,
    seconds_cell,
)

if TYPE_CHECKING:
    from pytest_manifest.analysis.statistics import Statistics
    from pytest_manifest.schema.summary import (
        SummaryCause,
        SummaryChange,
        SummaryComparison,
        SummaryEntry,
        SummarySpread,
        SummaryTask,
        SummaryTimeChange,
        SummaryTreeChange,
        SummaryWorker,
    )


FEW = 20
"""Entries from which statistics are shown without ``-v``: of fewer, the end says everything."""
_TASKS = 20
_CAUSES = 10
_WORKERS = 8
_BAR = 20


def statistics_lines(stats: Statistics, sheet: Sheet) -> Iterator[Line]:
    """Yield the statistics beyond the counts of verdicts; nothing for a small run."""
    judged = stats.entries - stats.outcomes.get("pending", 0)
    if (stats.entries < FEW and not sheet.all) or judged == 0:
        return
    for text in _pace(stats):
        yield from map(Line, sheet.wrapped(text, indent=2, hanging=2))
    yield from _by_task(stats.tasks, sheet)
    yield from _slowest(stats.slowest, sheet)
    yield from _by_cause(stats.causes, sheet)
    yield from _workers(stats.workers, sheet)
    if stats.advice:
        yield BLANK
    for sentence in stats.advice:
        for line in sheet.wrapped(f"hint: {sentence}", indent=2, hanging=6):
            yield Line(line, yellow=True)


def _pace(stats: Statistics) -> Iterator[str]:
    """Yield the run's duration and rate, and its numbers of retries and redeliveries."""
    pace = []
    if stats.duration is not None:
        pace.append(duration_phrase(stats))
    if stats.throughput is not None:
        pace.append(job_rate(stats.throughput))
    again = [plural(stats.retries, "retry")] if stats.retries else []
    again += [plural(stats.redeliveries, "redelivery")] if stats.redeliveries else []
    yield from (", ".join(phrases) for phrases in (pace, again) if phrases)


def duration_phrase(stats: Statistics) -> str:
    """Return how long a run was worked on; its duration is known, in seconds."""
    took, pauses = duration(stats.duration or 0.0), stats.pauses or 0.0
    if stats.parts < 2:
        return f"{took} from first sending to last end"
    left_out = f" ({duration(pauses)} between them not counted)" if pauses >= 1 else ""
    return f"{took} of work in {stats.parts} parts{left_out}"


# By task

_TIMES = ("p50", "p95", "max")


def _by_task(tasks: Sequence[SummaryTask], sheet: Sheet) -> Iterator[Line]:
    """Yield one table by task if it fits, else two, else each task in lines of its own."""
    shown = tasks if sheet.all else _most_numerous(tasks)
    names = ["task", *(sheet.cut(row.task, max(sheet.width - 4, 20)) for row in shown)]
    counts = _counts(shown)
    times = [[*_TIMES, *_TIMES], *(_time_cells(row) for row in shown)]
    rates = [
        "per s",
        *("-" if row.throughput is None else rate_text(row.throughput) for row in shown),
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
        for name, row in zip(names[1:], shown, strict=True):
            yield from _task_in_lines(name, row, sheet)
    if len(shown) < len(tasks):
        yield Line(f"  and {plural(len(tasks) - len(shown), 'more task')} (-v shows all)")


_COUNTS: Mapping[str, Callable[[SummaryTask], int]] = {
    "count": lambda row: row.count,
    "passed": lambda row: row.passed,
    "failed": lambda row: row.failed,
}
_RARE: Mapping[str, Callable[[SummaryTask], int]] = {
    "error": lambda row: row.errors,
    "skipped": lambda row: row.skipped,
    "pending": lambda row: row.pending,
}


def _most_numerous(tasks: Sequence[SummaryTask]) -> list[SummaryTask]:
    largest = sorted(tasks, key=lambda row: -row.count)[:_TASKS]
    return sorted(largest, key=lambda row: row.task)


def _counts(rows: Sequence[SummaryTask]) -> list[list[str]]:
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


def _time_cells(row: SummaryTask) -> list[str]:
    return [*_spread_cells(row.wait), *_spread_cells(row.runtime)]


def _spread_cells(times: SummarySpread | None) -> tuple[str, ...]:
    if times is None:
        return ("-", "-", "-")
    return tuple(map(seconds_cell, (times.p50, times.p95, times.max)))


def _task_in_lines(name: str, row: SummaryTask, sheet: Sheet) -> Iterator[Line]:
    yield Line(f"  {name}")
    counts = [plural(row.count, "entry"), f"{row.passed} passed"]
    counts += [f"{row.failed} failed"] if row.failed else []
    counts += [f"{_RARE[name](row)} {name}" for name in _RARE if _RARE[name](row)]
    rate = "" if row.throughput is None else f"; {rate_text(row.throughput)} a second"
    yield from map(Line, sheet.wrapped(f"{', '.join(counts)}{rate}", indent=4, hanging=2))
    for what, times in (("wait", row.wait), ("run", row.runtime)):
        if times is not None:
            yield Line(f"    {what:<5}{'  '.join(cell.rjust(6) for cell in _spread_cells(times))}")


# Entries


def _slowest(records: Sequence[SummaryEntry], sheet: Sheet) -> Iterator[Line]:
    if not records:
        return
    yield BLANK
    yield Line("  slowest", bold=True)
    names = [sheet.cut(record.id, sheet.width // 2) for record in records]
    wide = widths([[name] for name in names])[0]
    for name, record in zip(names, records, strict=True):
        text = f"    {seconds_cell(record.runtime or 0.0):>6} s  {padded(name, wide)}  "
        where = f" on {record.place}" if record.place else ""
        room = max(sheet.width - cells(text), 10)
        yield Line(text + sheet.cut(f"{record.task}{where}", room))


def _by_cause(causes: Sequence[SummaryCause], sheet: Sheet) -> Iterator[Line]:
    if not causes:
        return
    yield BLANK
    yield Line("  failures by cause", bold=True)
    shown = causes if sheet.all else causes[:_CAUSES]
    wide = max(len(str(cause.count)) for cause in shown)
    for cause in shown:
        room = sheet.width - wide - 6
        yield Line(f"    {cause.count:>{wide}}  {sheet.cut(cause.title, room)}", red=True)
        indent = " " * (wide + 6)
        yield from (Line(indent + line) for line in _message(cause, sheet, room))
        yield Line(indent + _examples(cause, sheet, room))
    if len(shown) < len(causes):
        yield Line(f"    and {plural(len(causes) - len(shown), 'more cause')} (-v shows all)")


def _message(cause: SummaryCause, sheet: Sheet, room: int) -> Iterator[str]:
    """Yield a cause's message in at most two lines; actual and expected in one each."""
    message = one_line(cause.message)
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


def _examples(cause: SummaryCause, sheet: Sheet, room: int) -> str:
    more = cause.count - len(cause.examples)
    rest = f" and {more} more" if more else ""
    each = (room - len(rest)) // len(cause.examples) - 2
    return ", ".join(sheet.cut(name, max(each, 8)) for name in cause.examples) + rest


def _workers(workers: Sequence[SummaryWorker], sheet: Sheet) -> Iterator[Line]:
    if len(workers) < 2:
        return
    yield BLANK
    yield Line("  worker processes", bold=True)
    shown = workers if sheet.all else workers[:_WORKERS]
    texts = [
        f"{row.share:>5.0%}  {plural(row.jobs, 'job')}, {seconds_cell(row.busy)} s" for row in shown
    ]
    room = sheet.width - 8 - max(map(len, texts))
    names = [sheet.cut(row.place, min(room, 60)) for row in shown]
    wide = widths([[name] for name in names])[0]
    bar = min(_BAR, room - wide)
    most = max((row.share for row in shown), default=0.0)
    for name, row, text in zip(names, shown, texts, strict=True):
        length = round(bar * row.share / most) if most and bar >= 5 else 0
        filled = ("\u2588" if sheet.rich else "#") * length
        gap = f"  {padded(filled, bar)}" if bar >= 5 else ""
        yield Line(f"    {padded(name, wide)}{gap}{text}")
    if len(shown) < len(workers):
        left = workers[len(shown) :]
        share = sum(row.share for row in left)
        yield Line(f"    and {len(left)} more with {share:.0%} of the work (-v shows all)")


# A comparison with another run

_LISTED = 10
_NAMED = 5


def comparison_lines(found: SummaryComparison, sheet: Sheet) -> Iterator[Line]:
    """Yield what changed since the earlier run, or one line if nothing that counts did."""
    yield Line(f"  since run {found.before.run}", bold=True)
    before, now = f"{found.before.passed} of {found.before.entries}", found.after.passed
    yield Line(f"    {now} of {found.after.entries} passed, {before} before")
    lines = [
        *_verdicts("newly failing", found.newly_failing, sheet, red=True),
        *_verdicts("fixed", found.fixed, sheet),
        *_named("still failing", [change.id for change in found.still_failing], sheet),
        *_named("added", found.added, sheet),
        *_named("removed", found.removed, sheet),
        *_times("slower", found.slower, sheet),
        *_times("faster", found.faster, sheet),
        *_named("other results", [change.id for change in found.changed_results], sheet),
        *_trees(found.changed_trees, sheet),
        *_cost(found),
    ]
    if not lines:
        lines.append(Line("    no difference that counts"))
    yield from lines


def comparison_phrase(found: SummaryComparison) -> str:
    """Return the numbers of changes since the earlier run, in a few words."""
    counts = {
        "newly failing": len(found.newly_failing),
        "fixed": len(found.fixed),
        "slower": len(found.slower),
        "with other results": len(found.changed_results),
        "with other descendants": len(found.changed_trees),
    }
    listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{listed or 'nothing changed'} since run {found.before.run}"


def _verdicts(
    title: str, changes: Sequence[SummaryChange], sheet: Sheet, *, red: bool = False
) -> Iterator[Line]:
    if not changes:
        return
    yield Line(f"    {len(changes)} {title}", red=red)
    shown = changes if sheet.all else changes[:_LISTED]
    for change in shown:
        text = f"  {change.before or 'not there'} -> {change.after or 'pending'}"
        yield Line(f"      {sheet.cut(change.id, sheet.width - 6 - len(text))}{text}")
    if len(shown) < len(changes):
        yield Line(f"      and {len(changes) - len(shown)} more (-v shows all)")


def _named(title: str, names: Sequence[str], sheet: Sheet) -> Iterator[Line]:
    if not names:
        return
    shown = names if sheet.all else names[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    listed = ", ".join(sheet.cut(name, 60) for name in shown)
    text = f"{len(names)} {title}: {listed}{more}"
    yield from (Line(line) for line in sheet.wrapped(text, indent=4, hanging=2))


def _times(title: str, changes: Sequence[SummaryTimeChange], sheet: Sheet) -> Iterator[Line]:
    for change in changes:
        of = (
            f"{change.samples_after} entries"
            if change.same
            else f"{change.samples_before} and {change.samples_after} entries"
        )
        times = f"from {seconds_cell(change.before)} to {seconds_cell(change.after)} s"
        text = f"{title}: {change.task} {times} ({change.ratio:.2g} times, median of {of})"
        for line in sheet.wrapped(text, indent=4, hanging=2):
            yield Line(line, yellow=title == "slower")


def _trees(changes: Sequence[SummaryTreeChange], sheet: Sheet) -> Iterator[Line]:
    if not changes:
        return
    yield Line(f"    {len(changes)} with other descendants")
    shown = changes if sheet.all else changes[:_LISTED]
    for change in shown:
        before, after = (
            ", ".join(f"{count} {status}" for status, count in sorted(side.items())) or "none"
            for side in (change.before, change.after)
        )
        text = f"  {before} -> {after}"
        yield Line(f"      {sheet.cut(change.id, max(sheet.width - 6 - len(text), 8))}{text}")
    if len(shown) < len(changes):
        yield Line(f"      and {len(changes) - len(shown)} more (-v shows all)")


def _cost(found: SummaryComparison) -> Iterator[Line]:
    before, after = found.before.cost, found.after.cost
    if before == after:
        return
    texts = ["not known" if cost is None else cost_text(cost) for cost in (before, after)]
    change = f" ({after / before - 1:+.0%})" if before and after is not None else ""
    yield Line(f"    cost {texts[0]} -> {texts[1]}{change}")
