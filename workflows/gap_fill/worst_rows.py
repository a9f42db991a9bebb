"""Add to a judge's run page how good the rows are, and the worst of them beside their passages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pytest_manifest import PageSection
from tasks.judging.grades import BEST, WORST, Row
from tasks.movie_bible.bible import MovieBible
from workflows.gap_fill.grades import GradedRow, Grades, grades_of
from workflows.gap_fill.quality import (
    agreement_of,
    agreement_sentence,
    quality_of,
    quality_sentence,
    thresholds_of,
)

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run

SHOWN: Final = 20


def quality_sections(run: Run) -> list[PageSection]:
    """Return the sections of a judge's run: its grades, and the worst rows."""
    grades = grades_of(run.manifest, run.receipts())
    if not grades.rows:
        return []
    with MovieBible.open() as bible:
        known = grades.databases == {bible.identity}
        return [_quality(run, grades), worst_rows(grades, bible if known else None)]


def _quality(run: Run, grades: Grades) -> PageSection:
    asked = thresholds_of(run.manifest.header.params or {})
    judges = sorted(grades.judges)
    lines = [
        quality_sentence(
            quality_of(grades.numbers(one), asked.bar, grades.population),
            grades.judges[one],
            asked.bar,
        )
        for one in judges
    ]
    if pairs := grades.pairs():
        lines.append(agreement_sentence(agreement_of(pairs, asked.seed), grades))
    counts = [grades.numbers(one) for one in judges]
    return PageSection(
        "Grades",
        "\n".join(f"{line}." for line in lines),
        ["grade", *(f"{one + 1}. {grades.judges[one]}" for one in judges)],
        [
            [number, *(given.count(number) for given in counts)]
            for number in range(BEST, WORST - 1, -1)
        ],
    )


def worst_rows(grades: Grades, bible: MovieBible | None) -> PageSection:
    """Return the section of the rows with the worst grades.

    ``bible``: where their passages are; None where it is another database than was graded.
    """
    rows = sorted(
        (one for one in grades.rows.values() if one.worst[0] < BEST), key=lambda one: one.worst
    )
    shown = rows[:SHOWN]
    text = f"The {len(shown)} rows with the worst grades, each beside its passage."
    if not shown:
        text = f"Every row has the grade {BEST}."
    elif bible is None:
        text += " Their database is another one than this process's, so it shows no passages."
    return PageSection(
        "Worst rows",
        text,
        ["grades", "passage", "what was filled in", "text of the passage", "why"],
        list(_cells(shown, bible)),
    )


def _cells(shown: Sequence[GradedRow], bible: MovieBible | None) -> Iterator[list[str | None]]:
    for one in shown:
        stored = None
        if bible is not None:
            stored = bible.scan_ids([one.passage], one.prompt).get(one.passage)
        filled = None
        if stored is not None and stored.current is not None:
            filled = _filled(Row(one.passage, stored.text, stored.current.values))
        numbers = [str(one.grades[judge].grade) for judge in sorted(one.grades)]
        why = [line for judge in sorted(one.grades) for line in one.grades[judge].why]
        yield [
            " and ".join(numbers),
            one.passage,
            filled,
            None if stored is None else stored.text,
            "\n".join(why),
        ]


def _filled(row: Row) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in row.filled.items()
    )
