"""Hold a job to be judged, with what held when it was sent; hold its ends against expectations (E).

And count the deaths of processes that it has caused (F2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema import facts as all_facts
from pytest_manifest.schema.facts import Job, Recalled, Seen, Sending, SendResult, TakenUp, value
from pytest_manifest.schema.run_facts import JobFacts, RunFacts
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.schema.stream_records import FILLABLE, HANDED_ON_AFTER_DEATH
from pytest_manifest.verdict import belief, messages, problems
from pytest_manifest.verdict.belief import End, Identity, Traces, traces_of, turns
from pytest_manifest.verdict.expectations import held_against, missing_fields
from pytest_manifest.verdict.reasons import UNEXPLAINED, Finding, Problem


@value
class Case:
    """A job to judge: an attempt, or a descendant of one.

    ``entry`` has the id and the limit that held; ``deaths`` are those in earlier attempts; ``base``
    is when it was sent, or taken up again, last: what was inferred before is void.
    """

    entry: Entry
    facts: JobFacts
    run: RunFacts
    identity: Identity
    code: str | None
    base: int
    deaths: int
    _traces: Traces | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def traces(self) -> Traces:
        """Return what was reported of it."""
        found = self._traces
        if found is None:
            found = traces_of(self.facts, self.identity)
            object.__setattr__(self, "_traces", found)
        return found

    def until(self, seq: int) -> Case:
        """Return it as it was then, by what was known of it and of its run."""
        facts, run = self.facts.until(seq), self.run.until(seq)
        if facts is self.facts and run is self.run:
            return self
        return replace(self, facts=facts, run=run)

    def is_current(self, fact: all_facts.Fact) -> bool:
        """Return whether a finding counts: it is void once the job is sent, or taken up, again."""
        return fact.seq > self.base

    @property
    def place(self) -> all_facts.Place | None:
        """Return where a search has seen it last; None: nowhere yet."""
        found = [one.place for one in self.facts.each(Seen) if self.is_current(one)]
        return found[-1] if found else None

    @property
    def is_descendant(self) -> bool:
        return self.facts.job.spawn is not None

    @property
    def was_sent(self) -> bool:
        """Return whether the broker may have had its message, or an earlier run has sent it."""
        if self.is_descendant or self.facts.job.reused is not None:
            return True
        outcomes = {one.number: "published" for one in self.facts.each(Sending)}
        outcomes |= {one.number: one.outcome for one in self.facts.each(SendResult)}
        return any(one in ("published", "uncertain") for one in outcomes.values())

    @property
    def sent_at(self) -> datetime | None:
        spawn = self.facts.job.spawn
        if spawn is not None:
            return spawn.spawned_at
        sent = self.facts.each(Sending)
        return sent[-1].sent_at if sent else None


@value
class Own:
    """The finding on a job itself, and what it goes by."""

    finding: Finding
    receipt: Receipt | None = None
    end: int | None = None


def case_of(
    entry: Entry, known: JobFacts, run: RunFacts, *, deaths: int = 0, root: Job | None = None
) -> Case:
    job = known.job
    sendings = known.each(Sending)
    since = sendings[-1].seq if sendings else job.seq
    if job.spawn is not None and known.facts:  # what is reported of it may come before its record
        since = min(since, known.facts[0].seq - 1)
    base = since
    if taken_up := known.each(TakenUp):
        base = max([since, *(one.seq for one in taken_up if one.why == "resume")])
    of = job if root is None else root
    origin = of.reused  # K: identity and doubts of the run that sent it; code and rules of this one
    if origin is not None:
        since, run = of.seq, run.of_reused
        identity = Identity(origin.run, origin.entry, origin.attempt, job.task_id)
    else:
        identity = Identity(run.run, of.entry, of.number, job.task_id)
    if job.spawn is not None:
        # The timeout is as by default: a limit of the task's own comes before it.
        task, timeout = job.spawn.task, entry.timeout
        entry = Entry.model_construct(  # type: ignore[call-arg]  # it has no id of its own
            set(), task=task, timeout=timeout
        )
    code: str | None = None
    limit: float | None = None
    for one in run.tasks:
        if one.task == entry.task and one.seq <= since:
            code, limit = one.code or code, one.limit or limit
    code = code if job.spawn is None else None
    return Case(_limited(entry, limit), known, run, identity, code, base, deaths)


def _limited(entry: Entry, limit: float | None) -> Entry:
    """Return the entry with the time that its job may take; a task's limit is not the entry's."""
    if limit is None:
        return entry
    timeout = min(limit, entry.timeout) if "timeout" in entry.model_fields_set else limit
    if timeout == entry.timeout:
        return entry
    held = entry.model_copy(update={"timeout": timeout})
    held.model_fields_set.discard("timeout")
    return held


def keeps_all_starts(run: RunFacts) -> bool:
    """Return whether every worker reports starts and every report was kept.

    A job without a start has never begun then.
    """
    return (run.is_private or run.first_start is not None) and reports_starts(run)


def may_be_unreported(case: Case) -> bool:
    """Return whether a worker may have begun a job of which no start is known."""
    witnessed = keeps_all_starts(case.run)
    receipts = [one.receipt for one in (*case.traces.ends, *case.traces.hearsay)]
    if not receipts:
        return not witnessed
    return not all(denies(one, witnessed=witnessed) for one in receipts)


def reports_starts(run: RunFacts) -> bool:
    """Return whether no start of the run can have been unreported, or lost."""
    if any(one.what == "emptied" for one in run.store):
        return False
    if any(one.why == "gave_up" for one in run.overs):
        return False
    if any(one.what == "other_broker" for one in run.places):
        return False
    if any(one.what in ("stock", "unserved", "nobody") for one in run.nodes):
        return False
    reporting = {one.name for one in run.nodes if one.what == "reports"}
    return not any(one.what == "silent" and one.name not in reporting for one in run.nodes)


def denies(receipt: Receipt, *, witnessed: bool) -> bool:
    """Return whether a receipt shows that its job ended before its task's code was entered.

    ``witnessed``: every worker that may have had the job reports starts, and all reports were kept,
    so that a job without a known start never started.
    """
    if receipt.state not in NEVER_STARTED_STATES or receipt.has_trace:
        return False
    # A stock worker does not report what it, or one before it, did before the end.
    return witnessed or (receipt.source == "worker" and not receipt.redelivered)


def problem_of(code: type[Problem], fields: Mapping[str, object]) -> Problem:
    """Return a reason with the figures that a fact has; of another version it has no reason."""
    try:
        return code(**fields)  # type: ignore[arg-type]  # it takes no others, see Reason
    except TypeError:
        return UNEXPLAINED


# E: what its end is held against


def judge_ends(case: Case, ends: Sequence[End]) -> Own:
    """Judge by the ends that count, of which the last one decides."""
    end, traces = ends[-1], case.traces
    lie = belief.contradiction(case.entry, case.facts, traces, ends, case.run)  # C
    if lie is not None:
        return Own(Finding("forged", lie), end.receipt, end.seq)
    said = belief.without_unproven_claims(end, traces.starts)
    if said.reused or said.judged:  # which no worker says
        said = said.model_copy(update={"reused": None, "judged": None})
    whole = complete_receipt(said, traces)
    found = _held_against(case, said, whole, end.seq)
    if found.status == "crashed" and not case.is_descendant:
        found = too_deadly(case, found, end.seq)
    return Own(found, whole, end.seq)


def _held_against(case: Case, said: Receipt, whole: Receipt, seq: int) -> Finding:
    entry = case.entry
    recalls = case.facts.until(seq).each(Recalled) if whole.state == "revoked" else ()
    if recalls and entry.expect.state == "revoked":
        return Finding("revoked", problems.RecalledByRun())  # E1
    if any(one.why == "operator" for one in recalls):
        if case.traces.running is not None:
            return Finding("cancelled", problems.CancelledWhileRunning())
        if case.traces.starts:
            return Finding("cancelled", problems.CancelledBetweenTries())
        return Finding("cancelled", problems.CancelledBeforeStart())
    if any(one.why == "max_failed" for one in recalls):
        return Finding("revoked", problems.RecalledByLimit())
    is_sent, code = case.sent_at is not None, case.code
    missing = () if case.is_descendant else missing_fields(entry, said, sent=is_sent, code=code)
    if case.is_descendant and whole.runtime is not None:
        entry = entry.model_copy(update={"timeout": max(entry.timeout, whole.runtime)})
    found = held_against(entry, whole, code=code, missing=missing)
    reused = case.facts.job.reused
    if reused is not None:
        other = reused.entry if reused.entry != case.facts.job.entry else ""
        reason = messages.Reused(run=reused.run, entry=other, why=found.reason)
        return replace(found, reason=reason)
    return found


def complete_receipt(receipt: Receipt, traces: Traces) -> Receipt:
    """Add what the starts know: the executions, and what a killed process could not report (D4).

    Executions are counted per turn: neither Celery's own retry of a task, nor another task that a
    task handed its job on to, is a second execution.
    """
    counted, starts = belief.executions(traces), traces.starts
    if not starts:
        return receipt if counted < 2 else receipt.model_copy(update={"executions": counted})
    last = starts[-1]
    started_at, wait = receipt.started_at or last.started_at, receipt.wait
    if wait is None and started_at is not None and receipt.sent_at is not None:
        wait = max(0.0, (started_at - receipt.sent_at).total_seconds())
    more = {
        "executions": counted,
        "redelivered": receipt.redelivered or any(start.redelivered for start in starts),
        "started_at": started_at,
        "wait": wait,
        "worker": receipt.worker or last.worker,
        "host": receipt.host or last.host,
        "pid": receipt.pid or last.pid,
    }
    changed: dict[str, object] = {
        name: value for name, value in more.items() if getattr(receipt, name) != value
    }
    if not changed:
        return receipt
    if receipt.signature is not None:
        filled = [name for name in FILLABLE if name in changed]
        own = {"filled": [*receipt.signature.filled, *filled]}
        changed["signature"] = receipt.signature.model_copy(update=own)
    return receipt.model_copy(update=changed)


# F2: what kills its workers


def _is_too_often(run: RunFacts, deaths: int) -> bool:
    """Return whether what has caused so many deaths is quarantined, as the run has begun last."""
    return any(deaths >= one.kills for one in run.segments[-1:])


def restarted_too_often(case: Case) -> Finding | None:
    """Find a job that starts again and again, as its processes die of it."""
    traces = case.traces
    again = max(turns(traces.starts) - 1, 0) + deaths_survived(traces)
    if not again:
        return None
    ends = max((one.seq for one in traces.ends), default=0)
    last = max(ends, *(one.seq for one in (*traces.starts, *traces.handed_on.values())))
    pids = tuple(one.pid for one in traces.starts if one.pid is not None)
    is_deadly = _is_too_often(case.run.until(last), case.deaths + again)
    return _quarantined(case.deaths + again, pids) if is_deadly else None


def too_deadly(case: Case, crashed: Finding, seq: int) -> Finding:
    """Return the finding on a job that has crashed: it is quarantined where that was too often."""
    deaths = case.deaths + deaths_survived(case.traces, but=seq) + 1
    return _quarantined(deaths) if _is_too_often(case.run.until(seq), deaths) else crashed


def deaths_survived(traces: Traces, *, but: int = 0) -> int:
    """Count the deaths after which a job went on; ``but``: of which end is not asked."""
    handed = traces.handed_on
    killed = {
        one.execution
        for one in traces.ends
        if one.seq != but and one.receipt.state == "crashed" and one.execution in handed
    }
    by_worker = {name for name, one in handed.items() if one.how == HANDED_ON_AFTER_DEATH}
    return len(killed | by_worker)


def _quarantined(deaths: int, pids: Sequence[int] = ()) -> Finding:
    return Finding("quarantined", problems.KillsWorkers(deaths=deaths, pids=tuple(pids[:deaths])))
