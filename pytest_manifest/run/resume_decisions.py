"""Decide on the entries of a run that is resumed, by what the judge says of each and its place."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_manifest.broker.locating.base import Location
from pytest_manifest.ledger import AttemptRow, Ledger, utc_now
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.earlier import NOT_OURS, open_trees
from pytest_manifest.run.judging import Judged, Judging
from pytest_manifest.run.resume_rules import Decision, EntryState, ResumeRules, decide
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_facts import StoreFact
from pytest_manifest.schema.statuses import OPEN, RESENDABLE
from pytest_manifest.verdict.problems import AwaitsTree

LATER: Final = 1 << 62
"""A place in the order after all that a ledger has."""


@dataclass(frozen=True)
class Known:
    """Hold what is known when the decisions are taken, beside the facts of the ledger.

    ``last``: the newest attempts, by entry; ``statuses``: the verdicts, also those that were only
    inferred; ``locations``: where attempts without a receipt were found, by task id; ``held``: task
    ids of jobs that have ended while tasks that they started have not; ``turned_away``: task ids
    that a worker turned away, which may have another message.
    """

    last: Mapping[str, AttemptRow]
    statuses: Mapping[str, VerdictStatus]
    locations: Mapping[str, Location] = field(default_factory=dict)
    held: Set[str] = frozenset()
    turned_away: Container[str] = frozenset()


def decisions(
    known: Known, judged: Iterable[Judged], rules: ResumeRules
) -> Iterator[tuple[Judged, Decision]]:
    """Decide on each entry that was judged, in the given order."""
    for one in judged:
        name, row = one.entry.id, known.last.get(one.entry.id)
        status = _status(known.statuses.get(name), one)
        state = EntryState(
            last=row,
            status=status,
            location=None if row is None else known.locations.get(row.task_id),
            turned_away=row is not None and row.task_id in known.turned_away,
            may_have_started=_may_have_run(status, row, one),
            tree_goes_on=row is not None and row.task_id in known.held and status is not None,
        )
        yield one, decide(one.entry, state, rules)


def _status(stored: VerdictStatus | None, one: Judged) -> VerdictStatus | None:
    """Return an entry's status; None where no more is known than where its job is, or is not."""
    judgement = one.judgement
    if is_unproven(stored, one):
        return "unknown"
    if not judgement.is_final or (stored is None and judgement.status in RESENDABLE):
        return stored
    return judgement.status


def _may_have_run(status: VerdictStatus | None, row: AttemptRow | None, one: Judged) -> bool:
    """Return whether an entry's last attempt may have run; what is forged nobody has looked for."""
    is_forged = status == "forged" and row is not None and row.state != "reused"
    return is_forged or one.judgement.may_have_run


def is_unproven(stored: VerdictStatus | None, one: Judged) -> bool:
    """Return whether an entry is recorded as passed, and nothing that is known shows it."""
    judgement = one.judgement
    if stored != "passed" or judgement.is_final:
        return False
    return not isinstance(judgement.finding.reason, AwaitsTree)


def preview(
    ledger_path: Path,
    manifest: Manifest,
    selected: Iterable[str],
    rules: ResumeRules,
    *,
    stack_is_gone: bool,
) -> list[Decision]:
    """Decide by the ledger alone: query no stack, and write nothing.

    An attempt that was sent and has no receipt counts as still under way, as does one of whose
    descendants some have none, unless its ``stack_is_gone``: only a search of the stack could tell.
    """
    names = list(selected)
    with Ledger.open(ledger_path) as ledger:
        ledger.verdicts.refuse_contradictions()
        sent = {
            row.task_id for row in ledger.attempts.all(undecided=True) if row.state not in NOT_OURS
        }
        held = {row.task_id for row in open_trees(ledger, manifest, frozenset(names))}
        locations: dict[str, Location] = {}
        if not stack_is_gone:
            locations.update(dict.fromkeys(sent | held, "unknown"))
        # Pending and unknown ones are looked at anew.
        stored = ledger.verdicts.statuses().items()
        known = Known(
            last={row.entry: row for row in ledger.attempts.newest()},
            statuses={entry: status for entry, status in stored if status not in OPEN},
            locations=locations,
            held=held,
        )
        # What a session that goes on, or was killed, has not read yet, may be a start.
        unread = [StoreFact(seq=LATER, at=utc_now(), what="emptied")]
        judging = Judging(ledger, also=unread if ledger.info.status == "running" else ())
        found = decisions(known, judging.each(manifest.some(names)), rules)
        return [decision for _, decision in found]
