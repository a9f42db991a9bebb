"""Two judges that need no network: one checks form, language and names, one compares words.

They understand nothing. A row that is well formed and says the opposite passes both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from tasks.filling.answers import problems_of
from tasks.judging.grades import BEST, WORST, Grade, Grading, Row
from tasks.judging.words import (
    content_stems,
    english_share,
    folded,
    foreign_letters,
    names_in,
    sentences_of,
    share_found,
    words_of,
)
from tasks.text_model.settings import OFFLINE

CHECKS: Final = "checks-1"
OVERLAP: Final = "overlap-1"

LONG: Final = 90
TOO_LONG: Final = 130
"""Words of a summary; the prompt asks for 60 at most."""
TOO_SHORT: Final = 4
LEAST_ENGLISH: Final = 0.12
"""Share of ordinary English words in an English sentence; it is a third to a half."""
ENOUGH_TO_TELL: Final = 6
"""Words that a text must have for its language to be told."""
FOREIGN: Final = 0.3
LEAST_DISTINCT: Final = 0.45
MOST_THEMES: Final = 7
LONGEST_THEME: Final = 6
ENDS: Final = tuple(".!?\u2026\"'\u201d\u2019)\u3002\uff01\uff1f")
REFUSALS: Final = ("as an ai", "language model", "i cannot", "i can't", "i'm sorry", "lorem ipsum")
SHARES: Final = ((5, 0.35), (4, 0.2), (3, 0.12), (2, 0.05), (1, 0.0))
"""Grades by the least share of a field's words that its passage has, too."""
UNLIKE: Final = 0.05
LOOSE: Final = 0.1
"""Share of a summary's words that its passage has, too: below, it is about something else."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a field; ``at_most`` is the best grade that it leaves."""

    at_most: int
    message: str


class OfflineJudge:
    """Grades each row by itself, by a function of the row alone."""

    def __init__(self, name: str, grade: Callable[[Row], Grade]) -> None:
        self.provider = OFFLINE
        self.name = name
        self.has_price = True  # it costs nothing
        self._grade = grade

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def grade(
        self, rows: Sequence[Row], *, seconds: float, progress: Callable[[Grading], None]
    ) -> Grading:
        """Grade rows; the same row has the same grade on every machine."""
        found = Grading(grades={row.passage: self._grade(row) for row in rows})
        progress(found)
        return found


def by_checks(row: Row) -> Grade:
    """Grade a row by its form, its language, its names and its repetitions."""
    found = list(_findings(row))
    grade = min([BEST, *(one.at_most for one in found)])
    serious = sum(one.at_most < BEST - 1 for one in found)
    # A second serious fault makes it worse, whatever each alone leaves.
    lowered = max(WORST, grade - max(0, serious - 1))
    return Grade(lowered, tuple(one.message for one in found))


def by_overlap(row: Row) -> Grade:
    """Grade a row by the share of its words that its passage has, too; the worst field decides."""
    known = content_stems(_source(row))
    fields = {name: " ".join(_texts(row.values.get(name))) for name in ("summary", "characters")}
    stems = {name: content_stems(text) for name, text in fields.items()}
    shares = {name: share_found(found, known) for name, found in stems.items() if found}
    if not shares:
        return Grade(BEST - 1, ("there are no words to compare",))
    worst = min(shares, key=lambda name: shares[name])
    grade = next(number for number, least in SHARES if shares[worst] >= least)
    why = f"{worst}: shares {shares[worst]:.0%} of its words with the passage"
    return Grade(grade, () if grade == BEST else (why,))


def offline_judge(name: str) -> OfflineJudge | None:
    """Return the offline judge of this name, None where there is none."""
    rules = {CHECKS: by_checks, OVERLAP: by_overlap}
    return OfflineJudge(name, rules[name]) if name in rules else None


def _source(row: Row) -> str:
    """Return all that the row may have been made of: the passage and the facts of its film."""
    film = row.film
    facts = [] if film is None else [film.title or "", film.director or "", *film.cast]
    return "\n".join([row.text, *facts])


