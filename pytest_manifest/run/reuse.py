"""Let passes of earlier runs count for entries whose work is the very same, and send these not.

An earlier pass is only offered here. Whether it counts is decided as for every other attempt: all
that the earlier ledger has of it is copied, and judged by what the entry expects now.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.errors import DispatchError, LedgerError, ManifestError
from pytest_manifest.ledger import SECRETS, TO_REUSE, Ledger, utc_now
from pytest_manifest.ledger.run_info import REUSED_RUNS
from pytest_manifest.ledger.transfers import ReusedAttempt
from pytest_manifest.manifest import id_and_task
from pytest_manifest.run import earlier_passes
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.send_queue import FirstAttempts, names_of
from pytest_manifest.run.settings import EarlierRuns
from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema.statuses import NOT_SENT
from pytest_manifest.text import listed, plural
from pytest_manifest.verdict.judging import Judged, Judging, recorded, signatures_of

_SHOWN: Final = 3
"""Runs and tasks that a message names."""


def planned_note(earlier: EarlierRuns) -> str:
    """Return what the ledger notes under ``TO_REUSE`` until the passes were looked for."""
    return json.dumps([path.stem for path in earlier.ledgers])


def refuse_unlooked(ledger: Ledger) -> None:
    """Raise DispatchError where a run was to reuse passes, and ended before it had looked for any.

    To go on with it would send all of what has passed before.
    """
    if ledger.info.get_meta(TO_REUSE):
        raise DispatchError(
            f"run {ledger.info.read().run} was to reuse earlier passes (--manifest-reuse), and "
            "ended before it had looked for them; nothing of it was sent, so begin it again with "
            "the same command, without --manifest-resume"
        )


def take_over_passes(
    state: RunState,
    ledger: Ledger,
    codes: Mapping[str, str],
) -> None:
    """Judge what is to be sent by earlier passes of the same work, and leave the rest to be sent.

    ``codes``: the digest of each task's code that would run, as far as that is known. All of it is
    one transaction. Raises DispatchError where a run that was named cannot be used.
    """
    earlier = state.settings.reuse
    if earlier is None:
        return
    selected = len(state.to_send)
    with ledger.transaction():
        found = _Takeover(state, ledger, codes)
        found.search(earlier)
        found.hold_back_dependents()
        found.keep_secrets()
        ledger.transfers.withdraw_planned(list(found.reused))
        ledger.info.set_meta(TO_REUSE, "")
    if isinstance(state.to_send, FirstAttempts):
        state.to_send = state.to_send.without_entries(found.reused)
    else:
        state.to_send = [one for one in state.to_send if one.entry.id not in found.reused]
    state.notices += found.messages(selected)


@dataclass(slots=True)
class _NotReused:
    """The count of entries that no earlier pass counts for, by the reason."""

    excluded: int = 0
    held_back: int = 0
    doubted: int = 0
    of_other_trees: int = 0
    unknown_code: Counter[str] = field(default_factory=Counter)


class _Takeover:
    """Take earlier passes over into a run's ledger; call it all within one transaction."""

    def __init__(
        self,
        state: RunState,
        ledger: Ledger,
        codes: Mapping[str, str],
    ) -> None:
        self._state = state
        self._ledger = ledger
        self.reused: dict[str, ReusedAttempt] = {}
        """What was taken over, by the entry that it counts for."""
        self._runs: Counter[str] = Counter()
        """How many entries were reused, by the run that had sent them."""
        self._left = _NotReused()
        self._after: dict[str, Sequence[str]] = {}
        self._waited_for: dict[str, Container[str]] = {}
        """What the job of a reused entry had waited for, as task ids, by entry."""
        self._unreadable: list[Path] = []
        signed_only = signatures_of(ledger) is not None
        self._offers = earlier_passes.Offers(
            state.manifest, codes, state.info.run, utc_now(), signed_only=signed_only
        )
        selected = {entry for _, entry in names_of(state.to_send)}
        for position, line in enumerate(state.manifest.lines()):
            name, task = id_and_task(line.raw)
            if name in selected:
                self._want(name, task, position, earlier_passes.work_of(line.raw))

    def _want(self, name: str, task: str, position: int, entry: Mapping[str, JsonValue]) -> None:
        if after := earlier_passes.waits_for(entry):
            self._after[name] = after
        if entry.get("reuse", True) is False:
            self._left.excluded += 1
        elif not self._offers.knows_code_of(task):
            self._left.unknown_code[task] += 1
        elif (key := earlier_passes.work_key(entry)) is not None:
            self._offers.want(key, name, position)

    def search(self, earlier: EarlierRuns) -> None:
        """Take over what these runs have, from the first named one on.

        An entry's own passes are looked for in all of them before those of other ids.
        """
        for of_own_ids in (True, False):
            for path in earlier.ledgers:
                if path == self._state.files.ledger or not self._offers.wanted:
                    continue
                if path not in self._unreadable:
                    self._search_run(path, of_own_ids=of_own_ids, is_named=earlier.are_named)

    def _search_run(self, path: Path, *, of_own_ids: bool, is_named: bool) -> None:
        # What fails while this ledger is written is no fault of the earlier one.
        batches = earlier_passes.EarlierPasses(path, self._offers).batches(of_own_ids=of_own_ids)
        while True:
            try:
                batch = next(batches, None)
            except (LedgerError, ManifestError) as error:
                if is_named:
                    raise DispatchError(f"nothing was sent: {error}") from error
                self._unreadable.append(path)
                return
            if batch is None:
                return
            self._take(batch)

    def _take(self, batch: Sequence[earlier_passes.OfferedPass]) -> None:
        """Copy these passes, judge each anew, and remove those that do not pass."""
        transfers = self._ledger.transfers
        transfers.add_reused([(one.attempt, one.rows) for one in batch])
        self._ledger.facts.append((one.attempt.entry, fact) for one in batch for fact in one.facts)
        origins = {one.attempt.origin.run for one in batch}
        self._ledger.info.add_task_ids(REUSED_RUNS, origins)
        judging = Judging(self._ledger, by_present_keys=True)
        entries = self._state.manifest.some(one.attempt.entry for one in batch)
        passed: list[tuple[Verdict, Receipt | None]] = []
        left: list[str] = []
        loaded = self._ledger.jobs.of_entries([one.attempt.entry for one in batch])
        for entry, one in zip(entries, batch, strict=True):
            taken = [each for each in loaded[entry.id] if each.own.job.reused is not None]
            judged = judging.judge(entry, taken)  # not what is planned yet
            if one.is_sound and judged.judgement.status == "passed" and _is_sound(judging, judged):
                passed.append(recorded(judged))
                self.reused[entry.id] = one.attempt
                self._waited_for[entry.id] = one.waited_for
                self._runs[one.attempt.origin.run] += 1
            else:
                left.append(one.attempt.task_id)
                if one.is_sound:
                    self._left.doubted += 1
                else:
                    self._left.of_other_trees += 1
                self._offers.give_back(one.key, entry.id, one.attempt.position, one.attempt.task_id)
        transfers.drop_reused(left)
        self._ledger.verdicts.record(passed)

    def hold_back_dependents(self) -> None:
        """Remove what waits for an entry that runs again, or whose job it did not wait for.

        Its work was done on what another job had left, or on what none had left yet.
        """
        waiting: dict[str, list[str]] = {}
        for name, others in self._after.items():
            for other in others:
                waiting.setdefault(other, []).append(name)
        stale = [name for name in self._after if not self._is_up_to_date(name)]
        removed: list[ReusedAttempt] = []
        while stale:
            name = stale.pop()
            one = self.reused.pop(name, None)
            if one is not None:
                removed.append(one)
                self._runs[one.origin.run] -= 1
                self._left.held_back += 1
                stale += waiting.get(name, ())
        self._ledger.verdicts.reopen([one.entry for one in removed])
        self._ledger.transfers.drop_reused([one.task_id for one in removed])

    def _is_up_to_date(self, name: str) -> bool:
        """Return whether all that a reused entry waits for is reused, and its job waited for that.

        A job that had passed and was sent anew since has left something else.
        """
        one = self.reused.get(name)
        if one is None:
            return True
        waited_for = self._waited_for[name]
        before = [self.reused.get(other) for other in self._after[name]]
        return all(
            other is not None and other.task_id in waited_for and other.sent_at <= one.sent_at
            for other in before
        )

    def keep_secrets(self) -> None:
        """Have what was a secret of an earlier run hidden wherever this run is told of."""
        if self.reused:
            self._ledger.info.add_task_ids(SECRETS, self._offers.secrets)

    def messages(self, selected: int) -> list[str]:
        """Say how many entries are reused, from where, and why others are not."""
        name, left = self._state.manifest.path.name, self._left
        runs = [f"{run} ({count})" for run, count in self._runs.most_common() if count]
        number, entries = len(self.reused), plural(selected, "entry")
        told = [f"reuses {number} of {entries}, from run {listed(runs, _SHOWN)}"]
        if not number:
            told = [f"reuses none of {entries}"]
        if left.unknown_code:
            tasks = listed(sorted(map(repr, left.unknown_code)), _SHOWN)
            told.append(
                f"{_unused(left.unknown_code.total())}, as no worker says, or not all say "
                f"alike, what code would run of {tasks}"
            )
        if left.excluded:
            told.append(f'{_unused(left.excluded)}, as "reuse": false says')
        if outdated := self._offers.outdated.difference(self.reused):
            told.append(
                f"{_unused(len(outdated))}, having passed with other code than would run now, or "
                "with unreported code"
            )
        if left.held_back:
            told.append(f"{_unused(left.held_back)}, not having run after what is waited for now")
        if left.of_other_trees:
            verb = "is of a job" if left.of_other_trees == 1 else "are of jobs"
            told.append(
                f"{plural(left.of_other_trees, 'earlier pass')} {verb} of which not all that it "
                "started is known to have ended by the code that would run now"
            )
        if left.doubted:
            told.append(f"{plural(left.doubted, 'earlier pass')} would not pass as judged now")
        if corrected := len(self._offers.corrected):
            passes = (
                "1 reused pass is none" if corrected == 1 else f"{corrected} reused passes are none"
            )
            told.append(f"{passes} any more in the run that had sent it")
        if self._unreadable:
            unusable = listed([path.stem for path in self._unreadable], _SHOWN)
            told.append(f"nothing is reused of {unusable}: it goes on, or cannot be read")
        return [f"{name}: {one}" for one in told]


def _is_sound(judging: Judging, judged: Judged) -> bool:
    """Return whether each task that a job started has passed as well, by this run's keys.

    Also where the entry ignores its descendants. What was never sent has no end.
    """
    attempt = judged.attempts[-1]
    return all(
        judging.descendant(judged.entry, attempt.own.job, facts).finding.status
        in ("passed", NOT_SENT)
        for facts in attempt.descendants
    )


def _unused(number: int) -> str:
    # Not: are sent. What they wait for may fail, or may not be selected.
    verb = "is" if number == 1 else "are"
    return f"{plural(number, 'entry')} {verb} not reused"
