"""Collect the entries as columns of plain values, for a page's table and plots."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, get_args

from pytest_manifest.analysis.causes import Cause, CauseNumbers
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.schema.statuses import Outcome, outcome_of
from pytest_manifest.text import pictured
from pytest_manifest.verdict import brief

OUTCOMES: Final = get_args(Outcome)
_PLACES: Final = 5
"""Decimal places of moments: a hundredth of a millisecond."""
_ROWS: Final = ("task", "kind", "outcome", "place", "reason", "cause", "tags", "tries", "line")


class Names:
    """Keep each of many repeated texts once, and replace it by its position in the list."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self.texts = list(known)
        self._index = {text: number for number, text in enumerate(self.texts)}

    def index(self, text: str | None) -> int:
        """Return the text's position in the list, which it is added to if new; -1 for None."""
        if text is None:
            return -1
        number = self._index.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


class Columns:
    """Collect rows of the table, one an entry, and bars of the timeline, one a started attempt.

    Moments are seconds since ``origin``, rounded to a hundredth of a millisecond.
    """

    def __init__(self, origin: datetime) -> None:
        self.origin = origin
        self.tasks = Names()
        self.kinds = Names()
        self.places = Names()
        self.reasons = Names()
        self.tags = Names()
        self._causes = CauseNumbers()
        self.ids: list[str] = []
        self.rows: dict[str, list[int]] = {name: [] for name in _ROWS}
        self.numbers: dict[str, list[float | None]] = {
            name: [] for name in ("sent", "wait", "runtime", "cost")
        }
        self.marks: dict[str, list[int]] = {
            name: [] for name in ("row", "place", "outcome", "number")
        }
        self.spans: dict[str, list[float | None]] = {"start": [], "end": []}
        self._others = array("d"), array("d")
        """Starts and ends of what else the timeline has."""

    def add(self, record: EntryRecord) -> None:
        """Append an entry as a row, and its attempts as bars."""
        last, rows, numbers = record.last, self.rows, self.numbers
        tags = record.entry.tags
        self.ids.append(pictured(record.id))
        rows["task"].append(self.tasks.index(pictured(record.entry.task)))
        rows["kind"].append(self.kinds.index(record.kind or "pending"))
        rows["outcome"].append(OUTCOMES.index(record.outcome))
        rows["place"].append(self._place(last))
        rows["reason"].append(self.reasons.index(_reason(record)))
        rows["cause"].append(self._causes.number(record))
        rows["tags"].append(self.tags.index(pictured("\n".join(tags)) if tags else None))
        rows["tries"].append(len(record.attempts))
        rows["line"].append(record.line)
        numbers["sent"].append(None if last is None else self.since(last.sent_at))
        numbers["wait"].append(rounded(None if last is None else last.wait))
        numbers["runtime"].append(rounded(None if last is None else last.runtime))
        costs = [attempt.cost for attempt in record.attempts if attempt.cost is not None]
        numbers["cost"].append(cost_figure(sum(costs)) if costs else None)
        for attempt in record.attempts:
            self._add_bar(len(self.ids) - 1, record, attempt)

    def _add_bar(self, row: int, record: EntryRecord, attempt: AttemptRecord) -> None:
        """Append an attempt as a bar if it has a start; its end may be missing."""
        place = self._place(attempt)
        start = self.since(attempt.started_at)
        if place < 0 or start is None:
            return
        judged = attempt is record.last
        outcome = record.outcome if judged else outcome_of(attempt.kind)
        self.marks["row"].append(row)
        self.marks["place"].append(place)
        self.marks["outcome"].append(OUTCOMES.index(outcome))
        self.marks["number"].append(attempt.number)
        self.spans["start"].append(start)
        # A job whose process died has only the moment in which that was noticed.
        ended = None if attempt.runtime is None else attempt.finished_at
        self.spans["end"].append(self.since(ended))

    def note_span(self, start: float, end: float | None) -> None:
        """Have the timeline reach over a bar that is not among its first ones."""
        starts, ends = self._others
        starts.append(start)
        ends.append(start if end is None else max(start, end))

    def number_causes(self, causes: Sequence[Cause]) -> None:
        """Replace the rows' numbers of causes by positions in ``causes``, after the last row."""
        places = self._causes.positions(causes)
        column = self.rows["cause"]
        column[:] = [-1 if number < 0 else places[number] for number in column]

    def _place(self, attempt: AttemptRecord | None) -> int:
        place = None if attempt is None else attempt.place
        return self.places.index(None if place is None else pictured(place))

    def since(self, moment: datetime | None) -> float | None:
        """Return the seconds from the origin to that moment."""
        return None if moment is None else round((moment - self.origin).total_seconds(), _PLACES)

    def document(self) -> dict[str, object]:
        """Return everything as JSON values, without columns that are empty."""
        numbers = {
            name: column
            for name, column in self.numbers.items()
            if any(value is not None for value in column)
        }
        names = {
            "tasks": self.tasks.texts,
            "kinds": self.kinds.texts,
            "places": self.places.texts,
            "reasons": self.reasons.texts,
            "tags": self.tags.texts,
            "outcomes": list(OUTCOMES),
        }
        starts, ends = self._others
        reach = [min(starts), max(ends)] if starts else None
        paused = pauses(chain(self.spans["start"], starts), chain(self.spans["end"], ends))
        return {
            "names": names,
            "rows": {"id": self.ids, **self.rows, **numbers},
            "bars": {**self.marks, **self.spans, "pauses": paused, "reach": reach},
        }


def _reason(record: EntryRecord) -> str | None:
    """Return in a line why an entry has not passed; None if it has, or has no verdict."""
    if record.verdict is None or record.verdict.verdict == "passed":
        return None
    return pictured(brief(record.verdict, record.receipt))


def cost_figure(value: float | None) -> float | None:
    """Round a cost to six significant digits: a call may cost a ten-thousandth."""
    return None if value is None else float(f"{value:.6g}")


def rounded(value: float | None) -> float | None:
    """Round a duration, rate or share to four significant digits, as many as are shown."""
    return None if value is None else float(f"{value:.4g}")


# Pauses

SHORTEST: Final = 5.0
"""Seconds that a pause lasts at least."""
MOST: Final = 20


def pauses(
    starts: Iterable[float | None], ends: Iterable[float | None]
) -> list[tuple[float, float]]:
    """Return start and end of each pause, in order, from the bars' starts and ends in seconds.

    A bar's end may be None. A gap is a pause if it lasts longer than the whole time without the
    gaps at least as long: an hour between two jobs of a minute is one, an hour in a night of work
    is not.
    """
    spans = sorted(_spans(starts, ends))
    if not spans:
        return []
    gaps: list[tuple[float, float]] = []
    reached = spans[0][0]
    for start, end in spans:
        if start - reached > SHORTEST:
            gaps.append((reached, start))
        reached = max(reached, end)
    gaps.sort(key=lambda gap: gap[0] - gap[1])
    rest, found = reached - spans[0][0], 0
    for number, (begin, stop) in enumerate(gaps[:MOST], 1):
        rest -= stop - begin
        if stop - begin > rest:
            found = number
    return sorted(gaps[:found])


def _spans(
    starts: Iterable[float | None], ends: Iterable[float | None]
) -> Iterator[tuple[float, float]]:
    for start, end in zip(starts, ends, strict=True):
        if start is not None:
            yield start, start if end is None else max(start, end)
