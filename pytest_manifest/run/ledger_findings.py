"""Find out why a run does not move, by its ledger, lock and log alone."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.statistics import distribution
from pytest_manifest.ledger import AttemptRow, Ledger, utc_now
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.processes import holder_of, is_held, is_stopped
from pytest_manifest.run.inflight import PendingAttempt, PendingAttempts
from pytest_manifest.run.send_queue import Budget, KeyLimits
from pytest_manifest.run.strategy import Tracking
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.diagnosis import (
    DiagnosisFinding,
    DiagnosisHold,
    DiagnosisUnseen,
    FindingCode,
    HoldReason,
)
from pytest_manifest.schema.run_facts import Segment, SetBack, Steered, Throttled
from pytest_manifest.schema.shown import shown_text
from pytest_manifest.schema.statuses import OPEN
from pytest_manifest.schema.summary import SummarySpread
from pytest_manifest.text import duration, listed, plural, short
from pytest_manifest.verdict.judging import Costs

SHOWN: Final = 3
NAMED: Final = 20
"""Entries of a finding that a document names."""
SKEW: Final = 2.0
"""Seconds by which clocks must differ at least to be a finding."""
STARTS: Final = 1000
"""Newest starts by which the workers' clocks are compared."""
LAST_BYTES: Final = 4000


@dataclass
class Notes:
    """Collect what is found, what cannot be seen, and what was looked at."""

    findings: list[DiagnosisFinding] = field(default_factory=list)
    unseen: list[DiagnosisUnseen] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)

    def find(
        self,
        code: FindingCode,
        sentence: str,
        evidence: Iterable[str],
        remedy: str,
        *,
        jobs: Iterable[PendingAttempt] = (),
        stacks: str | None = None,
    ) -> None:
        """Add a finding; ``jobs``: those that it is about."""
        names = list(dict.fromkeys(job.entry.id for job in jobs))
        self.findings.append(
            DiagnosisFinding(
                code=code,
                sentence=shown_text(sentence),
                evidence=[shown_text(one) for one in evidence],
                remedy=remedy,
                entries=names[:NAMED],
                count=len(names),
                stacks=stacks,
            )
        )

    def cannot_see(self, what: str, why: str) -> None:
        """Add what cannot be seen, and why."""
        self.unseen.append(DiagnosisUnseen(what=what, why=shown_text(why)))


@dataclass
class Case:
    """A run as its ledger has it at this moment."""

    ledger: Ledger
    manifest: Manifest
    files: RunFiles
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.info, self.status = self.ledger.info.read(), self.ledger.info.status
        self.pending = self.awaited()
        undecided = self.ledger.attempts.all(undecided=True)
        self.unsent: Sequence[AttemptRow] = [
            row for row in undecided if row.state == "planned" and row.entry in self.manifest
        ]

    @property
    def is_followed(self) -> bool:
        """Return whether a pytest is at work on it."""
        return is_held(self.files.lock)

    def awaited(self) -> PendingAttempts:
        """Return what is in flight by the ledger now: sent, and judged by nobody."""
        pending = PendingAttempts()
        Tracking(pending, self.ledger, self.manifest, self.info).under_way()
        told = self.ledger.verdicts.statuses()
        names = {one.entry.id for one in pending.attempts()}
        pending.drop_all_but({name for name in names if self.is_open(told.get(name, "pending"))})
        return pending

    def is_open(self, status: VerdictStatus) -> bool:
        """Return whether an end of the entry may yet be recorded; the pytest that follows the run
        looks for none of what it has called unknown."""
        return status == "pending" or (status in OPEN and not self.is_followed)

    @cached_property
    def spreads(self) -> Mapping[str, SummarySpread | None]:
        """Map each task of which a job has ended -> the spread of their runtimes (s)."""
        tasks = dict(zip(self.manifest.ids, self.manifest.tasks, strict=True))
        found = defaultdict[str, list[float]](list)
        for entry, runtime in self.ledger.queries.runtimes():
            if entry in tasks:
                found[tasks[entry]].append(runtime)
        return {task: distribution(runtimes) for task, runtimes in found.items()}

    def resume(self, option: str = "--manifest-resume") -> str:
        """Return the command by which the run is gone on with."""
        return shlex.join(self.ledger.command(*option.split()))


