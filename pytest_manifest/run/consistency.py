"""Check a run's record: hold it against the promises, and judge each entry again by its facts."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.jobs import BATCH
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.invariants import Promise, Violation, broken_invariants
from pytest_manifest.run.judging import Judged, Judging, is_same
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Kind, TakenUp


@dataclass(frozen=True, slots=True)
class RecordSize:
    """The entries that a run has, and those of them that have a verdict."""

    entries: int
    verdicts: int


def record_size(ledger: Ledger) -> RecordSize:
    """Count a run's entries and verdicts."""
    return RecordSize(ledger.attempts.count_entries(), sum(ledger.verdicts.counts().values()))


def violations(ledger: Ledger, manifest: Manifest) -> Generator[Violation, None, None]:
    """Yield what in a run's record breaks a promise, in constant memory.

    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    yield from broken_invariants(ledger, manifest)
    for one in judged_otherwise(ledger, manifest):
        promise: Promise = "S4" if one.stored == "passed" else "S5"
        yield Violation(promise, one.entry, one.sentence)


class Difference(NamedTuple):
    """An entry whose verdict is another than its facts give; codes are those of the reasons."""

    entry: str
    stored: VerdictStatus
    code: str
    judged: VerdictStatus
    judged_code: str

    @property
    def sentence(self) -> str:
        stored, judged = f"{self.stored} ({self.code})", f"{self.judged} ({self.judged_code})"
        return f"is recorded as {stored}, and by its facts it is {judged}"


def judged_otherwise(ledger: Ledger, manifest: Manifest) -> Iterator[Difference]:
    """Judge each entry again, and yield those whose status, code or fields are others.

    By all facts, or by those that were known when the verdict was recorded: what was reported since
    is judged when the run is taken up again.
    """
    judging = Judging(ledger, by_present_keys=_has_other_keys(ledger))
    with closing(manifest.lines()) as lines:
        while some := list(islice(lines, BATCH)):
            entries = [manifest.parse(line.raw, line.number) for line in some]
            stored = ledger.verdicts.reasons([entry.id for entry in entries])
            judged = judging.each(entry for entry in entries if entry.id in stored)
            yield from filter(
                None, (_difference(judging, one, stored[one.entry.id]) for one in judged)
            )


def _has_other_keys(ledger: Ledger) -> bool:
    """Return whether what is believed was asked anew, as keys were named later."""
    taken_up = (one.fact for one in ledger.facts.of_kind(Kind.TAKEN_UP))
    return any(isinstance(one, TakenUp) and one.why == "keys" for one in taken_up)


def _difference(judging: Judging, one: Judged, stored: StoredReason) -> Difference | None:
    if not one.attempts or is_same(one, stored) or is_same(judging.as_of(one, stored.seq), stored):
        return None
    found, code = one.judgement.finding, str(stored.reason.get("code", ""))
    return Difference(one.entry.id, stored.status, code, found.status, found.reason.code)
