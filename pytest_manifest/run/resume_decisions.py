"""Decide on the entries of a run that is resumed, by all that is known of each."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from pytest_manifest.broker.locating.base import Location
from pytest_manifest.ledger import Ledger, has_all_starts
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.earlier import NOT_OURS, open_trees
from pytest_manifest.run.evaluation import AttemptEvaluator
from pytest_manifest.run.reevaluation import reevaluate
from pytest_manifest.run.resume_rules import (
    Decision,
    EntryState,
    ResumeRules,
    decide,
    may_have_started,
)
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import OPEN


@dataclass(frozen=True)
class Known:
    """Hold what is known when the decisions are taken.

    ``statuses``: the verdicts; ``locations``: where attempts without a receipt were found, by task
    id; ``held``: task ids of jobs that have ended while tasks that they started have not;
    ``witnessed``: all that workers reported has been kept; ``turned_away``: task ids that a
    worker turned away, which may have another message.
    """

    ledger: Ledger
    statuses: Mapping[str, VerdictStatus]
    locations: Mapping[str, Location]
    held: Set[str]
    witnessed: bool
    turned_away: Container[str] = frozenset()


def decisions(
    known: Known, manifest: Manifest, selected: Iterable[str], rules: ResumeRules
) -> list[Decision]:
    """Decide on each selected entry, in the given order."""
    ledger = known.ledger
    last = {row.entry: row for row in ledger.attempts.newest()}
    starts = ledger.events.starts_by_task()
    witnessed = known.witnessed and has_all_starts(ledger.info, some_start=bool(starts))
    decided: list[Decision] = []
    for name in selected:
        row, settled = last.get(name), ledger.verdicts.of_entry(name)
        passed = known.statuses.get(name) == "passed"  # which is kept, whatever else was reported
        received = [] if row is None or passed else ledger.events.receipts(row.task_id)
        state = EntryState(
            last=row,
            status=known.statuses.get(name),
            location=None if row is None else known.locations.get(row.task_id),
            turned_away=row is not None and row.task_id in known.turned_away,
            may_have_started=may_have_started(
                row,
                settled,
                [receipt for _, receipt in received],
                begun=row is not None and row.task_id in starts,
                witnessed=witnessed,
            ),
            tree_goes_on=row is not None
            and row.task_id in known.held
            and known.statuses.get(name) is not None,
        )
        decided.append(decide(manifest[name], state, rules))
    return decided


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
        sent = {
            row.task_id for row in ledger.attempts.all(undecided=True) if row.state not in NOT_OURS
        }
        held = {row.task_id for row in open_trees(ledger, manifest, frozenset(names))}
        locations: dict[str, Location] = {}
        if not stack_is_gone:
            locations.update(dict.fromkeys(sent | held, "unknown"))
        statuses_before = ledger.verdicts.statuses()
        evaluator = AttemptEvaluator(
            ledger.info.read().run, manifest, ledger, kills=ledger.info.kills() or 1, lifetime=0
        )
        again = {v.entry: v.verdict for v, _ in reevaluate(ledger, manifest, manifest, evaluator)}
        # Pending and unknown ones are looked at anew.
        statuses = {
            e: status for e, status in statuses_before.items() if status not in OPEN
        } | again
        known = Known(
            ledger,
            statuses,
            locations,
            held,
            witnessed=ledger.info.status != "running",
        )
        return decisions(known, manifest, names, rules)
