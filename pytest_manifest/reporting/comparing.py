"""Show two runs compared, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_manifest.reporting.layout import Line, Sheet, time_text
from pytest_manifest.schema import cost_text

if TYPE_CHECKING:
    from pytest_manifest.analysis.comparison import Change, Comparison, TimeChange

_LISTED = 10
_NAMED = 5


def comparison_lines(found: Comparison, sheet: Sheet) -> Iterator[Line]:
    """Yield what changed since the earlier run, or one line if nothing that counts did."""
    yield Line(f"  since run {found.before_run}", bold=True)
    before, now = f"{found.passed_before} of {found.entries_before}", found.passed_after
    yield Line(f"    {now} of {found.entries_after} passed, {before} before")
    lines = [
        *_verdicts("newly failing", found.newly_failing, sheet, red=True),
        *_verdicts("fixed", found.fixed, sheet),
        *_named("still failing", [change.id for change in found.still_failing], sheet),
        *_named("added", found.added, sheet),
        *_named("removed", found.removed, sheet),
        *_times("slower", found.slower, sheet),
        *_times("faster", found.faster, sheet),
        *_named("other results", [change.id for change in found.changed_results], sheet),
        *_cost(found),
    ]
    if not lines:
        lines.append(Line("    no difference that counts"))
    yield from lines


def comparison_phrase(found: Comparison) -> str:
    """Return the numbers of changes since the earlier run, in a few words."""
    counts = {
        "newly failing": len(found.newly_failing),
        "fixed": len(found.fixed),
        "slower": len(found.slower),
        "with other results": len(found.changed_results),
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{told or 'nothing changed'} since run {found.before_run}"


def _verdicts(
    title: str, changes: Sequence[Change], sheet: Sheet, *, red: bool = False
) -> Iterator[Line]:
    if not changes:
        return
    yield Line(f"    {len(changes)} {title}", red=red)
    told = changes if sheet.all else changes[:_LISTED]
    for change in told:
        text = f"  {change.before or 'not there'} -> {change.after or 'pending'}"
        yield Line(f"      {sheet.cut(change.id, sheet.width - 6 - len(text))}{text}")
    if len(told) < len(changes):
        yield Line(f"      and {len(changes) - len(told)} more (-v shows all)")


def _named(title: str, names: Sequence[str], sheet: Sheet) -> Iterator[Line]:
    if not names:
        return
    told = names if sheet.all else names[:_NAMED]
    more = f" and {len(names) - len(told)} more" if len(told) < len(names) else ""
    listed = ", ".join(sheet.cut(name, 60) for name in told)
    text = f"{len(names)} {title}: {listed}{more}"
    yield from (Line(line) for line in sheet.wrapped(text, indent=4, hanging=2))


def _times(title: str, changes: Sequence[TimeChange], sheet: Sheet) -> Iterator[Line]:
    for change in changes:
        of = (
            f"{change.samples_after} entries"
            if change.same
            else f"{change.samples_before} and {change.samples_after} entries"
        )
        times = f"from {time_text(change.before)} to {time_text(change.after)} s"
        text = f"{title}: {change.task} {times} ({change.ratio:.2g} times, median of {of})"
        for line in sheet.wrapped(text, indent=4, hanging=2):
            yield Line(line, yellow=title == "slower")


def _cost(found: Comparison) -> Iterator[Line]:
    before, after = found.cost_before, found.cost_after
    if before == after:
        return
    texts = ["not told" if cost is None else cost_text(cost) for cost in (before, after)]
    change = f" ({after / before - 1:+.0%})" if before and after is not None else ""
    yield Line(f"    cost {texts[0]} -> {texts[1]}{change}")
