"""Read a run's ledger as it grows, and move the run's figures on: each row is read once.

The ledger alone is read, from any process: while the run goes on, after its pytest is gone, when it
is over. Whether a pytest lives is said by the run's lock.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from typing_extensions import Self

from pytest_manifest.analysis.causes import Key
from pytest_manifest.analysis.dispositions import ACCEPTANCE
from pytest_manifest.analysis.live_causes import LiveCauses, lasting
from pytest_manifest.analysis.live_entries import Entries, Execution, Lines, Running
from pytest_manifest.analysis.live_story import Death, Story
from pytest_manifest.analysis.pace import Foreseen, Pace
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.ledger import OVER_BUDGET, Ledger, RunInfo, find_runs, utc_now
from pytest_manifest.ledger.additions import AddedAttempt, AddedFact, AddedVerdict
from pytest_manifest.ledger.commands import Command
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.processes import is_held
from pytest_manifest.schema import Entry, Receipt, Verdict, exact, shown
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.run_status import RunState
from pytest_manifest.schema.statuses import BAD, NEVER_STARTED_STATES, Outcome, outcome_of
from pytest_manifest.schema.wire import amount

_ENDS: Final = (Kind.ENDED, Kind.STORED)
_UNSENT_STATES: Final = ("planned", "withheld")
_PREVIOUS: Final = 5_000
"""Bad entries of the run before this one whose causes are looked at."""


class RunFigures:
    """The figures of a run, moved on by what was added to its ledger. For one thread.

    ``detail``: also what takes reading receipts and the manifest: causes, tasks and cost. ``clock``
    returns the present moment (UTC). Raises LedgerError where the ledger cannot be read.
    """

    def __init__(
        self, path: Path, *, detail: bool = True, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self._detail, self._clock = detail, clock
        self._ledger: Ledger | None = None
        self.asked: list[Command] = []
        """What operators have asked for, and no pytest has carried out yet."""
        self._file: tuple[int, int] | None = None
        self._version = 0
        self._before: frozenset[Key] | None = None
        self._has_looked_before = False
        self._lines: Lines | None = None
        self._begin()

    def _begin(self) -> None:
        """Know nothing yet."""
        self._seq = self._segment = 0
        self.go_on: list[str] = []
        """The command by which another pytest goes on with the run."""
        self._doubtful: set[int] = set()
        """Attempts that were about to be sent when they were looked at last."""
        self._costs: dict[int, Decimal] = {}
        self.entries, self.running = Entries(0), Running()
        self.story, self.causes = Story(), LiveCauses()
        self.pace = Pace(0.0)
        self.cost, self.has_costs = Decimal(0), False
        self.accepted: set[int] = set()
        """Entries whose failure this process accepts: a person knows it."""
        self.had_failed = False
        """Whether an entry's failure, not accepted, was known before pytest took the run up."""
        self.heard: float | None = None
        self.waiting_since: datetime | None = None
        self._waits_from = 0
        """The sending before which none waits any more."""
        self.info: RunInfo | None = None
        self._state: Mapping[str, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    # Reading

    def read(self) -> None:
        """Move the figures on by what is new. Raises LedgerError where that cannot be read."""
        ledger = self._opened()
        version = ledger.additions.version()
        if self.info is not None and version == self._version and not self._doubtful:
            return
        with ledger.additions.at_one_moment(), ledger.parse_errors():
            self._state = ledger.additions.state()
            number = self._state["last_segment"]
            segment = number if isinstance(number, int) else 0
            if self.info is None or segment != self._segment or self._is_cut_back(ledger):
                self._begin_with(ledger, segment)
            self._move_on(ledger)
            self.asked = ledger.commands.open()
        self._version = version

    def _opened(self) -> Ledger:
        """Return the open ledger, another one where its file was replaced."""
        try:
            now = os.stat(self.path)  # noqa: PTH116 - of a path that may be a link
            file = now.st_dev, now.st_ino
        except OSError:
            file = None
        if self._ledger is None or file != self._file:
            self.close()
            self._ledger = Ledger.open(self.path)
            self._ledger.info.hide_secrets()
            self._file = file
            self._begin()
        return self._ledger

    def _is_cut_back(self, ledger: Ledger) -> bool:
        """Return whether the ledger has less than it had: it is another copy of it."""
        return ledger.facts.last_seq() < self._seq

    def _begin_with(self, ledger: Ledger, segment: int) -> None:
        """Read anew: a run that is taken up again may have taken back what was planned."""
        state = self._state
        self._begin()
        self._state, self._segment = state, segment
        self.info = ledger.info.read()
        self.go_on = ledger.command("--manifest-resume", f"--manifest-run={self.info.run}")
        jobs = state["last_job"]
        self.entries = Entries(jobs if isinstance(jobs, int) else 0)
        self.pace = Pace(self.info.created_at.timestamp())
        names: dict[str, int] = {}
        for one in ledger.additions.attempts():
            if one.more not in names:
                names[one.more or ""] = one.entry
            self._note_attempt(one)
        self.entries.total = len(names)
        if self._detail:
            if self._lines is None:
                self._lines = Lines.of(self.path, self.info)
            if self._lines is not None and not self._lines.sort_into(self.entries, names):
                self._lines.close()
                self._lines = None

    def _note_attempt(self, one: AddedAttempt) -> None:
        self.entries.make_room(max(one.n, one.entry))
        self._doubtful.discard(one.n)
        if one.state == "reused":
            self.entries.reused_jobs[one.n] = 1
        elif one.state not in _UNSENT_STATES:
            self.entries.set_sent(one.entry)
            if one.state == "intent":
                self._doubtful.add(one.n)
        elif one.attempt <= 1:
            self.entries.set_sent(one.entry, is_sent=False)

    def _move_on(self, ledger: Ledger) -> None:
        additions, after, last = ledger.additions, self._seq, self._seq
        again: dict[int, int] = {}
        for one in additions.sent(after):
            self._note_attempt(one)
            if one.attempt > 1:
                again[one.entry] = one.n
            last = max(last, one.sending)
            if one.more is not None:
                self._hear(datetime.fromisoformat(one.more).timestamp())
        recheck = set(self._doubtful)
        for fact in additions.facts(after, detail=self._detail):
            last = max(last, fact.seq)
            self._add_fact(fact, recheck)
        for entry, newest in again.items():
            self.running.settle(entry, newest)
        for each in additions.some(list(recheck)):
            self._note_attempt(each)
        for verdict in additions.verdicts(after, detail=self._detail):
            last = max(last, verdict.seq)
            self.add_verdict(verdict)
        self._seq = last
        self._look_for_waiting(ledger)

    def _look_for_waiting(self, ledger: Ledger) -> None:
        found = ledger.additions.oldest_waiting(self._waits_from)
        self._waits_from = self._seq + 1 if found is None else found[0]
        sent_at = None if found is None else found[1]
        self.waiting_since = None if sent_at is None else datetime.fromisoformat(sent_at)

    def _hear(self, at: float) -> None:
        if self.heard is None or at > self.heard:
            self.heard = at

    def _add_fact(self, fact: AddedFact, recheck: set[int]) -> None:
        at = fact.at / 1e6
        if not fact.job:
            self._hear(at)
            self.story.add(fact.kind, at, fact.data)
            if fact.kind == Kind.SEGMENT:
                self.pace.begin(at)
            elif fact.kind == Kind.SEARCH:
                self.running.silence(self.story.silent)
            self.story.last = at
            return
        if fact.entry is None:
            return
        if fact.job >= len(self.entries.statuses):
            self.entries.make_room(max(fact.job, fact.entry))
        reused = self.entries.reused_jobs
        if reused[fact.job] or (fact.root is not None and reused[fact.root]):
            return  # of another run, long ago
        self._hear(at)
        self.story.last = at
        if fact.kind == Kind.STARTED:
            self.entries.set_sent(fact.entry)
            worker = fact.worker or fact.host
            self.running.start(fact.job, Execution(fact.entry, at, worker, fact.pid))
        elif fact.kind in _ENDS:
            self._add_end(fact, at)
        elif fact.kind == Kind.HANDED_ON:
            self._hand_on(fact, at)
        elif fact.kind == Kind.GONE:
            self._lose(fact, at)
        elif fact.kind == Kind.SEND_RESULT:
            recheck.add(fact.job)

    def _add_end(self, fact: AddedFact, at: float) -> None:
        # Any: JSON of five fields of a receipt, each of another type.
        said: list[Any] = json.loads(fact.data) if fact.data else [None] * 5
        state, runtime, by_evidence, by_result, worker = said
        last = self.running.end(fact.job, at, worker)
        if state == "crashed":
            name = worker or ("a worker" if last is None or not last.worker else last.worker)
            self.story.die(Death(at, name, fact.entry or 0, None))
        if not self._detail or not fact.own:
            return
        if isinstance(runtime, int | float) and state != "crashed":
            place = self.entries.task_of[fact.entry or 0]
            self.entries.tasks[place][1].runtimes.add(float(runtime))
        cost = amount(by_evidence)
        cost = amount(by_result) if cost is None else cost
        self.has_costs = self.has_costs or cost is not None
        if cost is None and state not in NEVER_STARTED_STATES and self._lines is not None:
            cost = self._lines.costs.get(fact.entry or 0)
        self._pay(fact.job, exact(cost))

    def _pay(self, job: int, cost: Decimal) -> None:
        """Have an attempt cost so much, by its last report."""
        if cost or job in self._costs:
            self.cost += cost - self._costs.get(job, Decimal(0))
            self._costs[job] = cost

    def _hand_on(self, fact: AddedFact, at: float) -> None:
        said = json.loads(fact.data) if fact.data else {}
        due = said.get("next_at")
        when = None if due is None else datetime.fromisoformat(due).timestamp()
        retries = fact.how == "retry" and bool(fact.own)
        self.running.hand_on(fact.job, fact.entry or 0, at, when, retries=retries)
        if (cost := amount(said.get("cost"))) is not None:
            self.has_costs = True
            self.cost += exact(cost)

    def _lose(self, fact: AddedFact, at: float) -> None:
        one = self.running.lose(fact.job)
        said = json.loads(fact.data) if fact.data else {}
        worker = fact.worker or (None if one is None else one.worker)
        if worker is not None:
            self.story.die(Death(at, worker, fact.entry or 0, said.get("exit_code")))

    def add_verdict(self, one: AddedVerdict) -> None:
        """Count a verdict, each once, in their order."""
        at, entries = one.at / 1e6, self.entries
        self._hear(at)
        if one.entry >= len(entries.statuses):
            entries.make_room(one.entry)
        was_done = entries.is_done(one.entry)
        entries.set_status(one.entry, one.status)
        if entries.is_done(one.entry):
            self.running.settle(one.entry)
        is_bad = one.status is not None and outcome_of(one.status) in BAD
        if one.is_reused:
            entries.reused += entries.is_done(one.entry) - was_done
        elif entries.is_done(one.entry) and not was_done:
            self.pace.add(at, is_bad=is_bad)
        if not self._detail:
            return
        self.accepted.discard(one.entry)
        if is_bad and one.verdict is not None:
            verdict = Verdict.model_validate_json(one.verdict)
            receipt = None if one.receipt is None else receipt_of(one.receipt)
            raw = None if self._lines is None else self._lines.raw(one.entry)
            verdict, receipt = without_secrets(raw, verdict, receipt)
            self.causes.add(one.entry, at, verdict, receipt)
            if self._accepts(raw, verdict, receipt):
                self.accepted.add(one.entry)
            elif self.story.stretches and at < self.story.stretches[-1][0]:
                self.had_failed = True
        else:
            self.causes.discard(one.entry)

    def _accepts(self, raw: bytes | None, verdict: Verdict, receipt: Receipt | None) -> bool:
        """Return whether a failure is accepted today; one of no known line is not."""
        if raw is None or self.info is None or ACCEPTANCE.now.is_empty:
            return False
        accepts = ACCEPTANCE.now.of_manifest(self.info.manifest)
        found = accepts and accepts(Entry.model_validate_json(raw), verdict, receipt)
        return found is not None and not found.is_over

    # What is read

    def outcomes(self) -> Counter[Outcome]:
        """Count the entries by outcome; accepted failures are among the skipped, as in reports."""
        found = self.entries.outcomes()
        for entry in self.accepted:
            if (status := self.entries.status(entry)) is not None:
                found[outcome_of(status)] -= 1
                found["skipped"] += 1
        return +found

    def entries_of(self, cause: int) -> list[str]:
        """Return the ids of a cause's entries, by its number, in their order."""
        numbers = list(self.causes.entries_of(cause))
        names = self._opened().additions.names(numbers)
        return [names[one] for one in numbers if one in names]

    def under_way(self) -> list[tuple[int, Execution]]:
        """Return the jobs that run, of entries without a verdict, the longest first."""
        going = [
            (job, one)
            for job, one in self.running.open.items()
            if not one.is_lost and not self.entries.is_done(one.entry)
        ]
        return sorted(going, key=lambda pair: pair[1].since)

    def state(self) -> RunState:
        """Return whether the run goes on, and by whom."""
        noted = self._state.get("status")
        if noted == "finished" or noted == "stopped" or noted == "detached":
            return noted
        with suppress(OSError):
            if not is_held(RunFiles(self.path).lock):
                return "left"
        return self.story.held or "running"

    def foreseen(self, now: float, *, held: int = 0) -> Foreseen | None:
        """Return the end as it is foreseen; None where nothing waits that the rate is about, or an
        operator has nothing sent.

        ``held``: entries that silent workers have, of which it says nothing either.
        """
        left = self.entries.total - self.entries.done
        apart = len({one.entry for _, one in self.under_way()})
        return None if self.story.held or left <= apart + held else self.pace.foresee(now, left)

    def known_before(self) -> frozenset[Key] | None:
        """Return the causes of the run of this manifest before this one; None: there was none."""
        if not self._has_looked_before and self.info is not None:
            self._has_looked_before = True
            with suppress(ManifestToolError, OSError, ValueError):
                self._before = causes_before(self.path, self.info)
        return self._before

    def parse_errors(self) -> AbstractContextManager[None]:
        """Raise LedgerError where what was read cannot be shown."""
        return self._opened().parse_errors()

    @property
    def now(self) -> float:
        return self._clock().timestamp()

    @property
    def budget(self) -> float | None:
        given = self.story.limits.get("budget", self._state.get("budget"))
        return float(given) if isinstance(given, int | float) else None

    @property
    def over_budget(self) -> str:
        return str(self._state.get(OVER_BUDGET) or "")

    def names(self, entries: Iterable[int]) -> Mapping[int, str]:
        return self._opened().additions.names(sorted(set(entries)))


def without_secrets(
    raw: bytes | None, verdict: Verdict, receipt: Receipt | None
) -> tuple[Verdict, Receipt | None]:
    """Return a verdict and its receipt as they are shown; ``raw``: the entry's line."""
    secrets: shown.Secrets = ()
    if raw is not None:
        entry = Entry.model_validate_json(raw)
        secrets = shown.secrets_of(entry, receipt)
    shown_receipt = None if receipt is None else shown.shown_receipt(receipt, secrets)
    return shown.shown_verdict(verdict, secrets), shown_receipt


def causes_before(path: Path, info: RunInfo) -> frozenset[Key] | None:
    """Return the causes of the last run of this manifest before this one; None: there is none."""
    runs = find_runs(path.parent, info.manifest, info.sha256)
    earlier = runs[: runs.index(path)] if path in runs else []
    if not earlier:
        return None
    found: set[Key] = set()
    causes = LiveCauses()
    with Ledger.open(earlier[-1]) as ledger, ledger.parse_errors():
        for number, one in enumerate(ledger.additions.verdicts(0, detail=True)):
            if number < _PREVIOUS and one.verdict is not None:
                verdict = Verdict.model_validate_json(one.verdict)
                receipt = None if one.receipt is None else receipt_of(one.receipt)
                causes.add(number, 0.0, *without_secrets(None, verdict, receipt))
    found.update(lasting(one.key) for one in causes.largest_first(0.0))
    return frozenset(found)
