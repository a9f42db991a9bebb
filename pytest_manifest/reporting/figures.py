"""Lay out figures for a terminal of any width: of a run, its trees, its comparison with another."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pytest_manifest.reporting.descendants import ENDS_SHOWN, NOT_KNOWN
from pytest_manifest.schema import cost_text
from pytest_manifest.text import (
    cells,
    cut,
    duration,
    fitting,
    job_rate,
    limits_phrase,
    many,
    one_line,
    plural,
    printable,
    rate_text,
    seconds_cell,
)

if TYPE_CHECKING:
    from pytest_manifest.schema import summary as schema


NARROWEST = 40


class Line(NamedTuple):
    """A line of text, with its colours where the terminal shows any."""

    text: str
    bold: bool = False
    red: bool = False
    yellow: bool = False
    green: bool = False


BLANK = Line("")


@dataclass(frozen=True, slots=True)
class Sheet:
    """The width and the abilities of a terminal or file.

    ``width``: in columns; ``terminal``: it is one; ``rich``: it shows more than ASCII; ``all``: the
    user wants everything (``-v``).
    """

    width: int = 80
    terminal: bool = False
    rich: bool = False
    all: bool = False

    def cut(self, text: str, width: int) -> str:
        """Return foreign text on one line of at most so many columns, its middle left out."""
        ellipsis = "\u2026" if self.rich else "..."
        return cut(one_line(text), max(width, len(ellipsis) + 2), ellipsis)

    def in_two_lines(self, text: str, width: int) -> Iterator[str]:
        """Yield foreign text in at most two lines; the middle of the second is left out."""
        head, rest = _parted(one_line(text), width, width // 2)
        yield head
        if rest:
            yield self.cut(rest, width)

    def wrapped(self, text: str, *, indent: int, hanging: int = 0) -> Iterator[str]:
        """Yield a text in lines; ``hanging``: further columns before all but the first."""
        head, rest = _parted(one_line(text), max(self.width, NARROWEST) - indent)
        yield " " * indent + head
        while rest:
            head, rest = _parted(rest, max(self.width, NARROWEST) - indent - hanging)
            yield " " * (indent + hanging) + head


def _parted(text: str, width: int, least: int = 0) -> tuple[str, str]:
    """Return what of a text fits into a line, up to a space behind ``least``, and the rest."""
    head = fitting(text, width)
    if head == text:
        return text, ""
    space = f"{head}{text[len(head)]}".rfind(" ")
    head = head[:space] if space > least else head
    return head, text[len(head) :].lstrip()


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], sheet: Sheet, *, indent: int = 2
) -> Iterator[Line]:
    """Yield rows below their columns' names, where those have any; long cells are folded.

    A column whose name begins with ``#`` is aligned right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads = [name.removeprefix("#") for name in columns]
    table = Table(box=None, pad_edge=False, show_header=any(heads))
    for name, head in zip(columns, heads, strict=True):
        right = name.startswith("#")
        side: Literal["left", "right"] = "right" if right else "left"
        table.add_column(head, justify=side, no_wrap=right, overflow="fold", header_style="none")
    for row in rows:
        table.add_row(*map(Text, row))
    file = io.StringIO()
    console = Console(width=sheet.width - indent, file=file, color_system=None)
    console.print(table, highlight=False)
    for number, line in enumerate(file.getvalue().splitlines()):
        yield Line(f"{' ' * indent}{line}".rstrip(), bold=number == 0 and any(heads))


# A run

FEW = 20
"""Entries from which statistics are shown without ``-v``: of fewer, the end says everything."""
_TASKS = 20
_CAUSES = 10


def statistics_lines(stats: schema.SummaryStatistics, sheet: Sheet) -> Iterator[Line]:
    """Yield the statistics beyond the counts of verdicts; nothing for a small run."""
    judged = stats.entries - stats.outcomes.get("pending", 0)
    if (stats.entries < FEW and not sheet.all) or judged == 0:
        return
    for text in _pace(stats):
        yield from map(Line, sheet.wrapped(text, indent=2, hanging=2))
    yield from _by_task(stats.tasks, sheet)
    yield from _slowest(stats.slowest, sheet)
    yield from _by_cause(stats.causes, sheet)
    if stats.advice:
        yield BLANK
    for sentence in stats.advice:
        for line in sheet.wrapped(f"hint: {sentence}", indent=2, hanging=6):
            yield Line(line, yellow=True)


