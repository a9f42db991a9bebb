"""Group failures by cause: the same error at the same place, or the same mismatch.

Count the outcomes of a group of entries, and write the group's text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, TypeAlias

from pytest_manifest.ledger import Ledger, Statuses
from pytest_manifest.ledger.rows import EntryVerdict
from pytest_manifest.schema import Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import BAD, Outcome, outcome_of
from pytest_manifest.schema.summary import Sign, SummaryCause
from pytest_manifest.text import middle, plural, printable
from pytest_manifest.verdict import explanation
from pytest_manifest.verdict.reasons import reason_of
from pytest_manifest.verdict.tree import PATH, descendant_of

EXAMPLES = 3
_MESSAGE_LIMIT = 400
_NAME_LIMIT = 100
VARIANTS = 20
"""Pairs of expected and actual values that are kept of one path."""
_INDEX = re.compile(r"\[\d+\]")


Key: TypeAlias = tuple[VerdictStatus, str | None, str | None, str | None, str | None]
_Pair: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class _Group:
    title: str
    message: str
    pair: _Pair | None = None
    step: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    variants: dict[_Pair, _Group] = field(default_factory=dict)
    """Subgroups by expected and actual value, up to ``VARIANTS``."""
    varies: bool = False
    """Whether there were more of them than are kept."""

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(name)

    def causes(self, key: Key) -> Iterator[SummaryCause]:
        """Yield one cause, or where the same few values repeat, one for each of them."""
        repeated = not self.varies and self.count >= 2 * len(self.variants)
        for one in self.variants.values() if repeated and self.variants else (self,):
            expected, actual = one.pair or (None, None)
            kind, error, place, path, code = key
            yield SummaryCause(
                title=one.title,
                kind=kind,
                error=error,
                place=place,
                path=path,
                code=code,
                expected=expected,
                actual=actual,
                count=one.count,
                examples=list(one.examples),
                message=one.message,
                step=self.step,
            )


class Causes:
    """Groups of entries that failed or whose fate is unknown."""

    def __init__(self) -> None:
        self._groups: dict[Key, _Group] = {}

    def add(self, name: str, verdict: Verdict | None, receipt: Receipt | None) -> None:
        """Add an entry, unless nothing went wrong with it."""
        found = sign_and_message(verdict, receipt)
        if verdict is None or found is None:
            return
        (key, pair), message = found
        message = short_message(message)
        group = self._groups.get(key)
        if group is None:
            title, step = title_of(key, verdict), explanation.next_step(verdict)
            group = self._groups[key] = _Group(title, message, pair, step)
        group.add(name)
        if pair is not None:
            _add_variant(group, name, message, pair)

    def largest_first(self) -> tuple[SummaryCause, ...]:
        """Return all causes, largest first; of equal size, the one found first."""
        found = (cause for key, group in self._groups.items() for cause in group.causes(key))
        return tuple(sorted(found, key=lambda cause: -cause.count))


class CauseNumbers:
    """A number for each failure's cause, and the cause that each number became."""

    def __init__(self) -> None:
        self._numbers: dict[Sign, int] = {}

    def number(self, verdict: Verdict | None, receipt: Receipt | None) -> int:
        """Return the same number for the same failure; -1 where nothing went wrong."""
        found = sign_and_message(verdict, receipt)
        return -1 if found is None else self._numbers.setdefault(found[0], len(self._numbers))

    def positions(self, causes: Sequence[SummaryCause]) -> list[int]:
        """Return, for each number, its cause's index among these; -1 where it is none of them."""
        shared = Counter(cause.sign[0] for cause in causes)
        known: dict[Sign, int] = {}
        for position, cause in enumerate(causes):
            key, pair = cause.sign
            known[key, pair if shared[key] > 1 else None] = position
        return [known.get((key, pair), known.get((key, None), -1)) for key, pair in self._numbers]


