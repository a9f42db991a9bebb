"""The table of a chaos session: one row a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import pytest

from tests.chaos.judge import Outcome
from tests.chaos.reconcile import PLACES
from tests.chaos.scenario import Round

HEAD = (
    *("fault", "rounds", "verdicts", "median s", "max s"),
    *("sent = executed + lost + revoked + there", "recovered"),
    *("wrong", "no verdict", "double runs", "unaccounted", "record", "hangs", "other"),
)
COUNTED = ("wrong", "lost", "doubles", "unaccounted", "record", "hangs", "other")
PROPERTY = "chaos"
FLAWS_SHOWN = 12
Row = tuple[str, ...]


def check(played: Round, test: pytest.Item) -> None:
    """Put a round into the table, and fail its test where it has a flaw."""
    outcome = played.outcome
    test.user_properties.append((PROPERTY, outcome.as_property()))
    if outcome.flaws:
        flaws = "\n".join(outcome.flaws[:FLAWS_SHOWN])
        title = f"{outcome.fault}, seed {outcome.seed}: {len(outcome.flaws)} flaws"
        pytest.fail(f"{title}\n{flaws}\n\n{played.said}", pytrace=False)


def outcomes(properties: Iterable[tuple[str, object]]) -> list[Outcome]:
    """The rounds among the user properties of test reports."""
    return [
        Outcome(**value)
        for name, value in properties
        if name == PROPERTY and isinstance(value, Mapping)
    ]


def rows(rounds: Iterable[Outcome]) -> list[Row]:
    """One row a fault, and one for all, in the order of the faults' names."""
    by_fault: dict[str, list[Outcome]] = {}
    for one in rounds:
        by_fault.setdefault(one.fault, []).append(one)
    table = [_row(name, by_fault[name]) for name in sorted(by_fault)]
    everything = [one for some in by_fault.values() for one in some]
    return [*table, _row("all", everything)] if everything else []


def _row(name: str, some: Sequence[Outcome]) -> Row:
    verdicts: Counter[str] = Counter()
    for one in some:
        verdicts.update(one.verdicts)
    times = [one.seconds for one in some if one.seconds is not None]
    flaws = [sum(len(getattr(one, kind)) for one in some) for kind in COUNTED]
    return (
        name,
        str(len(some)),
        ", ".join(f"{count} {kind}" for kind, count in verdicts.most_common()) or "none",
        f"{median(times):.1f}" if times else "-",
        f"{max(times):.1f}" if times else "-",
        _sum([sum(one.sent.get(place, 0) for one in some) for place in PLACES]),
        _recovered(some),
        *map(str, flaws),
    )


def _sum(numbers: Sequence[int]) -> str:
    return f"{sum(numbers)} = {' + '.join(map(str, numbers))}"


def _recovered(some: Sequence[Outcome]) -> str:
    """How many were called lost, and came; with what their fault has broken, where it has."""
    broken = sorted({one.breaks for one in some if one.breaks and one.recovered})
    number = str(sum(len(one.recovered) for one in some))
    return f"{number} ({', '.join(broken)})" if broken else number


def text(table: Sequence[Row]) -> list[str]:
    """For the terminal: columns of equal width."""
    lines = [HEAD, *table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def markdown(table: Sequence[Row]) -> str:
    """For a document; times are from the fault to the last verdict."""
    lines = [HEAD, tuple("---" for _ in HEAD), *table]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