def _pace(stats: schema.SummaryStatistics) -> Iterator[str]:
    """Yield the run's duration and rate, and its numbers of retries and redeliveries."""
    pace = [duration_phrase(stats)] if stats.duration is not None else []
    pace += [job_rate(stats.throughput)] if stats.throughput is not None else []
    again = [plural(stats.retries, "retry")] if stats.retries else []
    again += [plural(stats.redeliveries, "redelivery")] if stats.redeliveries else []
    yield from (", ".join(phrases) for phrases in (pace, again) if phrases)


def duration_phrase(stats: schema.SummaryStatistics) -> str:
    """Return how long a run was worked on; its duration is known, in seconds."""
    took, pauses = duration(stats.duration or 0.0), stats.pauses or 0.0
    if stats.parts < 2:
        return f"{took} from first sending to last end"
    left_out = f" ({duration(pauses)} between them not counted)" if pauses >= 1 else ""
    return f"{took} of work in {stats.parts} parts{left_out}"


def cost_phrase(cost: schema.SummaryCost) -> str:
    """Return what a run has cost; "" unless a receipt reports a cost or it had a budget."""
    limit = "" if cost.budget is None else f" of a budget of {cost_text(cost.budget)}"
    if cost.total is not None:
        return f"cost {cost_text(cost.total)}{limit}"
    return f"cost not known, as no receipt has one:{limit}" if limit else ""


def limits_of(run: schema.SummaryRun) -> str:
    """Return how much of a run might be in flight, and how fast it might be sent; "": no limit."""
    rates = [f"{key} {rate}".strip() for key, rate in run.rates.items()]
    depth = run.queue_depth
    phrases = [
        limits_phrase(run.key_limits),
        f"at most {', '.join(rates)}" if rates else "",
        "" if depth is None else f"at most {many(depth, 'message')} in a queue",
    ]
    return ", ".join(filter(None, phrases))


_SLOWED: Final = {"rate": "its rate", "queue": "the queue", "health": "manifest_health"}
_MOST_SLOWED: Final = 5


def slowed_phrases(throttled: Sequence[schema.SummaryThrottle]) -> Iterator[str]:
    """Yield what held a run back for a second or more, when and for how long: the longest five."""
    felt = (one for one in throttled if one.ended is None or one.seconds >= 1)
    longest = sorted(felt, key=lambda one: (one.ended is not None, -one.seconds))
    for one in longest[:_MOST_SLOWED]:
        lasted = f" for {duration(one.seconds)}" if one.ended is not None else ""
        lasted += f", {one.times} times" if one.times > 1 else ""
        until = "" if one.ended is None else f" to {one.ended:%H:%M:%S}"
        key = f" of {printable(one.key)}" if one.key else ""
        yield (
            f"slowed by {_SLOWED[one.why]}{key}{lasted}, {'since' if not until else 'from'} "
            f"{one.began:%H:%M:%S}{until} UTC: {one.detail}"
        )
    if more := len(longest) - _MOST_SLOWED:
        yield from [f"and slowed by {plural(more, 'more key')}"] if more > 0 else []


_MOST_ACTIONS: Final = 10


def action_phrases(actions: Sequence[schema.SummaryAction]) -> Iterator[str]:
    """Yield what operators did to a run, the last ten."""
    felt = [one for one in actions if one.changed]
    if more := len(felt) - _MOST_ACTIONS:
        yield from [f"steered {plural(more, 'time')} before"] if more > 0 else []
    for one in felt[-_MOST_ACTIONS:]:
        what = f"{one.action} ({printable(one.detail)})" if one.detail else one.action
        why = f": {one_line(printable(one.reason))}" if one.reason else ""
        yield f"steered at {one.at:%H:%M:%S} UTC by {printable(one.by)}, {what}{why}"


# By task

_LONGEST = 60
"""Columns of a task's name."""
_COUNTS: Final = ("count", "passed", "failed", "errors", "skipped", "pending")
_RARE = ("errors", "skipped", "pending")