def look_at_ledger(case: Case) -> None:
    """Note what the ledger alone shows of a run that is not over."""
    _follower(case, last_write(case.files))
    _clocks(case)


# The controller


def last_write(files: RunFiles) -> datetime | None:
    log = files.ledger.with_name(f"{files.ledger.name}-wal")
    moments = []
    for path in (files.ledger, log):
        with suppress(OSError):
            moments.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(moments), timezone.utc) if moments else None


def last_word(log: Path) -> str | None:
    """Return the newest record of a session's log, where a line feed is written as two letters."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), None)
        return None if last is None else shown_text(" ".join(last.replace(r"\n", " ").split()))
    return None


def _follower(case: Case, written: datetime | None) -> None:
    """Look at the pytest that follows the run, or should."""
    ago = "" if written is None else f"; its ledger was written last {_ago(written)}"
    where = f"{case.files.lock.name}: no process holds it{ago}"
    if case.is_followed:
        pid = holder_of(case.files.lock)
        if pid is not None and is_stopped(pid):
            case.notes.find(
                "follower_stopped",
                f"the pytest that follows the run (process {pid}) is stopped, so nothing is sent, "
                "read or judged",
                [f"process {pid}: its state is T, as after Ctrl-Z{ago}"],
                f"kill -CONT {pid}, or fg in its shell",
            )
    elif case.status == "running":
        case.notes.find(
            "not_followed",
            "no pytest follows the run any more, and it has not come to its end: that was killed",
            [where],
            case.resume(),
        )
    elif case.status == "stopped" or case.unsent:
        case.notes.find(
            "not_followed",
            f"the run was {case.status}, and nothing more is sent",
            [where, f"ledger: {plural(len(case.unsent), 'entry')} not sent"],
            case.resume(),
        )


def note_nothing_sent(case: Case, holds: Sequence[DiagnosisHold], *, moves: bool) -> None:
    """Note that nothing is in flight and that what may be sent is not."""
    if not (case.is_followed and case.unsent):
        return
    if paused := paused_by(case):
        case.notes.find(
            "paused",
            f"nothing more is sent, {_paused(paused)}",
            [f"ledger: command {paused.command}, at {paused.at.isoformat(timespec='seconds')}"],
            f"manifest ctl {case.info.run} resume",
        )
    for one in throttles(case):
        if one.why != "rate":
            case.notes.find(
                "throttled",
                f"nothing more is sent for now: {_slowed(one)}",
                [f"ledger: throttled at {one.at.isoformat(timespec='seconds')}, and not over"],
                "mend what the project's manifest_health complains of"
                if one.why == "health"
                else "add workers of the queue, or raise --manifest-queue-depth",
            )
    ready = [one for one in holds if one.why in ("ready", "window")]
    awaited = case.pending.task_ids()
    if ready and not awaited and not moves and not case.notes.findings:
        number = sum(one.entries for one in ready)
        case.notes.find(
            "nothing_sent",
            f"{plural(number, 'entry')} may be sent, nothing is in flight, and nothing is sent",
            [f"{case.files.log.name}: {last_word(case.files.log) or 'nothing'}"],
            f"look into {case.files.log}; end that pytest by Ctrl-C, then {case.resume()}",
        )


def holds_of(case: Case) -> Iterator[DiagnosisHold]:
    """Yield what holds back what is not sent; each entry counts once."""
    rows = {row.entry: row for row in case.unsent}
    if not rows:
        return
    segment = _limits(case)
    passed = {name for name, kind in case.ledger.verdicts.statuses().items() if kind == "passed"}
    waiting = dict[str, Sequence[str]]()
    for _, entry in case.manifest.dependents(rows):
        if missing := [name for name in entry.after if name not in passed]:
            waiting[entry.id] = missing
    if waiting:
        yield _after(waiting)
    left = [name for name in rows if name not in waiting]
    awaited = len(case.pending.task_ids())
    if segment is not None and segment.canary and awaited and _is_canary(case, segment):
        yield _hold("canary", len(left), f"until the canary of {segment.canary} has passed")
        return
    if segment is not None and segment.limits and left:
        held, words = _by_keys(case, segment, left)
        if held:
            yield _hold("key_limit", len(held), words)
        left = [name for name in left if name not in held]
    slowed, paused = throttles(case), paused_by(case)
    if left and paused is not None:
        yield _hold("paused", len(left), _paused(paused))
    elif left and slowed:
        yield _hold("throttled", len(left), "; ".join(map(_slowed, slowed)))
    elif left and segment is not None and (words := _by_budget(case, segment, left[0])):
        yield _hold("budget", len(left), words)
    elif left and segment is not None and segment.window and awaited >= segment.window * 0.9:
        words = f"as {awaited} are in flight, of at most {segment.window} (--manifest-window)"
        yield _hold("window", len(left), words)
    elif left:
        yield _hold("ready", len(left), "the next to be sent")


def _hold(why: HoldReason, number: int, words: str) -> DiagnosisHold:
    return DiagnosisHold(why=why, entries=number, sentence=f"{plural(number, 'entry')}: {words}")


def _limits(case: Case) -> Segment | None:
    """Return the settings of this stretch of the run, with what operators have set since."""
    segment = None
    for one in case.ledger.facts.of_run(case.info.run):
        if isinstance(one, Segment):
            segment = one
        elif isinstance(one, Steered) and one.action == "set" and segment is not None:
            window, budget = one.data.get("window"), one.data.get("budget")
            keys = {name.removeprefix("limit."): value for name, value in one.data.items()}
            limits = {name: keys.get(name, most) for name, most in segment.limits.items()}
            segment = replace(
                segment,
                window=window if isinstance(window, int) else segment.window,
                budget=budget if isinstance(budget, float | int) else segment.budget,
                limits={name: int(str(most)) for name, most in limits.items()},
            )
    return segment


def paused_by(case: Case) -> Steered | None:
    """Return the command by which this stretch of the run sends nothing; None where it does."""
    found = None
    for one in case.ledger.facts.of_run(case.info.run):
        if isinstance(one, Segment) or (isinstance(one, Steered) and one.action == "resume"):
            found = None
        elif isinstance(one, Steered) and one.action in ("pause", "drain"):
            found = one
    return found


def _paused(one: Steered) -> str:
    why = f" ({one.reason})" if one.reason else ""
    return f"as {one.by} asked for {one.action}{why} {_ago(one.at)}"


def throttles(case: Case) -> list[Throttled]:
    """Return what slows the sending now."""
    last = {(one.why, one.key): one for one in case.ledger.facts.of_kind(Throttled)}
    return [one for one in last.values() if not one.is_over]


def _slowed(one: Throttled) -> str:
    of = f" of {one.key}" if one.key else ""
    ago = duration(max(0.0, (utc_now() - one.at).total_seconds()))
    return f"held back by {one.why}{of} for {ago}: {one.detail}"


def _after(waiting: Mapping[str, Sequence[str]]) -> DiagnosisHold:
    counts = defaultdict[str, int](int)
    for names in waiting.values():
        for name in names:
            counts[name] += 1
    # What is itself held back is not what is waited for in the end.
    first = sorted((n for n in counts if n not in waiting), key=lambda n: -counts[n]) or [*counts]
    return _hold(
        "after", len(waiting), f"until {listed(list(map(short, first)), SHOWN)} has passed"
    )


def _is_canary(case: Case, segment: Segment) -> bool:
    """Return whether no more than the canary was sent in this stretch of the run."""
    sent = (row for row in case.ledger.attempts.newest() if row.sent_at is not None)
    number = sum(1 for row in sent if row.sent_at is not None and row.sent_at >= segment.at)
    return number <= segment.canary


def _by_keys(case: Case, segment: Segment, names: Sequence[str]) -> tuple[set[str], str]:
    """Return which of these wait for a limit of their keys, and which limits those are."""
    limits, held = KeyLimits(segment.limits), set[str]()
    for job in case.pending.by_task_id.values():
        limits.reserve(job.root, job.entry if job.child is None else case.manifest[job.entry.id])
    full = dict[str, None]()
    for entry in case.manifest.some(names):
        for pair in limits.pairs_of(entry):
            if not limits.has_room(pair):
                held.add(entry.id)
                full[f"{pair[0]}={pair[1]} (at most {segment.limits[pair[0]]})"] = None
    return held, f"as {listed(list(full), SHOWN)} has no room (--manifest-key-limit)"


def _by_budget(case: Case, segment: Segment, name: str) -> str:
    """Say why the entry is beyond the budget as long as what is in flight may cost its estimate."""
    given, pending = segment.budget, case.pending.by_task_id
    if given is None:
        return ""
    budget = Budget(given, dict(Costs(case.ledger, case.manifest).by_attempt(pending)))
    for job in pending.values():
        budget.reserve(job.root, case.manifest[job.entry.id])
    if budget.allows(case.manifest[name]):
        return ""
    return f"until it is known what those in flight cost (--manifest-budget={given:g})"


# Clocks


def _clocks(case: Case) -> None:
    """Compare the workers' clocks with the controller's, by what began before it was sent."""
    ahead, behind = defaultdict[str, float](float), defaultdict[str, float](float)
    for worker, started, read, sent in case.ledger.events.moments_of_starts(STARTS):
        if started is not None:
            ahead[worker] = max(ahead[worker], (started - read).total_seconds())
            if sent is not None:
                behind[worker] = max(behind[worker], (sent - started).total_seconds())
    if not ahead:
        case.notes.cannot_see("the workers' clocks", "no worker has reported a start yet")
    for found, words, seen in (
        (ahead, "ahead of", "after the report of that was read"),
        (behind, "behind", "before it was sent"),
    ):
        for worker in sorted(found):
            if (by := found[worker]) > SKEW:
                case.notes.find(
                    "clock",
                    f"the clock of worker {worker} is at least {duration(by)} {words} the "
                    "controller's",
                    [f"ledger: by its clock a job began there {duration(by)} {seen}"],
                    f"set the clock of {worker.partition('@')[2] or worker} by NTP (chronyc "
                    "tracking); until then its waiting times and deadlines are wrong by that",
                )
    for one in case.ledger.facts.of_kind(SetBack):
        case.notes.find(
            "clock",
            f"the clock of the controller's machine was set back by {duration(one.by)}",
            [f"ledger: noticed at {one.at.isoformat(timespec='seconds')}"],
            "have its clock slewed by NTP, not set, while a batch is going on",
        )


# Jobs that run


def is_long(job: PendingAttempt, spread: SummarySpread | None) -> str:
    """Say in a phrase why a job runs too long; "" where it does not."""
    ran = running_for(job)
    if ran is None:
        return ""
    if spread is not None and spread.count >= 3 and ran > max(2 * spread.p95, spread.p95 + 5.0):
        return f"the p95 of the {spread.count} of its task that ended is {duration(spread.p95)}"
    return f"its timeout is {duration(job.entry.timeout)}" if ran > job.entry.timeout else ""


def running_for(job: PendingAttempt) -> float | None:
    """Return the seconds for which a job has run by the controller's clock; None: it does not."""
    return time.monotonic() - job.started if job.is_running and job.started is not None else None


def entries_to_come(case: Case, most: int = 10_000) -> Iterator[Entry]:
    """Yield the entries in flight, and the first of those that are not sent yet."""
    yield from case.pending.entries()
    yield from case.manifest.some(row.entry for row in islice(case.unsent, most))


def _ago(moment: datetime) -> str:
    return f"{duration(max(0.0, (utc_now() - moment).total_seconds()))} ago"
