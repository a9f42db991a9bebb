"""Judge what became of an entry by its facts: the rules of the product, from top to bottom.

Pure: that time is over, a process is gone or a search found nothing are facts with a place in the
order. Letters are those of the rules: A which attempt counts, B what was never sent, C and D which
reports are believed (``verdict.belief``), E what is expected, F what is inferred for want of an
end, G what a later end does not change, H what is sent again, I what may have run, J the tasks that
a job starts (``verdict.tree``), L other work.

An inferred finding is of its milestone: it takes doubts, starts and deaths as of then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal

from pytest_manifest.schema import Entry, Receipt, VerdictStatus, exact, facts, statuses
from pytest_manifest.schema.facts import Job, Recalled, SendResult, TakenUp, Withheld, value
from pytest_manifest.schema.receipts import actual_cost
from pytest_manifest.schema.run_facts import JobFacts, RunFacts
from pytest_manifest.verdict import belief, problems
from pytest_manifest.verdict.case import (
    Case,
    Own,
    case_of,
    deaths_survived,
    denies,
    judge_ends,
    keeps_all_starts,
    may_be_unreported,
    problem_of,
    reports_starts,
    restarted_too_often,
)
from pytest_manifest.verdict.inference import infer, run_over
from pytest_manifest.verdict.messages import Duplicated, EndedAsExpected
from pytest_manifest.verdict.problems import NeverSent, OtherWork
from pytest_manifest.verdict.reasons import UNEXPLAINED, Finding, Problem
from pytest_manifest.verdict.tree import ChildUnsent as NotSent
from pytest_manifest.verdict.tree import Descendant, Tree, by_part, is_ignored, with_tree

REPEATS: Final = 3
"""How often a message that got lost on its way is published again."""

Again = Literal["", "attempt", "message"]
"""What may be sent again: another attempt, the very message, which no worker can have had, or
nothing."""


@value
class Rules:
    """Rules of today. ``other_work``: what of the entry's work its manifest has otherwise now."""

    other_work: str = ""


@value
class Attempt:
    """An attempt of an entry, and the tasks that it started."""

    own: JobFacts
    tree: Tree | None = None


@value
class Judgement:
    """The judgement of an entry.

    ``is_final``: nothing more is awaited of it; where not, a verdict that was reported stands.
    ``end``: the ``seq`` of what decided. ``receipt``: the one that counts, with what the starts
    know. What follows is worked out when it is asked for.
    """

    finding: Finding
    attempt: int | None = None
    is_final: bool = False
    receipt: Receipt | None = None
    end: int | None = None
    _attempts: Sequence[Attempt] = field(default=(), repr=False, compare=False)
    _jobs: Sequence[tuple[Case, Own]] = field(default=(), repr=False, compare=False)

    @property
    def status(self) -> VerdictStatus:
        return self.finding.status

    @property
    def code(self) -> str:
        return self.finding.reason.code

    @property
    def own(self) -> Finding:
        """Return the finding on its last attempt itself, whatever became of the tasks that it
        started."""
        return self._jobs[-1][1].finding if self._jobs else self.finding

    @property
    def task_id(self) -> str:
        """Return the task id of the last attempt; "" where there is none."""
        return self._jobs[-1][0].facts.job.task_id if self._jobs else ""

    @property
    def is_as_before(self) -> bool:
        """Return whether it was decided before the entry was taken up again last."""
        taken_up = self._jobs[-1][0].facts.each(TakenUp) if self._jobs else ()
        return bool(taken_up) and self.end is not None and self.end < taken_up[-1].seq

    @property
    def deadly(self) -> Sequence[str]:
        """Return the attempts, by task id, that are given up and start again and again all the
        same, as their processes die of them."""
        return [
            case.facts.job.task_id
            for case, own in self._jobs
            if own.finding.status in statuses.DEATHS | statuses.OWN and restarted_too_often(case)
        ]

    @property
    def executions(self) -> int:
        """Return how often its last attempt has begun, in one turn."""
        counted = belief.executions(self._jobs[-1][0].traces) if self._jobs else 0
        return counted or (0 if self.receipt is None else self.receipt.executions)

    @property
    def may_have_run(self) -> bool:
        """Return whether the code of its last attempt's task may have been entered (I)."""
        return bool(self._jobs) and _may_have_run(*self._jobs[-1])

    @property
    def again(self) -> Again:
        """Return what may be sent again (H): the very message, else another attempt."""
        if self._may_be_sent and _is_message_lost(*self._jobs[-1]):
            return "message"
        return "attempt" if self.may_repeat else ""

    @property
    def may_repeat(self) -> bool:
        """Return whether another attempt may be sent (H)."""
        if not self._may_be_sent:
            return False
        return _may_repeat(*self._jobs[-1], self.finding, self._attempts)

    @property
    def _may_be_sent(self) -> bool:
        if not self.is_final or not self._jobs or isinstance(self.finding.reason, OtherWork):
            return False
        case = self._jobs[-1][0]
        return not case.is_descendant and case.facts.job.reused is None

    @property
    def goes_on(self) -> bool:
        """Return whether a task that the last attempt has started may run yet, past its time."""
        tree = self._attempts[-1].tree if self._attempts else None
        return tree is not None and tree.may_go_on

    @property
    def cost(self) -> Decimal:
        """Return what all attempts have cost, in the entries' unit (I)."""
        return sum(self.costs.values(), Decimal(0))

    @property
    def costs(self) -> Mapping[str, Decimal]:
        """Return what each attempt has cost, by its task id."""
        return {case.facts.job.task_id: _cost(case, own)[0] for case, own in self._jobs}

    @property
    def reports_cost(self) -> bool:
        """Return whether a report of an attempt says what it has cost."""
        return any(_cost(case, own)[1] for case, own in self._jobs)


