"""Draw the times of an attempt's descendants as SVG, since Allure's timeline draws tests alone.

The picture has no script, no link and no style from elsewhere; all text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.sax.saxutils import escape  # nosec B406  # writes XML, and parses none

from pytest_manifest.analysis.records import AttemptRecord
from pytest_manifest.analysis.tree_reading import DescendantRecord, TreeRecord
from pytest_manifest.reporting.allure.terms import status_of
from pytest_manifest.schema.statuses import AllureStatus, VerdictStatus
from pytest_manifest.text import many, middle, seconds, visible

NAME: Final = "timeline"
_NAMES, _BARS, _END = 270, 530, 150
_WIDTH: Final = _NAMES + _BARS + _END
_ROW, _HEAD, _FOOT = 20, 34, 30
_INDENT, _DEEPEST, _LETTER = 12, 8, 7.3
_LETTERS: Final = 34
"""Letters of a task's name that have room where it is not indented."""
_COLOURS: Final[dict[AllureStatus, str]] = {
    "passed": "#2b7a5d",
    "failed": "#b8322a",
    "broken": "#8f5200",
    "skipped": "#596070",
}
_WAITS, _PATH, _TEXT, _MUTED, _GRID = "#b0b5be", "#2e5bbd", "#1b1e23", "#596070", "#e3e4e8"


@dataclass(frozen=True, slots=True)
class _Row:
    """A task of the picture; ``told``: what stands at the end of its row."""

    name: str
    depth: int
    status: VerdictStatus | None
    sent: datetime | None
    began: datetime | None
    ended: datetime | None
    on_path: bool
    told: str


def picture_of_tree(root: AttemptRecord, tree: TreeRecord) -> str | None:
    """Return the bars of a job and its descendants as SVG; None where no time is known."""
    rows = list(_rows(root, tree))
    moments = [at for row in rows for at in (row.sent, row.began, row.ended) if at is not None]
    if not moments:
        return None
    start = rows[0].began or min(moments)
    took = max((max(moments) - start).total_seconds(), 1e-6)
    height = _HEAD + _ROW * len(rows) + _FOOT
    size = f'width="{_WIDTH}" height="{height}"'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}"',
        'font-family="monospace" font-size="12">',
        f'<rect {size} fill="#ffffff"/>',
        *_axis(start, took, height),
    ]
    for number, row in enumerate(rows):
        drawn += _drawn(row, start, took, _HEAD + _ROW * number)
    drawn += _legend(tree, height - 10)
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _rows(root: AttemptRecord, tree: TreeRecord) -> Iterator[_Row]:
    on_path = set(tree.path)
    ran = "" if root.runtime is None else seconds(root.runtime)
    times = root.sent_at, root.started_at, root.ended_at
    yield _Row("the job itself", 0, "passed", *times, on_path=True, told=ran)
    for depth, one in tree.tasks:
        times = one.spawned_at, one.started_at, one.ended_at
        yield _Row(
            visible(one.task), depth + 1, one.status, *times, one.task_id in on_path, _told(one)
        )


def _told(one: DescendantRecord) -> str:
    """Return how long a task ran, and what is not as usual: its status, its retries."""
    told = [] if one.runtime is None else [seconds(one.runtime)]
    if one.status != "passed":
        told.append((one.status or "pending").replace("_", " "))
    if one.retries:
        told.append(f"retry {one.retries}")
    return ", ".join(told)


def _axis(start: datetime, took: float, height: int) -> Iterator[str]:
    yield _text(8, 20, f"from {start:%H:%M:%S}.{start.microsecond // 1000:03d} UTC", _MUTED)
    for share in (0.0, 0.5, 1.0):
        x = _NAMES + share * _BARS
        yield f'<path d="M{x:g} {_HEAD - 6}V{height - _FOOT}" stroke="{_GRID}"/>'
        label = f"+{seconds(took * share)}" if share else "0 s"
        yield _text(x, 20, label, _MUTED, anchor="middle")


def _drawn(row: _Row, start: datetime, took: float, top: int) -> Iterator[str]:
    """Yield a task's row: its name, a line while its message waited, a bar while it ran."""

    def place(moment: datetime) -> float:
        share = (moment - start).total_seconds() / took
        return _NAMES + min(max(share, 0.0), 1.0) * _BARS

    middle_line = top + _ROW / 2
    indent = _INDENT * min(row.depth, _DEEPEST)
    name = middle(row.name, _LETTERS - int(indent / _LETTER))
    if row.on_path:
        yield f'<rect x="0" y="{top}" width="4" height="{_ROW}" fill="{_PATH}"/>'
    yield _text(10 + indent, middle_line + 4, name, _TEXT, bold=row.on_path)
    if row.sent is not None:
        begin, end = place(row.sent), place(row.began or row.sent)
        colour = _PATH if row.on_path else _WAITS
        yield f'<path d="M{begin:.1f} {middle_line}H{end:.1f}" stroke="{colour}" stroke-width="2"/>'
    colour = _COLOURS[status_of(row.status)]
    if row.began is not None:
        begin = place(row.began)
        wide = max(place(row.ended or row.began) - begin, 2.0)
        edge = f' stroke="{_PATH}" stroke-width="2"' if row.on_path else ""
        yield (
            f'<rect x="{begin:.1f}" y="{middle_line - 5}" width="{wide:.1f}" height="10" '
            f'fill="{colour}"{edge}/>'
        )
    elif row.sent is not None:
        yield f'<circle cx="{place(row.sent):.1f}" cy="{middle_line}" r="3" fill="{colour}"/>'
    told_in = _MUTED if row.status == "passed" else colour
    yield _text(_WIDTH - 8, middle_line + 4, row.told, told_in, anchor="end")


def _legend(tree: TreeRecord, line: int) -> Iterator[str]:
    parts: Sequence[tuple[str, int, str]] = (
        (_WAITS, 2, "waits, earlier tries included"),
        (_COLOURS["passed"], 10, "runs"),
        (_PATH, 4, "critical path"),
    )
    x = 10.0
    for colour, thick, words in parts:
        yield f'<path d="M{x:g} {line - 4}h14" stroke="{colour}" stroke-width="{thick}"/>'
        yield _text(x + 20, line, words, _MUTED)
        x += 40 + _LETTER * len(words)
    if tree.left_out:
        left = f"{many(tree.left_out, 'more descendant')} not drawn"
        yield _text(_WIDTH - 8, line, left, _MUTED, anchor="end")


def _text(
    x: float, y: float, words: str, colour: str, *, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{escape(words)}</text>"
    )
