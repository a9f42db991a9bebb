"""Count by which dispositions the failures of a run are accepted, and which need none any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pytest_manifest.analysis.causes import EXAMPLES
from pytest_manifest.analysis.dispositions import Acceptance, Disposition
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.summary import SummaryAccepted
from pytest_manifest.text import many


@dataclass(slots=True)
class _Some:
    """A number of entries, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    verdicts: Counter[VerdictStatus] = field(default_factory=Counter)

    def add(self, name: str, verdict: VerdictStatus | None) -> None:
        self.count += 1
        if verdict is not None:
            self.verdicts[verdict] += 1
        if len(self.first) < EXAMPLES:
            self.first.append(name)


class Uses:
    """The use of each disposition in a run: take its entries, then ask for what to say."""

    def __init__(self, manifest: Path, acceptance: Acceptance) -> None:
        self._manifest, self._acceptance = manifest, acceptance
        self._failed: set[Disposition] = set()
        self._held = 0
        self._passed, self._accepted = dict[Disposition, _Some](), dict[str, _Some]()

    def add(self, record: EntryRecord) -> EntryRecord:
        """Take an entry, and return it."""
        accepted = record.accepted
        self._held += record.kind == "skipped"
        if accepted is not None:
            if accepted.by is not None:
                self._failed.add(accepted.by)
            if not accepted.is_over:
                self._accepted.setdefault(accepted.text, _Some()).add(record.id, record.kind)
        elif record.outcome == "passed":
            for one in self._acceptance.dispositions:
                if one.entry and one.is_about(self._manifest, record.id):
                    self._passed.setdefault(one, _Some()).add(record.id, record.kind)
        return record

    def accepted(self) -> list[SummaryAccepted]:
        """Return the accepted failures by their reasons, those of most entries first."""
        found = [
            SummaryAccepted(
                text=text, count=some.count, verdicts=dict(some.verdicts), examples=some.first
            )
            for text, some in self._accepted.items()
        ]
        return sorted(found, key=lambda one: -one.count)

    @property
    def holds_back(self) -> bool:
        """Return whether entries were never sent, by which an accepted failure may be to blame."""
        return bool(self._accepted) and self._held > 0

    def said(self) -> Iterator[str]:
        """Yield a sentence for each that is over, and for each whose entries have all passed."""
        if self.holds_back:
            yield (
                f"{many(self._held, 'entry')} held back in a run whose failures are accepted, so "
                "this session fails: what never ran is not accepted"
            )
        for one in self._acceptance.dispositions:
            if one in self._failed and one.until < self._acceptance.today:
                yield f"{one.place}: accepted until {one.until}, which is over, so it fails again"
            passed = self._passed.get(one)
            if passed is not None and one not in self._failed:
                more = f" and {passed.count - 1} more" if passed.count > 1 else ""
                names = f"{passed.first[0]!r}{more}"
                yield f"{one.place}: {names} passed, so it is not needed any more; take it out"