def sign_and_message(verdict: Verdict | None, receipt: Receipt | None) -> tuple[Sign, str] | None:
    """Return by what an entry is grouped, and its message; None where nothing went wrong."""
    if verdict is None or outcome_of(verdict.verdict) not in BAD:
        return None
    kind, mismatch = verdict.verdict, _first_mismatch(verdict)
    reason = explanation.best_known(verdict, receipt)
    if reason is not None and not isinstance(reason, Mismatch):
        error = None if receipt is None else receipt.error
        place = None if error is None else explanation.error_place(error.traceback)
        return ((kind, _name(reason.type), place, None, None), None), reason.message
    path = None if mismatch is None else _path(mismatch)
    if reason is None:
        if (named := descendant_of(verdict)) is not None:
            return ((kind, None, _name(named.task), path, None), None), named.said
        code = reason_of(verdict).cause.code if path is None and verdict.reason else None
        return ((kind, None, None, path, code), None), verdict.sentence
    pair = _value(reason.expected), _value(reason.actual)
    return ((kind, None, None, path, None), pair), f"{pair[1]} where {pair[0]} was expected"


def short_message(message: str) -> str:
    """Return a message as a cause shows it: on one line, of at most 400 characters."""
    return middle(_one_line(message), _MESSAGE_LIMIT)


def _first_mismatch(verdict: Verdict) -> Mismatch | None:
    return verdict.mismatches[0] if verdict.mismatches else None


def _add_variant(group: _Group, name: str, message: str, pair: _Pair) -> None:
    if pair not in group.variants:
        if group.varies or len(group.variants) == VARIANTS:
            group.varies = True
            group.variants.clear()
            return
        group.variants[pair] = _Group(group.title, message, pair)
    group.variants[pair].add(name)


def _path(mismatch: Mismatch) -> str:
    return middle(_INDEX.sub("[*]", printable(mismatch.path)), _NAME_LIMIT)


def _name(text: str) -> str:
    return middle(_one_line(text), _NAME_LIMIT)