def _by_task(tasks: Sequence[schema.SummaryTask], sheet: Sheet) -> Iterator[Line]:
    """Yield a table of counts by task, and one of times."""
    shown = tasks
    if not sheet.all:
        largest = sorted(tasks, key=lambda row: -row.count)[:_TASKS]
        shown = sorted(largest, key=lambda row: row.task)
    names = [sheet.cut(row.task, _LONGEST) for row in shown]
    # Rare ones have a column only if one is not 0.
    counts = [n for n in _COUNTS if n not in _RARE or any(getattr(row, n) for row in shown)]
    rows = [
        [
            name,
            *(str(getattr(row, count)) for count in counts),
            "-" if row.throughput is None else rate_text(row.throughput),
        ]
        for name, row in zip(names, shown, strict=True)
    ]
    yield BLANK
    heads = [f"#{name.removesuffix('s')}" for name in counts]
    yield from table_lines(["task", *heads, "#per s"], rows, sheet)
    if len(shown) < len(tasks):
        yield Line(f"  and {plural(len(tasks) - len(shown), 'more task')} (-v shows all)")
    times = [
        [
            name if what == "wait" or row.wait is None else "",
            what,
            *map(seconds_cell, (spread.p50, spread.p95, spread.max)),
        ]
        for name, row in zip(names, shown, strict=True)
        for what, spread in (("wait", row.wait), ("run", row.runtime))
        if spread is not None
    ]
    if times:
        yield BLANK
        yield from table_lines(["seconds", "", "#p50", "#p95", "#max"], times, sheet)


# Entries