def judge(
    entry: Entry, attempts: Sequence[Attempt], run: RunFacts, rules: Rules | None = None
) -> Judgement:
    """Return what became of an entry, by its attempts in their order and the run's facts.

    Of its run alone: ``run`` is that which has sent the attempts, or has reused them.
    """
    if not attempts:
        return Judgement(Finding("pending", UNEXPLAINED))
    newest = attempts[-1]
    earlier, deaths = _earlier(entry, attempts, run)
    case = case_of(entry, newest.own, run, deaths=deaths)
    own = _judge_job(case)
    whole = _with_tree(case, own, newest.tree)
    if rules is not None and rules.other_work and case.was_sent:
        whole = Finding("unknown", OtherWork(changed=rules.other_work))  # L
    is_final = whole.status != "pending" and not isinstance(whole.reason, NeverSent)
    number, jobs = newest.own.job.number, [*earlier, (case, own)]
    return Judgement(whole, number, is_final, own.receipt, own.end, attempts, jobs)


def judge_descendant(entry: Entry, root: Job, job: JobFacts, run: RunFacts) -> Descendant:
    """Return a descendant of an attempt of this entry, judged: it is to succeed, once, in whatever
    time it takes (J1)."""
    case = case_of(entry, job, run, root=root)
    own, traces, spawn = _judge_job(case), case.traces, job.job.spawn
    found = own.finding
    was_sent = not job.each(facts.ChildUnsent)
    if not was_sent and not traces.starts and found.status in statuses.RESENDABLE - statuses.DEATHS:
        found = Finding(statuses.NOT_SENT, NotSent())
    if spawn is not None and isinstance(found.reason, Duplicated):
        found = replace(found, reason=found.reason.having(delay=spawn.delay))
    receipts = [one.receipt for one in (*traces.ends, *traces.stored)]
    counts = [one.children for one in receipts if one.children is not None]
    between = traces.between
    return Descendant(
        job.job,
        found,
        has_end=own.receipt is not None or bool(belief.counted_ends(job, traces, case.base)),
        children=max(counts, default=0),
        is_silent=not counts and any(one.state in statuses.OF_ITS_PROCESS for one in receipts),
        has_parts=any(one.how == "canvas" for one in traces.handed_on.values()),
        was_split=between is not None and between.how == "canvas" and found.status != "passed",
    )


# One job


def _judge_job(case: Case) -> Own:
    """Judge a job, and give a reason for want of a receipt what it takes of the entry."""
    own = _found_of(case)
    found, entry = own.finding, case.entry
    reason = found.reason
    if isinstance(reason, Problem):
        reason = reason.of(entry, found.status)
    elif isinstance(reason, EndedAsExpected):
        reason = reason.having(why=reason.why.hidden(entry))
    else:
        return own
    return replace(own, finding=replace(found, reason=reason))


