"""List the reasons of verdicts on jobs without a receipt that counts.

A reason is a code, in its class's name, with fields and a phrase; see ``verdict.reasons``.
"""

from __future__ import annotations

from typing import Final

from pytest_manifest.schema import State, VerdictStatus
from pytest_manifest.schema.statuses import RESEND
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.text import plural
from pytest_manifest.verdict.reasons import Problem, Reason, worded

# Never sent


class Unsent(Problem):
    """Base of what holds a job back, or was found as it was sent."""

    rule = "B"


class WaitsFor(Unsent):
    """A wait for ``names``, the nearest first, of which the last did not pass; ``end``: that one's,
    "" where it is not part of the run; ``left_out``: how many in the middle."""

    names: tuple[str, ...]
    end: str = ""
    left_out: int = 0

    def phrase(self) -> str:
        told = [f"it waits for {self.names[0]!r}"]
        told += [f"which waits for {name!r}" for name in self.names[1:]]
        if self.left_out:
            told[2] = told[2].replace("waits", f"waits (through {self.left_out} others)", 1)
        end = "[which did not pass ({end})]" if self.end else _NOT_SELECTED
        return f"{', '.join(told)}, {worded(end, vars(self))}"


_NOT_SELECTED: Final = "which was not selected and has not passed in this run"


class CanaryFailed(Unsent):
    names: tuple[str, ...]
    more: int = 0
    says = "the canary failed: {names}[ and {more} more] did not pass"


class TooManyFailed(Unsent):
    failed: int
    entries: int
    limit: str
    says = (
        "{failed} of {entries} entries have failed, more than --manifest-max-failed={limit} allows"
    )


class BudgetReached(Unsent):
    """A budget that is used up; ``estimate``: that of the next entry in words, "": all is spent."""

    spent: str
    budget: str
    estimate: str = ""
    says = (
        "the run has cost {spent} of its budget of {budget}[, and the next entry, with {estimate}, "
        "would go beyond it]; --manifest-resume --manifest-budget=MORE sends the rest"
    )


class Cancelled(Unsent):
    says = "an operator cancelled it before it was sent"


class LookedAt(Unsent):
    says = "the run is only looked at"


class UnknownTask(Unsent):
    names: tuple[str, ...] = ()
    says = "[did you mean {names: or }?]"


class Refused(Unsent):
    error: str
    says = "{error}"


class NotMade(Unsent):
    error: str
    says = "its own apply_async {error}"
    what = "No message was made, so the task was not run"
    then = "correct the entry or that method, or leave manifest_apply_async out"


class NeverTaken(Unsent):
    limit: float
    says = "its deadline of {limit:g} s is over, and the broker took none"


class NeverSent(Unsent):
    says = "it was never sent: the run ended before its turn"
    what = "The job was not run"
    then = "send it with --manifest-resume"


# Time is over, or the run

_HOLDER: Final = (
    "[; {holder} had taken it and answers no more: --manifest-resume --manifest-repair helps]"
)


class DeadlineOver(Problem):
    """A deadline; ``whose``: "its", "the" of a descendant; ``holder``: who has it and is silent."""

    limit: float
    whose: str = "its"
    holder: str = ""
    says = "{whose} deadline of {limit:g} s from dispatch is over" + _HOLDER


class TimeoutOver(Problem):
    limit: float
    holder: str = ""
    says = "it ran longer than its timeout of {limit:g} s and its worker sent no receipt" + _HOLDER


class RunOver(Problem):
    """Base of what ends a run before its work. ``unread``: why there was no last look; ``unsent``:
    the job had not been sent; ``holder``: who has it and does not answer."""

    unread: str = ""
    unsent: bool = False
    holder: str = ""

    def phrase(self) -> str:
        unsent = "; it had not been sent yet" if self.unsent else ""
        return worded(f"{self.says}[, and {{unread}}]{unsent}{_HOLDER}", vars(self))


class RunDeadline(RunOver):
    limit: float
    says = "the run's deadline of {limit:g} s is over"

    def parts(self, status: VerdictStatus) -> tuple[str, str]:
        what, then = super().parts(status)
        if status == "timed_out" and not (self.unread or self.unsent or self.holder):
            what = worded(_OUT_OF_TIME, vars(self))
        return what, then


_OUT_OF_TIME: Final = (
    "The job did not finish before the run's deadline ({limit:g} s, --manifest-deadline)"
)


class RunDeadlineBeforeStart(RunOver):
    limit: float
    says = (
        "the run's deadline of {limit:g} s is over; it was taken back before a worker had reported "
        "its start"
    )


class RunDeadlineBetweenTries(RunOver):
    limit: float
    says = "the run's deadline of {limit:g} s is over; it was taken back between two tries of it"


class RunDeadlineUnanswered(RunOver):
    limit: float
    says = "the run's deadline of {limit:g} s is over, and no worker has answered: is one started?"


class RunDeadlineUnasked(RunOver):
    limit: float
    says = "the run's deadline of {limit:g} s is over, and no worker can be asked on this broker"


