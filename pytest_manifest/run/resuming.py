"""Going on with an earlier run: reconcile with the broker, decide entry by entry, send the rest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_manifest.broker.locating import Located
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import STORE_EMPTIED, Ledger, RunInfo, has_all_starts
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.gatherer import Gatherer
from pytest_manifest.run.again import judge_again
from pytest_manifest.run.audit import follow_spoken_for, follow_unsettled
from pytest_manifest.run.budget import NOTHING, refuse_beyond
from pytest_manifest.run.changes import Change, change_of, keep_changes, kept_manifest
from pytest_manifest.run.earlier import EarlierRun
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.flights import Flights
from pytest_manifest.run.judging import Bench
from pytest_manifest.run.kept import judge_what_is_kept
from pytest_manifest.run.resume import (
    NOT_SENT,
    Decision,
    Facts,
    Place,
    ResumeRules,
    attempts_to_send,
    decide,
    may_have_started,
    record,
)
from pytest_manifest.run.search import Search
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.run.unread import Unread
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.stack.address import StackAddress
from pytest_manifest.verdict import Costs, judge

SHOWN = 50
"""Decisions that are told one by one; of more, each reason is told once, with some of the ids."""
EXAMPLES = 5


class ResumeRun(EarlierRun):
    """An earlier run that is gone on with; see the module."""

    def __init__(
        self,
        manifest: Manifest,
        ledger_path: Path,
        info: RunInfo,
        address: StackAddress,
        settings: RunSettings,
        *,
        selected: Sequence[str] = (),
        rules: ResumeRules | None = None,
    ) -> None:
        super().__init__(manifest, ledger_path, info, address, settings)
        self._selected = selected
        self._rules = rules or ResumeRules()
        self.decisions: list[Decision] = []
        self._taken_up = False
        # Also where it is refused: the stack has taken over what an earlier one has left.
        self.leaves_jobs = address.owned
        self._begins_anew = False
        """Whether the result store was emptied, so that its stream is to be marked as begun."""

    @classmethod
    def resume(
        cls,
        manifest: Manifest,
        ledger_path: Path,
        selected: Sequence[str],
        address: StackAddress,
        settings: RunSettings,
        rules: ResumeRules,
    ) -> ResumeRun:
        """The run with this ledger, to be gone on with for the selected entries."""
        with Ledger.open(ledger_path) as ledger:
            info = ledger.info()
        return cls(manifest, ledger_path, info, address, settings, selected=selected, rules=rules)

    def take_effect(self) -> None:
        super().take_effect()
        self._taken_up = True
        if self._begins_anew:
            # Marked for a run that is refused after all, an emptied store would look intact.
            with contextlib.closing(self._open_gatherer("0")) as gatherer:
                gatherer.begin(self.info.stream_ttl)

    def abandon(self) -> None:
        super().abandon()
        if self._taken_up:  # another run of the session could not be written down
            self._taken_up = False
            with Ledger.open(self.ledger_path, write=True) as ledger:
                ledger.set_status("stopped" if self.info.is_private else "detached")

    # Before the first message

    def _prepare(self, expected_workers: int | None) -> None:
        ledger = self._take_up()
        publisher = self._open_publisher()
        position = ledger.get_meta("stream_position") or "0"
        with contextlib.closing(self._open_gatherer(position)) as gatherer:
            self._follow(ledger)
            self._open_locator(publisher, self._flights.entries())
            self._reconcile(ledger, gatherer)
        if self._to_send:
            self._preflight(publisher, self._to_send, expected_workers)
            self._open_locator(publisher, self._flights.entries())

    def _follow(self, ledger: Ledger) -> None:
        chosen = frozenset(self._selected)  # of the rest all stays as it is
        ledger.reopen_not_final(self._selected)
        follow_unsettled(self._flights, ledger, self.manifest, self.info, chosen)
        follow_spoken_for(self._flights, ledger, self.manifest, self.info, chosen)

    def _reconcile(self, ledger: Ledger, gatherer: Gatherer) -> None:
        """Read what came since, look for what is under way, and decide what is to be sent."""
        before = kept_manifest(self.ledger_path, self.info.sha256)
        engine = self._make_engine(ledger, gatherer)
        engine.send_nothing()
        judge_what_is_kept(ledger, self._flights, self._bench(ledger))
        engine.look_once()
        self._note_strangers(ledger)  # before anything is moved
        places = self._places(engine)
        engine.look_once()
        had = ledger.statuses()
        chosen = set(self._selected)
        again = judge_again(ledger, self.manifest, before, self._bench(ledger), chosen)
        with ledger.transaction():
            ledger.record_verdicts(list(again))
        intact = gatherer.intact()
        if intact is False:
            ledger.set_meta(
                STORE_EMPTIED, "1"
            )  # a stream that is begun anew would not tell of it any more
        known = Known(ledger, before, had, ledger.statuses(), places, witnessed=intact is not False)
        self.decisions = decisions(known, self.manifest, self._selected, self._rules)
        self._check_budget(ledger)
        if intact is False and any(
            ledger.entry_verdict(flight.entry.id) is None
            for flight in self._flights.by_task_id.values()
        ):
            ledger.set_meta(
                STORE_EMPTIED, "1"
            )  # the next store will be whole, and know as little of these
        self._settle_what_is_left(ledger, engine.unread, emptied=intact is False)
        self._plan(ledger, before)
        if intact is False and self._to_send:
            ledger.set_meta(
                "stream_position", "0"
            )  # a stream that begins anew may count from 1 again
            self._begins_anew = True

    def _check_budget(self, ledger: Ledger) -> None:
        """Refuse what would cost more, with what was spent and is under way, than is allowed."""
        if self.settings.budget is None:
            return
        actions = {decision.entry: decision.action for decision in self.decisions}
        waiting = {
            task_id
            for task_id, flight in self._flights.by_task_id.items()
            if actions.get(flight.entry.id) == "wait"
        }
        self._costs = dict(Costs(ledger, self.manifest).by_attempt(without=waiting))
        if "send" not in actions.values():
            return
        to_come = [name for name, action in actions.items() if action in ("send", "wait")]
        refuse_beyond(
            self.settings.budget,
            map(self.manifest.__getitem__, to_come),
            self.manifest.path.name,
            sum(self._costs.values(), NOTHING),
        )

    def _plan(self, ledger: Ledger, before: Manifest | None) -> None:
        """Write down what is to be sent, and what is waited for."""
        last = {row.entry: row for row in ledger.last_attempts()}
        attempts = list(attempts_to_send(self.decisions, self.manifest, self.info.run, last))
        waiting = {d.entry for d in self.decisions if d.action == "wait"}
        back = [row for name, row in last.items() if name in waiting and row.state == "withdrawn"]
        with ledger.transaction():
            ledger.reopen(waiting)
            # It was not out after all, and whoever finds it may run it from here on.
            ledger.mark((row.task_id for row in back), "sent")
        for flight in list(self._flights.by_task_id.values()):
            if flight.entry.id not in waiting:
                self._flights.land(flight.task_id)
        digest = self.info.sha256
        if self.manifest.sha256 != digest:
            applied = {d.entry for d in self.decisions if d.action != "leave"}
            digest, self._made = keep_changes(self.manifest, before, self.ledger_path, applied)
        record(ledger, self.manifest, self.decisions, attempts, last, digest)
        if attempts:
            self._note_budget(ledger)
        self._to_send = attempts

    def _places(self, engine: Engine) -> dict[str, Place]:
        """Where what has no receipt is, by task id. Raises DispatchError where nobody can tell."""
        if self._locator is None or not self._flights:
            return {}
        try:
            located = Search(self._locator, self._flights).look_twice()
            engine.believe(located.nowhere)
            taken_out = set(engine.mend(located))
        except StackError as error:
            raise DispatchError(
                f"run {self.info.run} was not gone on with: what is still queued cannot be told "
                f"({error})"
            ) from error
        mended = self.address.owned or self.settings.repair
        return places_of(located, self._flights, taken_out, mended=mended, left=engine.left)

    def _settle_what_is_left(self, ledger: Ledger, unread: Unread, *, emptied: bool) -> None:
        """A verdict for what is not sent again and has none."""
        last = {row.entry: row for row in ledger.last_attempts()}
        bench = self._bench(ledger)
        with ledger.transaction():
            for decision in self.decisions:
                row = last.get(decision.entry)
                if decision.action != "leave" or row is None:
                    continue
                flight = self._flights.by_task_id.get(row.task_id)
                if flight is None or ledger.entry_verdict(decision.entry) is not None:
                    continue
                kind: VerdictStatus = "crashed" if flight.is_running else "lost"
                note = decision.reason
                doubt, why = bench.missing(flight, emptied=emptied)
                if doubt == "unknown" and (emptied or not flight.is_running):
                    kind, note = doubt, f"{note}; {why}"
                kind, note = unread.word(flight, kind, note)
                entry = self.manifest[decision.entry]
                verdict = judge(entry, None, attempt=row.attempt, problem=kind, note=note)
                ledger.record_verdicts([(verdict, None)])


@dataclass(frozen=True)
class Known:
    """What is known when the decisions are taken.

    ``before``: the manifest of the run; ``had``: the verdicts by it; ``kinds``: those by the
    present one; ``places``: where attempts without a receipt were found, by task id; ``witnessed``:
    all that workers said has been kept.
    """

    ledger: Ledger
    before: Manifest | None
    had: Mapping[str, VerdictStatus]
    kinds: Mapping[str, VerdictStatus]
    places: Mapping[str, Place]
    witnessed: bool


def decisions(
    known: Known, manifest: Manifest, selected: Iterable[str], rules: ResumeRules
) -> list[Decision]:
    """What is done with each selected entry, in the given order."""
    ledger = known.ledger
    last = {row.entry: row for row in ledger.last_attempts()}
    starts = ledger.starts_by_task()
    witnessed = known.witnessed and has_all_starts(ledger, some_start=bool(starts))
    decided: list[Decision] = []
    for name in selected:
        row, settled = last.get(name), ledger.entry_verdict(name)
        passed = known.kinds.get(name) == "passed"  # which is kept, whatever else was said of it
        received = [] if row is None or passed else ledger.receipts(row.task_id)
        change, changed = _change(manifest[name], known.before)
        facts = Facts(
            last=row,
            kind=known.kinds.get(name),
            before=known.had.get(name),
            change=change,
            changed=changed,
            place=None if row is None else known.places.get(row.task_id),
            may_have_started=may_have_started(
                row,
                settled,
                [receipt for _, receipt in received],
                begun=row is not None and row.task_id in starts,
                witnessed=witnessed,
            ),
        )
        decided.append(decide(manifest[name], facts, rules))
    return decided


def preview(
    ledger_path: Path,
    manifest: Manifest,
    selected: Iterable[str],
    rules: ResumeRules,
    *,
    stack_is_gone: bool,
) -> list[Decision]:
    """What would be decided by the ledger alone: no stack is asked, and nothing is written.

    What was sent and has no receipt counts as still under way, unless its ``stack_is_gone``: only a
    look at the stack could tell.
    """
    with Ledger.open(ledger_path) as ledger:
        before = kept_manifest(ledger_path, ledger.info().sha256)
        places: dict[str, Place] = {
            row.task_id: "nowhere" if stack_is_gone else "untold"
            for row in ledger.attempts(undecided=True)
            if row.state not in NOT_SENT
        }
        had = ledger.statuses()
        bench = Bench(ledger.info().run, manifest, ledger, kills=1, lifetime=0)
        again = {v.entry: v.verdict for v, _ in judge_again(ledger, manifest, before, bench)}
        # Pending and unknown ones are looked at anew.
        kinds = {e: kind for e, kind in had.items() if kind not in ("pending", "unknown")} | again
        known = Known(ledger, before, had, kinds, places, witnessed=ledger.status != "running")
        return decisions(known, manifest, selected, rules)


def _change(entry: Entry, before: Manifest | None) -> tuple[Change | None, str]:
    if before is None:
        return None, ""
    return change_of(entry, before[entry.id] if entry.id in before else None)  # noqa: SIM401 - no dict


def places_of(
    located: Located,
    flights: Flights,
    taken_out: Container[str],
    *,
    mended: bool,
    left: Container[str] = (),
) -> dict[str, Place]:
    """Where each flight was found; ``mended``: orphans were put back, or ``taken_out`` if begun;
    but those that were ``left``, as nobody knows whether they were."""
    found: dict[str, Place] = dict.fromkeys(located.untold, "untold")
    found.update(dict.fromkeys(located.nowhere, "nowhere"))
    found.update(dict.fromkeys(located.queued, "queued"))
    found.update(dict.fromkeys(located.underway, "underway"))
    for task_id in located.orphaned:
        flight = flights.by_task_id.get(task_id)
        if not mended:
            found[task_id] = "orphaned"
        elif task_id in taken_out:
            found[task_id] = "nowhere"
        else:
            begun = task_id in left or (flight is not None and flight.is_running)
            found[task_id] = "untold" if begun else "queued"
    return found


def told(decided: Sequence[Decision], *, every: bool = False) -> list[str]:
    """The decisions in lines for a person; of many, by reason, unless ``every`` one is wanted."""
    verbs = {"send": "sends", "wait": "waits for", "leave": "leaves"}
    shown = [d for d in decided if d.action in verbs]
    hint = ["--manifest-resume-unsafe sends what is left as well"]
    hints = hint if any(d.action == "leave" and d.unsafe for d in shown) else []
    if every or len(shown) <= SHOWN:
        return [f"{verbs[d.action]} {d.entry!r}: {d.reason}" for d in shown] + hints
    groups = Counter((d.action, d.reason) for d in shown)
    lines: list[str] = []
    for (action, reason), count in groups.most_common():
        ids = [d.entry for d in shown if (d.action, d.reason) == (action, reason)][:EXAMPLES]
        names = ", ".join(map(repr, ids))
        more = f" and {count - len(ids)} more" if count > len(ids) else ""
        lines.append(f"{verbs[action]} {names}{more}: {reason}")
    return lines + hints