def _found_of(case: Case) -> Own:
    """Judge a job: by its end, where one counts, else by what was found in want of it."""
    if not case.facts.is_plain:
        fixed = _poisoned(case) or _skipped(case)
        if fixed is not None:
            return fixed  # G
    ends = belief.counted_ends(case.facts, case.traces, case.base)
    if ends:
        last = ends[-1]
        if last.receipt.state == "revoked" and all(one.receipt.state == "revoked" for one in ends):
            before = infer(case.until(last.seq))
            if before is not None and before.finding.status in statuses.GIVEN_UP:
                return before  # G: its time was over before
        return judge_ends(case, ends)
    held = _held_back(case)
    if held is not None:
        return Own(held)
    inferred = infer(case)
    if inferred is not None and inferred.finding.status != "pending":
        return inferred
    restarted = restarted_too_often(case)
    if restarted is not None:
        return Own(restarted)
    return inferred or Own(Finding("pending", _PLACES[case.place]()))


# A: which attempt counts


def _earlier(
    entry: Entry, attempts: Sequence[Attempt], run: RunFacts
) -> tuple[list[tuple[Case, Own]], int]:
    """Judge the attempts before the last; return these, and how many deaths they have caused.

    Each is judged by what was known of it when the next was planned.
    """
    deaths, jobs = 0, list[tuple[Case, Own]]()
    for one, following in pairwise(attempts):
        case, seq = case_of(entry, one.own, run, deaths=deaths), following.own.job.seq
        then = case_of(entry, one.own.until(seq), run.until(seq), deaths=deaths)
        own = _judge_job(then)
        deaths += deaths_survived(then.traces) + (own.finding.status in statuses.DEATHS)
        jobs.append((case, own))
    return jobs, deaths


# B: what was never sent


def _held_back(case: Case) -> Finding | None:
    """Find an attempt that is not sent, or that the broker has refused (B1, B2)."""
    for one in reversed(case.facts.facts):
        if isinstance(one, Withheld):
            return _withheld(one)
        if isinstance(one, SendResult) and one.outcome == "refused":
            code = problems.NotMade if one.is_unmade else problems.Refused
            return Finding("rejected", code(error=one.error))
        if isinstance(one, facts.Sending | TakenUp):
            return None
    return None


def _withheld(one: Withheld) -> Finding:
    status: VerdictStatus = "unknown_task" if one.code == "unknown_task" else "skipped"
    if one.code == "operator":
        status = "cancelled"
    names = {"names": one.names} if one.names else {}
    return Finding(status, problem_of(WITHHELD[one.code], {**one.fields, **names}))


WITHHELD: Final[Mapping[facts.WithheldCode, type[Problem]]] = {
    "unknown_task": problems.UnknownTask,
    "after": problems.WaitsFor,
    "canary": problems.CanaryFailed,
    "max_failed": problems.TooManyFailed,
    "budget": problems.BudgetReached,
    "operator": problems.Cancelled,
}


_PLACES: Final[Mapping[facts.Place | None, type[Problem]]] = {
    None: Problem,
    "unknown": Problem,
    "queue": problems.InQueue,
    "worker": problems.WithWorker,
    "unacked": problems.WithDeadWorker,
}


# G: what no later report changes


def _poisoned(case: Case) -> Own | None:
    """Return the finding on a job that was recalled as it kills workers, by what was known then."""
    for one in case.facts.each(Recalled):
        if one.why == "poison" and case.is_current(one):
            then = _judge_job(case.until(one.seq - 1))
            return then if then.finding.status == "quarantined" else None
    return None


def _skipped(case: Case) -> Own | None:
    held = _held_back(case)
    if held is None:
        return None
    is_for_good = held.status == "skipped" or isinstance(held.reason, problems.Cancelled)
    return Own(held) if is_for_good else None


# H: what is sent again


def _may_repeat(case: Case, own: Own, whole: Finding, attempts: Sequence[Attempt]) -> bool:
    entry, tree = case.entry, attempts[-1].tree
    if whole.status not in statuses.RESENDABLE or not entry.idempotent:
        return False
    if not case.was_sent or (whole.status == "unknown" and own.receipt is not None):
        return False  # it ran; only whether it met its expectations is unknown
    if sum(one.own.job.why == "retry" for one in attempts) >= entry.retries:
        return False
    return tree is None or not tree.may_go_on