def _slowest(records: Sequence[schema.SummaryEntry], sheet: Sheet) -> Iterator[Line]:
    if not records:
        return
    yield BLANK
    yield Line("  slowest", bold=True)
    rows = [
        [
            f"{seconds_cell(record.runtime or 0.0)} s",
            sheet.cut(record.id, sheet.width // 2),
            sheet.cut(f"{record.task}{f' on {record.place}' if record.place else ''}", _LONGEST),
        ]
        for record in records
    ]
    yield from table_lines(["#", "", ""], rows, sheet, indent=4)


def _by_cause(causes: Sequence[schema.SummaryCause], sheet: Sheet) -> Iterator[Line]:
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


def _message(cause: schema.SummaryCause, sheet: Sheet, room: int) -> Iterator[str]:
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


def _examples(cause: schema.SummaryCause, sheet: Sheet, room: int) -> str:
    more = cause.count - len(cause.examples)
    rest = f" and {more} more" if more else ""
    each = (room - len(rest)) // len(cause.examples) - 2
    return ", ".join(sheet.cut(name, max(each, 8)) for name in cause.examples) + rest


# A comparison with another run

_LISTED = 10
_NAMED = 5


def comparison_lines(found: schema.SummaryComparison, sheet: Sheet) -> Iterator[Line]:
    """Yield what changed since the earlier run, or one line if nothing that counts did."""
    yield Line(f"  since run {found.before.run}", bold=True)
    before, now = f"{found.before.passed} of {found.before.entries}", found.after.passed
    yield Line(f"    {now} of {found.after.entries} passed, {before} before")
    trees = [(one.id, _ends(one.before), _ends(one.after)) for one in found.changed_trees]
    lines = [
        *_changes("newly failing", _verdicts(found.newly_failing), sheet, red=True),
        *_changes("fixed", _verdicts(found.fixed), sheet),
        *_named("still failing", [change.id for change in found.still_failing], sheet),
        *_named("added", found.added, sheet),
        *_named("removed", found.removed, sheet),
        *_times("slower", found.slower, sheet),
        *_times("faster", found.faster, sheet),
        *_named("other results", [change.id for change in found.changed_results], sheet),
        *_changes("with other descendants", trees, sheet),
        *_cost(found),
    ]
    if not lines:
        lines.append(Line("    no difference that counts"))
    yield from lines


def comparison_phrase(found: schema.SummaryComparison) -> str:
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


def _changes(
    title: str, rows: Sequence[tuple[str, str, str]], sheet: Sheet, *, red: bool = False
) -> Iterator[Line]:
    """Yield entries with what was before and what is now."""
    if not rows:
        return
    yield Line(f"    {len(rows)} {title}", red=red)
    shown = rows if sheet.all else rows[:_LISTED]
    for name, before, after in shown:
        text = f"  {before} -> {after}"
        yield Line(f"      {sheet.cut(name, max(sheet.width - 6 - len(text), 8))}{text}")
    if len(shown) < len(rows):
        yield Line(f"      and {len(rows) - len(shown)} more (-v shows all)")


def _verdicts(changes: Sequence[schema.SummaryChange]) -> list[tuple[str, str, str]]:
    return [(one.id, one.before or "not there", one.after or "pending") for one in changes]


def _ends(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"


def _named(title: str, names: Sequence[str], sheet: Sheet) -> Iterator[Line]:
    if not names:
        return
    shown = names if sheet.all else names[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    listed = ", ".join(sheet.cut(name, 60) for name in shown)
    text = f"{len(names)} {title}: {listed}{more}"
    yield from (Line(line) for line in sheet.wrapped(text, indent=4, hanging=2))


def _times(title: str, changes: Sequence[schema.SummaryTimeChange], sheet: Sheet) -> Iterator[Line]:
    for change in changes:
        of = "" if change.same else f"{change.samples_before} and "
        of += f"{change.samples_after} entries"
        times = f"from {seconds_cell(change.before)} to {seconds_cell(change.after)} s"
        text = f"{title}: {change.task} {times} ({change.ratio:.2g} times, median of {of})"
        for line in sheet.wrapped(text, indent=4, hanging=2):
            yield Line(line, yellow=title == "slower")


def _cost(found: schema.SummaryComparison) -> Iterator[Line]:
    before, after = found.before.cost, found.after.cost
    if before == after:
        return
    texts = ["not known" if cost is None else cost_text(cost) for cost in (before, after)]
    change = f" ({after / before - 1:+.0%})" if before and after is not None else ""
    yield Line(f"    cost {texts[0]} -> {texts[1]}{change}")


# Trees

_TIMES: Final = ("#waited, s", "#began, s", "#ran, s")
_HOW_TO_READ: Final = "critical path: each task was sent by the one above it, waited, and ran"
_REASONS: Final[Mapping[str, str]] = {
    "stock": "their workers send no receipts",
    "older": "their workers report nothing of them",
    "fewer": "their workers did not report all",
    "silent": "workers of their descendants report nothing of what these start",
}


def untold_phrase(trees: schema.SummaryDescendants, entries: int) -> str:
    """Return of how many entries the descendants are not known, and why; "" for none."""
    reasons = ", ".join(
        _REASONS[one] if len(trees.reasons) == 1 else f"{count:,}: {_REASONS[one]}"
        for one, count in sorted(trees.reasons.items())
    )
    of = f"{trees.not_known:,} of {many(entries, 'entry')}"
    return f"descendants: {NOT_KNOWN} of {of} ({reasons})" if trees.not_known else ""


def path_lines(trees: schema.SummaryDescendants, sheet: Sheet) -> Iterator[Line]:
    """Yield the slowest tree's path: its job, and each task down to what ended last."""
    slowest = trees.slowest
    if slowest is None:
        return
    name = sheet.cut(slowest.entry, sheet.width // 2)
    for text in sheet.wrapped(slowest_phrase(slowest, name), indent=2, hanging=2):
        yield Line(text, bold=True)
    yield from map(Line, sheet.wrapped(_HOW_TO_READ, indent=4))
    rows = []
    for step in slowest.path:
        failed = "" if step.status in (None, "passed") else f" ({step.status})"
        times = step.wait, step.start, step.runtime
        cells = ("-" if one is None else seconds_cell(one) for one in times)
        rows.append([f"{sheet.cut(step.task, _LONGEST)}{failed}", *cells])
    if slowest.left_out:
        rows.insert(ENDS_SHOWN, [f"... {slowest.left_out:,} more ...", "", "", ""])
    yield from table_lines(["task", *_TIMES], rows, sheet, indent=4)


def slowest_phrase(slowest: schema.SummaryTree, name: str) -> str:
    """Return which entry's tree took longest, by the entry's name, and how long, from what on."""
    took = f"{seconds_cell(slowest.seconds)} s"
    return f"slowest tree: {name}, {took} from its job's start to its last descendant's end"


def path_text(slowest: schema.SummaryTree) -> str:
    """Return the slowest tree's path on one line, like ``jobs.a -> jobs.b``."""
    names = [printable(step.task) for step in slowest.path]
    if slowest.left_out:
        names.insert(ENDS_SHOWN, f"... {slowest.left_out:,} more ...")
    return " -> ".join(names)