class RunNobody(RunOver):
    """No worker answers; where ``others`` do, they take from none of the ``queues``."""

    limit: float
    others: str = ""
    queues: str = ""
    says = (
        "no worker[ of queues {queues}] has answered for {limit:time}, and no job runs"
        "[ (of other queues: {others})]"
    )


class RunUndecodable(RunOver):
    """Workers answer in other formats than that of the messages."""

    workers: int
    answered: str
    format: str
    says = (
        "{workers:#worker} answered in {answered}, and none in {format}, the format of the app's "
        "messages"
    )


class RunUnanswered(RunOver):
    """Messages that left the queue, to workers that answer nothing."""

    gone: int
    workers: int
    says = (
        "{gone:#message} of this run left the queue, {workers:#worker} that the broker knows of "
        "answered nothing, and no worker reports a job"
    )


class RunGaveUp(RunOver):
    error: str
    says = "the run gave up: {error}"


class StoppedBeforeStart(Problem):
    says = "the run was stopped before a worker had reported its start"


class StoppedUnproven(StoppedBeforeStart):
    then = RESEND  # a worker may have begun it and not said so


class StoppedBetweenTries(Problem):
    says = "the run was stopped after a try of it, while it waited for the next one"
    then = RESEND


class CancelledBeforeStart(Problem):
    says = "an operator cancelled it before a worker had reported its start"


class CancelledBetweenTries(Problem):
    says = "an operator cancelled it after a try of it, while it waited for the next one"


class CancelledWhileRunning(Problem):
    rule = "E"
    says = "an operator had it ended while it ran: it may be half done"


class RecalledByRun(Problem):
    rule = "E"
    says = "the run itself took it back"


class RecalledByLimit(Problem):
    rule = "E"
    says = "the run took it back, as more had failed than --manifest-max-failed allows"


# Missing


class PastLifetime(Problem):
    """The lifetime of receipts, which is over; ``where``: in which store, if that is said."""

    where: str = ""
    says = "a receipt may have been, and be past its lifetime[ in {where}]"


class StoreEmptied(Problem):
    says = "the broker or the result store was emptied, or lost what it held, while it was out"


class StoreEmptiedEarlier(Problem):
    says = (
        "the result store was emptied, or lost what it held, in this run, maybe what it held of "
        "this"
    )


class OtherBroker(Problem):
    broker: str
    says = "this run's jobs were sent to another broker, {broker}"


class Elsewhere(Problem):
    broker: str
    says = "it was sent to another broker than the run's, {broker}, where it cannot be looked for"


_STORES: Final = (
    "[; results were looked for in {store}][, while the app's own settings keep results in {own}]"
)


class StartUnreported(Problem):
    """An unreported start; ``store``: where results were looked for; ``own``: that of the app."""

    store: str = ""
    own: str = ""
    says = (
        "no queue and no worker has it, and its start is not reported: it may have raised Ignore, "
        "stored a state of its own, been handed on, or exited, or its task ignores results "
        "(ignore_result; before Celery 5.6, or 5.7 where it was retried)" + _STORES
    )


class NeverBegun(Problem):
    """A job not begun; ``store``: where results were looked for; ``own``: that of the app."""

    store: str = ""
    own: str = ""
    says = "no worker has begun it" + _STORES


class LostInFlight(Problem):
    worker: str | None
    says = "started on {worker}, which has it no more"
    what = "The job was lost in flight"
    then = f"look at that worker's log and for a lack of memory, then {RESEND}"


class LostBetween(LostInFlight):
    """A job that was handed on, of which nothing was reported since."""

    how: str

    def phrase(self) -> str:
        return f"started on {self.worker}, {_WAITED_FOR.get(self.how, _HANDED_ON)}"


_WAITED_FOR: Final = {
    "retry": "where it asked to be tried again, and its next try is nowhere",
    HANDED_ON_AFTER_DEATH: "where its process died and it was sent again, and is nowhere",
    "task": "where it was handed on to another task, which is nowhere",
    "canvas": "where it was handed on to other tasks, and nothing was heard of them",
}
_HANDED_ON: Final = "where it was handed on, and is nowhere"
"""Also where the word for it is that of a secret, and hidden."""
_UNCONFIRMED: Final = (
    "; the result store has an end of it that its worker has not reported, and that a task can "
    "store before it ends"
)


class ProcessGone(Problem):
    """A process that is gone; ``worker``: or its host."""

    worker: str | None
    pid: int | None
    says = "process {pid} of {worker}, which had begun it, is gone"


class ProcessEnded(Problem):
    """The end of the process, as its worker's parent has seen it."""

    worker: str | None
    exit_code: int | None
    says = "worker {worker} ended (exit code {exit_code}) while it was running it"


class ProcessGoneUnconfirmed(ProcessGone):
    says = ProcessGone.says + _UNCONFIRMED


class ProcessEndedUnconfirmed(ProcessEnded):
    says = ProcessEnded.says + _UNCONFIRMED


