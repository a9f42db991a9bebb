"""Count the outcomes of a group of entries, and write the group's text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_manifest.analysis.causes import Cause, Causes
from pytest_manifest.ledger import Ledger, Statuses
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import Outcome, outcome_of
from pytest_manifest.text import middle, plural, printable
from pytest_manifest.verdict.explanation import counts_text, error_place, number_of

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
class NotPassed:
    """An entry that has not passed."""

    id: str
    verdict: Verdict | None
    receipt: Receipt | None
    outcome: Outcome

    @property
    def kind(self) -> VerdictStatus | None:
        return None if self.verdict is None else self.verdict.verdict

    @property
    def error_place(self) -> str | None:
        error = None if self.receipt is None else self.receipt.error
        return None if error is None else error_place(error.traceback)


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
    that its jobs started have which status."""

    entries: int
    outcomes: Counter[Outcome]
    kinds: Counter[str]
    causes: tuple[Cause, ...]
    first: tuple[ListedEntry, ...]
    descendants: Statuses = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Return the group's outcome as a whole, see ``PRECEDENCE``."""
        return next((one for one in PRECEDENCE if self.outcomes[one]), "passed")


def tally(ledger: Ledger, entries: Iterable[str]) -> Tally:
    """Count the verdicts of these entries; those without one count as errors.

    Raises LedgerError where the ledger cannot be read.
    """
    count = 0
    descendants: Counter[VerdictStatus | None] = Counter()
    batch: list[str] | None = [] if ledger.descendants.any() else None

    def counted() -> Iterator[str]:
        nonlocal count
        for count, entry in enumerate(entries, 1):  # noqa: B007 (the last number is the count)
            if batch is not None:
                batch.append(entry)
                if len(batch) == _BATCH:
                    descendants.update(ledger.trees.statuses_of_entries(batch))
                    batch.clear()
            yield entry

    outcomes: Counter[Outcome] = Counter()
    kinds: Counter[str] = Counter()
    causes = Causes()
    first: dict[Outcome, list[ListedEntry]] = {outcome: [] for outcome in PRECEDENCE}
    for entry, found in ledger.queries.not_passed(counted()):
        verdict = None if found is None else found.verdict
        outcome: Outcome = "error" if verdict is None else outcome_of(verdict.verdict)
        outcomes[outcome] += 1
        kinds["no verdict" if verdict is None else verdict.verdict] += 1
        receipt = None if found is None else found.receipt
        causes.add(NotPassed(entry, verdict, receipt, outcome))
        if len(first[outcome]) < SHOWN:
            first[outcome].append(_listed_entry(entry, verdict))
    if batch:
        descendants.update(ledger.trees.statuses_of_entries(batch))
    outcomes["passed"] = count - outcomes.total()
    shown = [entry for outcome in PRECEDENCE for entry in first[outcome]][:SHOWN]
    return Tally(
        count, outcomes, kinds, causes.largest_first()[:_CAUSES], tuple(shown), descendants
    )


def _listed_entry(entry: str, verdict: Verdict | None) -> ListedEntry:
    kind, sentence = ("no verdict", _NO_VERDICT)
    if verdict is not None:
        kind, sentence = verdict.verdict, verdict.sentence
    return ListedEntry(entry, kind, middle(" ".join(printable(sentence).split()), _SENTENCE))


def headline(found: Tally) -> str:
    """Return one line with how many entries have which outcome."""
    counts = [(outcome, found.outcomes[outcome]) for outcome in PRECEDENCE]
    (first, number), *others = [(outcome, count) for outcome, count in counts if count]
    more = "".join(f", {count} {_WORDS[outcome]}" for outcome, count in others)
    return f"{number} of {plural(found.entries, 'entry')} {_WORDS[first]}{more}"


def explain_group(found: Tally, where: Sequence[tuple[str, str]]) -> str:
    """Return several lines of text: counts, causes, the first entries, and where to read on.

    ``where``: names of what to read, and its path or address.
    """
    trees = f"\n{counts_text(found.descendants)}." if number_of(found.descendants) else ""
    parts = [f"{headline(found)}.{trees}"]
    if found.causes:
        parts.append("\n".join(["By cause:", *_by_cause(found.causes)]))
    parts.append("\n".join(["The first ones:", *_first(found)]))
    wide = max((len(name) for name, _ in where), default=0)
    if where:
        parts.append("\n".join(["Read on:", *(f"  {name:<{wide}}  {at}" for name, at in where)]))
    return "\n\n".join(parts)


def _by_cause(causes: Sequence[Cause]) -> Iterator[str]:
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