def _is_message_lost(case: Case, own: Own) -> bool:
    """Return whether the very message may be published again: no worker can have had it.

    The broker failed while it was published, and it is nowhere since.
    """
    results, traces = case.facts.each(SendResult), case.traces
    found = [one.seq for one in case.facts.each(facts.Nowhere) if one.seq == own.end]
    if not results or results[-1].outcome != "uncertain" or traces.starts or not found:
        return False
    if traces.unreadable or own.receipt is not None:
        return False
    if sum(one.outcome == "uncertain" for one in results) > REPEATS:
        return False
    then = case.run.until(found[0])
    if belief.is_emptied(then):
        return False
    return (then.has_stream and reports_starts(then)) or case.entry.idempotent


# I: what may have run, and what that has cost


def _may_have_run(case: Case, own: Own) -> bool:
    """Return whether the code of the job's task may have been entered."""
    traces, job = case.traces, case.facts.job
    if job.reused is not None or not case.was_sent:
        return False
    if traces.starts:
        return True
    recalls = case.facts.each(Recalled)
    if any(one.stage == "withdrawn" and case.is_current(one) for one in recalls):
        return False  # it was out, and everybody who could have had it was asked
    if own.finding.status == "forged":  # its writer need not have been the job's worker
        return True
    return may_be_unreported(case)


def _cost(case: Case, own: Own) -> tuple[Decimal, bool]:
    """Return what an attempt has cost, in the entries' unit, and whether a report says so.

    Every execution counts, also a failed one, a second one, and a try that the task has asked to be
    repeated: as it reports or else as the entry estimates. What may have run counts its estimate;
    what certainly never ran, and what was reused, nothing.
    """
    if case.facts.job.reused is not None:
        return Decimal(0), False
    traces, is_forged = case.traces, own.finding.status == "forged"
    reported: dict[str | None, float | None] = {}
    witnessed = keeps_all_starts(case.run)
    for end in () if is_forged else belief.believed_ends(case.facts, traces):
        cost = actual_cost(end.receipt)
        if cost is not None or not denies(end.receipt, witnessed=witnessed):
            reported[end.execution] = cost
    if None in reported and len(reported) > 1:
        del reported[None]  # the result store's copy of one of the others
    handed = {} if is_forged else traces.handed_on
    tries = {name: one.cost for name, one in handed.items() if one.cost is not None}
    costs = [cost for cost in reported.values() if cost is not None]
    costs += [cost for name, cost in tries.items() if reported.get(name) is None]
    known = {*reported, *tries}
    again = len(traces.starts) - len({one.execution for one in traces.starts})
    silent = len({one.execution for one in traces.starts} - known) + again - (None in reported)
    untold = sum(cost is None and name not in tries for name, cost in reported.items())
    unreported = untold + max(silent, 0)
    if not (reported or traces.starts or tries):
        unreported = int(_may_have_run(case, own))
    return sum(map(exact, costs), unreported * exact(case.entry.cost)), bool(costs)


# J: the tasks that it started


def _with_tree(case: Case, own: Own, tree: Tree | None) -> Finding:
    """Return the finding on an attempt and on its descendants, whatever became of them."""
    found, entry = own.finding, case.entry
    if found.status == "pending" or (tree is not None and is_ignored(entry)):
        return found
    if tree is not None and not tree.is_complete():
        since = tree.missing_since()
        overs = [one for one in case.run.overs if since is not None and one.seq > since]
        for over in overs:
            at_end = None if over.why == "ended" else run_over(case.until(over.seq), over)
            if at_end is not None and at_end.status != "pending":
                reason = at_end.reason.of(entry, at_end.status)
                return Finding(at_end.status, reason)
        return Finding("pending", problems.AwaitsTree(tasks=tree.open_ones))
    receipt = own.receipt
    if found.status != "passed":
        by_others = receipt is None or receipt.source != "worker"
        is_split = any(one.how == "canvas" for one in case.traces.handed_on.values())
        return by_part(entry, found, tree) if tree and by_others and is_split else found
    asked = "descendants" in entry.expect.model_fields_set
    if not (asked or tree or (receipt is not None and receipt.children)):
        return found
    return with_tree(entry, found, tree or Tree(case.facts.job.task_id), receipt)
