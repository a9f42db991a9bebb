"""Measure what the offline judges notice: a tenth of the rows is spoiled in known ways.

    python -m benchmarks.judging [--seeds 20] [--write]

Two kinds of rows of the sample corpus: those that the offline model fills in, whose summaries are
sentences of their passages, and those that people have written in their own words. Each seed
spoils another tenth of them. ``--write`` puts the tables into the docs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tasks.judging.checks import CHECKS, OVERLAP, offline_judge
from tasks.judging.grades import Row
from tasks.movie_bible.documents import Document
from tasks.text_model.offline import characters, mood, summary, themes
from tests.page_tables import put
from workflows.gap_fill.corpus import corpus_path, read_corpus
from workflows.gap_fill.spoiling import NOTICEABLE, WAYS, rank, spoil_some_way

PAGE: Final = Path(__file__).parents[1] / "docs" / "evidence" / "language-models.md"
BAR: Final = 4
SHARE: Final = 10
"""One row of so many is spoiled."""


@dataclass(slots=True)
class Found:
    """Counts over all seeds: rows that are whole and rows spoiled, by kind, and those noticed."""

    whole: int = 0
    alarms: int = 0
    spoiled: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)

    def recall(self, kinds: Sequence[str]) -> float:
        """Return the share of the rows spoiled in these ways that were graded below the bar."""
        return sum(self.noticed[k] for k in kinds) / sum(self.spoiled[k] for k in kinds)

    def precision(self, kinds: Sequence[str]) -> float:
        """Return the share of the rows graded below the bar that were spoiled."""
        right = sum(self.noticed[k] for k in kinds)
        return right / (right + self.alarms)


def rows_of_model(documents: Sequence[Document]) -> list[Row]:
    """Fill the documents with the offline model."""
    return [
        Row(
            one.id,
            one.text,
            {
                "summary": summary(one.text),
                "themes": [*themes(one.text)],
                "characters": [*characters(one.text)],
                "mood": mood(one.text),
            },
            one.film,
        )
        for one in documents
    ]


def rows_of_people(documents: Sequence[Document]) -> list[Row]:
    """Return what people wrote of the documents, where there is a summary."""
    return [
        Row(one.id, one.text, one.given, one.film) for one in documents if one.given.get("summary")
    ]


def sample() -> list[Document]:
    """Return the sample corpus, each document with all that is known of its film."""
    documents = list(read_corpus(corpus_path("sample")))
    films = {one.film.id: one.film for one in documents if one.film and one.film.title}
    return [
        replace(one, film=None if one.film is None else films.get(one.film.id, one.film))
        for one in documents
    ]


def spoiled_tenth(rows: Sequence[Row], seed: int) -> Iterator[tuple[Row, str]]:
    """Yield all rows, a tenth of them spoiled, each with the way in which it was, or ""."""
    drawn = sorted(rows, key=lambda row: rank(seed, "spoil", row.passage))
    number = len(rows) // SHARE
    for turn, row in enumerate(drawn):
        other = drawn[(turn + number) % len(drawn)]
        spoiled = None
        if turn < number:
            spoiled = spoil_some_way(row.values, other.values, tuple(WAYS), turn=turn + seed)
        if spoiled is None:
            yield row, ""
        else:
            yield Row(row.passage, row.text, spoiled.values, row.film), spoiled.kind


def measure(rows: Sequence[Row], judge: str, seeds: int) -> Found:
    """Have a judge grade the rows once for each seed, and count what it noticed."""
    grader = offline_judge(judge)
    assert grader is not None
    found = Found()
    for seed in range(1, seeds + 1):
        chosen = list(spoiled_tenth(rows, seed))
        grades = grader.grade(
            [row for row, _ in chosen], seconds=float("inf"), progress=lambda _: None
        ).grades
        for row, kind in chosen:
            low = grades[row.passage].grade < BAR
            if kind:
                found.spoiled[kind] += 1
                found.noticed[kind] += low
            else:
                found.whole += 1
                found.alarms += low
    return found


def tables(seeds: int) -> str:
    """Return the tables of the page."""
    documents = sample()
    corpora = {
        "of the offline model": rows_of_model(documents),
        "of people": rows_of_people(documents),
    }
    names = [(rows, judge) for rows in corpora for judge in (CHECKS, OVERLAP)]
    found = {one: measure(corpora[one[0]], one[1], seeds) for one in names}
    lines = [
        f"A tenth of the rows spoiled, by {seeds} seeds; noticed is what is graded below {BAR}.",
        "",
        "| rows | judge | whole | noticed | spoiled | precision | recall | recall, all ways |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (rows, judge), one in found.items():
        count = sum(one.spoiled[kind] for kind in NOTICEABLE)
        lines.append(
            f"| {rows} | `{judge}` | {one.whole:,} | {one.alarms:,} | {count:,} | "
            f"{one.precision(NOTICEABLE):.2f} | {one.recall(NOTICEABLE):.2f} | "
            f"{one.recall(tuple(WAYS)):.2f} |"
        )
    heads = " | ".join(f"`{judge}`, {rows}" for rows, judge in names)
    lines += ["", f"| noticed of | {heads} |", f"|---|{'---|' * len(names)}"]
    for kind in WAYS:
        shares = " | ".join(f"{found[one].recall([kind]):.0%}" for one in names)
        lines.append(f"| {kind} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    table = tables(asked.seeds)
    print(table)
    if asked.write:
        put(PAGE, "judging", table)


if __name__ == "__main__":
    main()