def _texts(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _findings(row: Row) -> Iterator[Finding]:
    if not row.filled:
        yield Finding(WORST, "no field has a value")
        return
    invalid = problems_of(row.filled)
    if invalid:
        yield Finding(2, invalid)
    if isinstance(summary := row.values.get("summary"), str):
        yield from _of_summary(summary, row)
    if (themes := row.values.get("themes")) is not None:
        yield from _of_themes(_texts(themes))
    if (names := row.values.get("characters")) is not None:
        yield from _of_characters(_texts(names), row)


def _of_summary(summary: str, row: Row) -> Iterator[Finding]:
    words = [word.lower() for word in words_of(summary)]
    yield from _of_length(summary, len(words))
    yield from _of_language(summary, words)
    yield from _of_repetition(summary, words)
    refusal = next((one for one in REFUSALS if one in folded(summary)), None)
    if refusal is not None:
        yield Finding(1, f"summary: speaks of itself ({refusal!r})")
    known = folded(_source(row))
    unknown = [name for name in names_in(summary) if folded(name) not in known]
    if unknown:
        # One alone may be knowledge from elsewhere: a country, an adjective of one.
        yield Finding(2 if len(unknown) > 1 else 4, _strangers("summary", unknown))
    share = share_found(content_stems(summary), content_stems(_source(row)))
    if share < LOOSE:
        at_most = 2 if share < UNLIKE else 3
        yield Finding(at_most, f"summary: shares {share:.0%} of its words with the passage")


def _of_length(summary: str, words: int) -> Iterator[Finding]:
    if words < TOO_SHORT or words > TOO_LONG:
        yield Finding(2, f"summary: has {words} words")
    elif words > LONG:
        yield Finding(4, f"summary: has {words} words")
    if not summary.rstrip().endswith(ENDS):
        yield Finding(3, "summary: ends in the middle of a sentence")


def _of_language(summary: str, words: Sequence[str]) -> Iterator[Finding]:
    if foreign_letters(summary) > FOREIGN:
        yield Finding(2, "summary: is in another script")
    elif len(words) >= ENOUGH_TO_TELL and english_share(summary) < LEAST_ENGLISH:
        yield Finding(2, "summary: does not read like English")


def _of_repetition(summary: str, words: Sequence[str]) -> Iterator[Finding]:
    twice = [one for one, count in Counter(map(folded, sentences_of(summary))).items() if count > 1]
    threes = Counter(zip(words, words[1:], words[2:], strict=False))
    if twice:
        yield Finding(2, "summary: says a sentence twice")
    elif threes and max(threes.values()) > 2:
        yield Finding(2, "summary: repeats the same three words")
    elif len(words) > 15 and len(set(words)) / len(words) < LEAST_DISTINCT:
        yield Finding(2, "summary: repeats its words")


def _of_themes(themes: Sequence[str]) -> Iterator[Finding]:
    doubled = [one for one, count in Counter(map(folded, themes)).items() if count > 1]
    if doubled:
        yield Finding(3, f"themes: {doubled[0]!r} is there twice")
    long = [one for one in themes if len(words_of(one)) > LONGEST_THEME]
    if long:
        yield Finding(3, f"themes: {long[0]!r:.60} is no short phrase")
    if len(themes) > MOST_THEMES:
        yield Finding(4, f"themes: there are {len(themes)}")
    if any(foreign_letters(one) > FOREIGN for one in themes):
        yield Finding(2, "themes: are in another script")


def _of_characters(names: Sequence[str], row: Row) -> Iterator[Finding]:
    known = folded(row.text)
    unknown = [name for name in names if folded(name) not in known]
    if unknown:
        at_most = 2 if len(unknown) > 1 or len(names) == 1 else 3
        yield Finding(at_most, _strangers("characters", unknown))
    if len(set(map(folded, names))) < len(names):
        yield Finding(3, "characters: a name is there twice")


def _strangers(field: str, names: Sequence[str]) -> str:
    some = ", ".join(repr(name) for name in names[:3])
    return f"{field}: {some} {'is' if len(names) == 1 else 'are'} not in the passage"