class Unreadable(Problem):
    why: str
    says = "something is stored for it that cannot be read here: {why}"


class Left(Problem):
    """A job that a resumed run leaves, ``because`` of its rules; ``why``: what is known of it."""

    because: str
    why: Problem

    @property
    def cause(self) -> Reason:
        return self.why

    def phrase(self) -> str:
        return f"{self.because}; {self.why.phrase()}"


class KillsWorkers(Problem):
    deaths: int
    pids: tuple[int, ...] = ()
    says = "{deaths} processes died of it[, with the pids {pids}]"


# Under way


class InQueue(Problem):
    says = "it waits in its queue"


class WithWorker(Problem):
    says = "a worker has it"


class WithDeadWorker(Problem):
    says = "a worker that is gone had taken it"


class NotAsked(Problem):
    says = "the stack was not asked"


class Unawaited(Problem):
    """Base of what goes on once its own run does; ``why``: what was known of it then."""

    why: Problem

    def phrase(self) -> str:
        return self.why.phrase()


class StackEnded(Unawaited):
    what = "There is no receipt, and the private stack ended before the job had"
    then = "go on with --manifest-resume"


class ShardUnfinished(Unawaited):
    what = "There is no receipt in the run that this one was merged of"
    then = "go on with that one, then merge again"


class AwaitsTree(Problem):
    """Tasks that it started, and that have not ended."""

    rule = "J"
    tasks: int

    def phrase(self) -> str:
        tasks = f"{plural(self.tasks, 'task')} that it started"
        return f"it has ended itself, and {tasks} {'has' if self.tasks == 1 else 'have'} not"


# What is not known of its tree


class UnknownTree(Problem):
    """Base of what is missing of the tasks that a job started."""

    rule = "J"


class NoTreeReports(UnknownTree):
    says = "its worker sends no receipts"


class NoTreeReportsYet(UnknownTree):
    """A tree of which its worker's version reports nothing."""

    says = "its worker reports nothing of them"


class ChildrenMissing(UnknownTree):
    children: int
    known: int
    says = "it started {children:,}, and {known:,} of them were reported"


class GrandchildrenMissing(UnknownTree):
    descendants: int
    says = "{descendants:#descendant} started more tasks than were reported"


class GrandchildrenUnknown(UnknownTree):
    descendants: int
    says = "it is not known what {descendants:#descendant} started"


# What cannot be judged


class NotJudged(Problem):
    error: str
    says = "its receipt could not be judged ({error})"


class NoReceipt(Problem):
    says = "it is recorded as passed, and no receipt says so"


class OtherWork(Problem):
    changed: str
    rule = "L"
    says = (
        "{changed} since, so what the run says is of other work; a new run with --manifest-reuse "
        "does it"
    )


class NotExported(Problem):
    file: str
    says = "{file} has no receipt of it"


class LimitNotExported(Problem):
    file: str
    says = (
        "{file} does not say what time limit its task had, and the entry has no timeout to go by; "
        "give it one, or judge the run by its ledger"
    )


class ReuseNotSigned(Problem):
    run: str
    by: str
    says = (
        "its receipt is of run {run}, and it is not signed that run {by} has reused it; judge the "
        "run by its ledger"
    )


class ExpectationUnread(Problem):
    """An entry of which it cannot be read what it expects."""

    why: Problem
    error: str

    def parts(self, status: VerdictStatus) -> tuple[str, str]:  # noqa: ARG002 - whichever it is
        known = self.why.phrase()
        return f"{known} (what it expects cannot be read: {self.error})", ""


# Not to be believed


class Unbelieved(Problem):
    """Base of what shows that a report is not of the job, or cannot be true."""

    rule = "C"


class Unsigned(Unbelieved):
    fault: str
    says = "{fault}"


class OfAnother(Unbelieved):
    """The receipt is of another run, entry, attempt, task id or task: ``of``."""

    of_what: str
    found: str
    true: str
    says = "it is of another {of_what}: {found}, not {true}"


class OtherArguments(Unbelieved):
    says = "the job ran with other arguments than this entry has now"


class ChangedResult(Unbelieved):
    result: str
    says = (
        "its result {result} is not the one that the worker made its digest of, so it was changed "
        "on its way"
    )


class OfAnotherMessage(Unbelieved):
    found: str
    true: str
    says = "it is of a message sent at {found}, where this one was sent at {true}"


class BeforeSending(Unbelieved):
    did: str
    moment: str
    sent: str
    host: str = ""
    says = (
        "it says that the job {did} at {moment}, before it was sent at {sent}: it is old, or the "
        "clock[ on {host}] is wrong"
    )


class EndsDiffer(Unbelieved):
    one: str
    other: str
    says = "two receipts of one execution differ: {one} and {other}"


class EndWithoutStart(Unbelieved):
    says = "it reports the end of an execution that no worker has begun"


class EndAfterStart(Unbelieved):
    state: State
    says = "it says that the job was {state!r}, which a worker had begun"


class StartsDiffer(Unbelieved):
    says = "two records of the start of one of its executions differ"