def _value(text: str) -> str:
    return middle(_one_line(text), _MESSAGE_LIMIT // 3)


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def title_of(key: Key, verdict: Verdict) -> str:
    """Return a cause in a line, of entries with these values in common."""
    kind, error, place, path, _ = key
    before = "" if kind == "failed" else f"{kind}: "
    mismatch = _first_mismatch(verdict)
    named = None if error is not None else descendant_of(verdict)
    if named is not None:
        return f"a descendant {place} {named.came_to}"
    if error is not None:
        return f"{before}{error} at {place}" if place else f"{before}{error}"
    if mismatch is None or path is None:
        return kind
    if path == PATH:
        return f"{before}a descendant did not end as expected"
    if path == "state":
        return kind if mismatch.actual == kind else f"{before}ended as {_name(mismatch.actual)}"
    return f"{before}{path} is not as expected"


PRECEDENCE: Final[Sequence[Outcome]] = ("failed", "error", "pending", "skipped", "passed")
"""A group's outcome is the first of these that one of its entries has."""
SHOWN: Final = 10
_CAUSES = 10
_BATCH = 1000
"""Entries whose descendants are counted at once."""
_ID = 80
_SENTENCE = 300
_WORDS: Final[dict[Outcome, str]] = {
    "failed": "failed",
    "error": "remained unknown",
    "pending": "pending",
    "skipped": "held back",
    "passed": "passed",
}
_NO_VERDICT = (
    "It has no verdict: it was not part of the run that is being looked at, or the run was cut "
    "short."
)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """One of the first entries that have not passed; its message is shortened, printable text."""

    id: str
    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a group: ``outcomes`` of all entries, ``kinds`` of verdicts that are not passed;
    ``first``: some that have not passed, the worst first; ``descendants``: how many of the tasks
    that its jobs started have which status; ``accepted``: how many of those held back failed in a
    way that somebody knows, ``why``: the first of these."""

    entries: int
    outcomes: Counter[Outcome]
    kinds: Counter[str]
    causes: tuple[SummaryCause, ...]
    first: tuple[ListedEntry, ...]
    descendants: Statuses = field(default_factory=dict)
    accepted: int = 0
    why: str = ""

    @property
    def outcome(self) -> Outcome:
        """Return the group's outcome as a whole, see ``PRECEDENCE``."""
        return next((one for one in PRECEDENCE if self.outcomes[one]), "passed")


def tally(
    ledger: Ledger,
    entries: Iterable[str],
    accepts: Callable[[EntryVerdict], str | None] = lambda _: None,
) -> Tally:
    """Count the verdicts of these entries; those without one count as errors.

    ``accepts`` returns by what a failure is known; None where it is not. Raises LedgerError where
    the ledger cannot be read.
    """
    count = accepted = 0
    why = ""
    descendants: Counter[VerdictStatus | None] = Counter()
    outcomes: Counter[Outcome] = Counter()
    kinds: Counter[str] = Counter()
    causes = Causes()
    first: dict[Outcome, list[ListedEntry]] = {outcome: [] for outcome in PRECEDENCE}
    left, has_trees = iter(entries), ledger.descendants.any()
    while some := list(islice(left, _BATCH)):
        count += len(some)
        if has_trees:
            descendants.update(ledger.trees.statuses_of_entries(some))
        for entry, found in ledger.queries.not_passed(some):
            verdict = None if found is None else found.verdict
            outcome: Outcome = "error" if verdict is None else outcome_of(verdict.verdict)
            kind = "no verdict" if verdict is None else verdict.verdict
            known = accepts(found) if found is not None and outcome == "failed" else None
            if known is not None:
                outcome, accepted, why = "skipped", accepted + 1, why or known
            outcomes[outcome] += 1
            kinds[kind] += 1
            if known is None:
                causes.add(entry, verdict, None if found is None else found.receipt)
            if len(first[outcome]) < SHOWN:
                sentence = _NO_VERDICT if verdict is None else verdict.sentence
                shown = middle(_one_line(sentence), _SENTENCE)
                first[outcome].append(ListedEntry(entry, kind, shown))
    outcomes["passed"] = count - outcomes.total()
    worst = tuple(chain.from_iterable(first.values()))[:SHOWN]
    largest = causes.largest_first()[:_CAUSES]
    return Tally(count, outcomes, kinds, largest, worst, descendants, accepted, why)


def headline(found: Tally) -> str:
    """Return one line with how many entries have which outcome."""
    counts = [(found.outcomes[outcome], _WORDS[outcome]) for outcome in PRECEDENCE]
    held = PRECEDENCE.index("skipped")
    number, words = counts[held]
    counts[held:held] = [(found.accepted, "accepted")]
    counts[held + 1] = number - found.accepted, words
    (first, words), *others = [(count, words) for count, words in counts if count]
    more = "".join(f", {count} {words}" for count, words in others)
    return f"{first} of {plural(found.entries, 'entry')} {words}{more}"


def explain_group(found: Tally, where: Sequence[tuple[str, str]]) -> str:
    """Return several lines of text: counts, causes, the first entries, and where to read on.

    ``where``: names of what to read, and its path or address.
    """
    parts = [f"{headline(found)}."]
    if explanation.number_of(found.descendants):
        parts[0] += f"\n{explanation.counts_text(found.descendants)}."
    if found.causes:
        parts.append("\n".join(["By cause:", *_by_cause(found.causes)]))
    parts.append("\n".join(["The first ones:", *_first(found)]))
    wide = max((len(name) for name, _ in where), default=0)
    if where:
        parts.append("\n".join(["Read on:", *(f"  {name:<{wide}}  {at}" for name, at in where)]))
    return "\n\n".join(parts)


def _by_cause(causes: Sequence[SummaryCause]) -> Iterator[str]:
    wide = max(len(str(cause.count)) for cause in causes)
    for cause in causes:
        yield f"  {cause.count:>{wide}}  {cause.title}"
        margin = " " * (wide + 4)
        if cause.message:
            yield f"{margin}{cause.message}"
        names = ", ".join(_short_id(name) for name in cause.examples)
        more = cause.count - len(cause.examples)
        yield f"{margin}{names}{f' and {more} more' if more else ''}"


def _first(found: Tally) -> Iterator[str]:
    names = [_short_id(one.id) for one in found.first]
    wide, wider = max(map(len, names)), max(len(one.kind) for one in found.first)
    for name, one in zip(names, found.first, strict=True):
        yield f"  {name:<{wide}}  {one.kind:<{wider}}  {one.sentence}"
    more = found.entries - found.outcomes["passed"] - len(found.first)
    if more:
        yield f"  and {more} more"


def _short_id(name: str) -> str:
    return middle(printable(name), _ID)
