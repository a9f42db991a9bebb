"""Make the reasons of verdicts on jobs whose end was reported, and on the trees of such jobs.

Each function takes what the reason is about, without secrets, and returns code and fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from typing_extensions import Self

from pytest_manifest.schema import Entry, Mismatch, Receipt, State, VerdictStatus
from pytest_manifest.schema.statuses import RESEND, STATUSES
from pytest_manifest.text import middle, plural, printable, seconds, short
from pytest_manifest.verdict.reasons import Problem, Reason, in_brackets, worded

_ERROR_LIMIT = 160
RESULT_KEY = "celery-task-meta-"
"""How the key of a result in a store begins; the task id follows."""
REFUSALS = frozenset({"OutOfMemoryError", "ReadOnlyError", "ResponseError"})
"""Errors by which a Redis refuses a command, which their text names."""
SCHEMA_PATH = "expect.schema"
"""The path of a mismatch that is a fault of the schema itself."""


class Worded(Reason):
    """Base of reasons with a template of what happened, and one of what to do ``then``."""

    says: ClassVar[str] = ""
    then: ClassVar[str] = ""

    def words(self) -> dict[str, object]:
        """Return what the templates take: the fields, and what follows of them."""
        return {**vars(self)}

    def parts(self, status: VerdictStatus) -> tuple[str, str]:  # noqa: ARG002 - whichever it is
        words = self.words()
        return worded(self.says, words), worded(self.then, words)


class Reported(Worded):
    """Base of the reasons of jobs whose end was reported, by ``worker``, or its host."""

    worker: str = ""
    pid: int | None = None

    @classmethod
    def of(cls, receipt: Receipt, **fields: object) -> Self:
        """Return it with where the job ran, and how it ended where that is a field."""
        if "state" in cls._defaults:
            fields["state"] = receipt.state
        return cls(worker=receipt.worker or receipt.host or "", pid=receipt.pid, **fields)

    def words(self) -> dict[str, object]:
        pid = "" if self.pid is None else f" (pid {self.pid})"
        return {**vars(self), "where": f" on {self.worker}{pid}" if self.worker else ""}


def _error(receipt: Receipt) -> str:
    if receipt.error is None:
        return ""
    message = " ".join(printable(receipt.error.message).split())
    kind = printable(receipt.error.type)
    return middle(f"{kind}: {message}" if message else kind, _ERROR_LIMIT)


class InState(Reported):
    """Base of the reasons in which the ``state`` of the job's end is named."""

    state: State

    def words(self) -> dict[str, object]:
        did = "succeeded" if self.state == "succeeded" else f"ended as {self.state!r}"
        return {**super().words(), "did": did}


# As it was expected


class AsExpected(Reported):
    """All expectations hold; ``descendants``: how many tasks of its tree ``did`` so, too."""

    runtime: float | None = None
    descendants: int = 0
    did: str = ""

    # Without a template, as it is made of each entry that passes.
    def sentence(self, status: VerdictStatus) -> str:  # noqa: ARG002 - it passed
        pid = "" if self.pid is None else f" (pid {self.pid})"
        where = f" on {printable(self.worker)}{pid}" if self.worker else ""
        took = "" if self.runtime is None else f" in {seconds(self.runtime)}"
        tree = _with_tree(self.descendants, self.did)
        return f"The task succeeded{where}{took}, as expected{tree}."


class EndedSoAsExpected(InState):
    """All expectations hold, one of which is of another end than success."""

    error: str = ""
    descendants: int = 0
    did: str = ""
    says = "The task ended as {state!r}[ with {error}]{where}, as expected{tree}."

    def words(self) -> dict[str, object]:
        return {**super().words(), "tree": _with_tree(self.descendants, self.did)}


class EndedAsExpected(Reason):
    """A job, without a receipt, that ended as the entry expects; ``why``: how that is known."""

    ended: VerdictStatus
    why: Problem
    descendants: int = 0
    did: str = ""

    def parts(self, status: VerdictStatus) -> tuple[str, str]:  # noqa: ARG002 - it passed
        known = f"The job ended as {self.ended!r}{in_brackets(self.why.phrase())}, as expected"
        return f"{known}{_with_tree(self.descendants, self.did)}.", ""


def _with_tree(descendants: int, did: str) -> str:
    if not descendants:
        return ""
    its = "descendant" if descendants == 1 else f"{descendants:,} descendants"
    return f"; its {its} {did}"


def passed(receipt: Receipt) -> Reason:
    """Return the reason that all expectations hold."""
    if receipt.state == "succeeded":
        return AsExpected.of(receipt, runtime=receipt.runtime)
    return EndedSoAsExpected.of(receipt, error=_error(receipt))


# Not as it was expected, though in the right state


class Unmet(InState):
    """An expectation that fails, and how many ``more`` do; ``beyond``: there are still others."""

    path: str
    expected: str
    actual: str
    more: int = 0
    beyond: bool = False
    says = "The task {did}{where}, but {path} is {actual} where {expected} was expected{rest}"
    then = "find out whether the task or the entry's 'expect' is wrong, and correct it"

    def words(self) -> dict[str, object]:
        rest = f" (and {'at least ' * self.beyond}{plural(self.more, 'more difference')})"
        return {**super().words(), "rest": rest if self.more else ""}


class SchemaFlaw(InState):
    flaw: str
    says = (
        "The task ended as {state!r}{where}, but 'expect.schema' cannot be applied to its result: "
        "it {flaw}"
    )
    then = "correct the schema in the plan"


def unmet(receipt: Receipt, found: Sequence[Mismatch], *, is_all: bool) -> Reason:
    """Return which expectation fails although the state is right.

    ``is_all``: whether there are no more differences than those found.
    """
    first, more, beyond = found[0], len(found) - 1, not is_all
    if first.path == SCHEMA_PATH:
        return SchemaFlaw.of(receipt, flaw=first.actual)
    given = {"path": first.path, "expected": first.expected, "actual": first.actual}
    return Unmet.of(receipt, **given, more=more, beyond=beyond)


_UNCHECKED: Final = "The task ended as {state!r}{where}, but {names} cannot be checked: "


class ResultTooLarge(InState):
    names: str
    size: str
    says = f"{_UNCHECKED}its result of {{size}} bytes is too large for a receipt"
    then = "return less, or raise MANIFEST_RESULT_LIMIT (bytes) for the workers"


class ResultNotJson(InState):
    names: str
    says = f"{_UNCHECKED}its result is not JSON"
    then = "return plain values, or drop the expectation"


class TimesNotReported(InState):
    names: str
    says = f"{_UNCHECKED}the receipt has no such time, as the worker does not report any"
    then = (
        "instrument the worker (celery worker -I pytest_manifest.worker), or drop the expectation"
    )


def unverifiable(receipt: Receipt, names: Sequence[str]) -> Reason:
    """Return which expectations cannot be checked."""
    told = " and ".join(names)
    if not {"result", "schema"}.isdisjoint(names):
        if (size := receipt.evidence.get("result_omitted")) is not None:
            return ResultTooLarge.of(receipt, names=told, size=str(size))
        if "result_not_json" in receipt.evidence:
            return ResultNotJson.of(receipt, names=told)
    return TimesNotReported.of(receipt, names=told)


class Incomplete(InState):
    names: str
    says = (
        "The task ended as {state!r}{where}, but its receipt leaves out {names}, by which it could "
        "be known whether that is true"
    )
    then = (
        "bring the worker's pytest-celery-manifest up to date, or find out what else writes to "
        "this run's result store, then run it again"
    )


def incomplete(receipt: Receipt, names: Sequence[str]) -> Reason:
    """Return which fields the receipt lacks."""
    return Incomplete.of(receipt, names=", ".join(names))


class Duplicated(InState):
    """Too many starts; ``delay``: seconds until its ETA, for which a worker held it."""

    executions: int
    allowed: int
    redelivered: bool = False
    delay: float = 0.0
    says = (
        "The job was started {executions:#time} where {allowed} {are} allowed{why}, and ended as "
        "{state!r}{where}"
    )
    then = (
        "look for what it did more than once, and at acks_late and the broker's visibility "
        "timeout, which decide about redelivery{pool}"
    )

    def words(self) -> dict[str, object]:
        again = {
            "are": "is" if self.allowed == 1 else "are",
            "why": " (the broker delivered it again)" if self.redelivered else "",
            "pool": "" if self.redelivered else _BY_A_POOL,
        }
        return {**super().words(), **again}

    def sentence(self, status: VerdictStatus) -> str:
        due = f" It had a countdown or an ETA of {seconds(self.delay)}"
        held = f"{due}, for which a worker held its message." if self.delay else ""
        return super().sentence(status) + held


_BY_A_POOL: Final = " (a pool, too, gives a job again whose process died as it began)"


def duplicated(entry: Entry, receipt: Receipt) -> Reason:
    """Return that the job ran more often than allowed."""
    executions, again = receipt.executions, receipt.redelivered
    allowed = entry.expect.executions
    return Duplicated.of(receipt, executions=executions, allowed=allowed, redelivered=again)


class OtherCode(Reported):
    task: str
    host: str = ""
    says = (
        "The worker[ on {host}] ran other code of {task!r} than is here, so its end says nothing "
        "of this code"
    )
    then = "deploy, or restart the worker, and run it again"


def other_code(receipt: Receipt) -> Reason:
    """Return that the worker ran other code than is here."""
    return OtherCode(task=receipt.task, host=receipt.host or "")


def is_of_store(receipt: Receipt) -> bool:
    """Return whether a stored failure is only what the store raised at the job's own end.

    Celery takes that for the task's failure, and stores it once the store takes something again.
    """
    error = receipt.error
    if receipt.source != "backend" or error is None:
        return False
    own_key = f"{RESULT_KEY}{receipt.task_id}"
    name = error.type.rpartition(".")[2]
    if name == "BackendStoreError":
        return error.message.startswith("failed to store result")
    return name in REFUSALS and own_key in error.message


class RefusedByStore(Reported):
    error: str
    says = (
        "The result store refused what the job ended with{where}, so its own end is not known "
        "({error})"
    )
    then = "see to the store, and start workers with -I pytest_manifest.worker"


def refused_by_store(receipt: Receipt) -> Reason:
    """Return that it is not known how a job ended, as the store did not take it."""
    return RefusedByStore.of(receipt, error=_error(receipt))


# In another state than expected


class Otherwise(Reported):
    """Base of ends in another state than ``wanted``, "" for success; ``error``: what was raised."""

    wanted: str = ""
    error: str = ""

    def words(self) -> dict[str, object]:
        why = in_brackets(self.error)
        return {**super().words(), "why": why}

    def parts(self, status: VerdictStatus) -> tuple[str, str]:
        what, then = super().parts(status)
        return f"{what}{f', where {self.wanted!r} was expected' if self.wanted else ''}", then


class SucceededInstead(Reported):
    wanted: str
    error: str = ""
    says = (
        "The task succeeded{where}, but this entry expects it to end as {wanted!r}[ with {error}]"
    )
    then = (
        "if success is right now, correct 'expect' in the plan, else find out why the task no "
        "longer fails"
    )


class Raised(Otherwise):
    error: str = "an error that was not reported"
    says = "The task raised {error}{where}"
    then = "start from the worker's traceback"


class Died(Otherwise):
    """The death of a process that its worker, which has seen the end, reports."""

    says = "The process that ran the task{where} died before the task ended{why}"
    then = f"look at the worker's log and for a lack of memory, then {RESEND}"


class Ignored(Otherwise):
    says = (
        "The task raised celery.exceptions.Ignore{where}, by which Celery stores no state and no "
        "result of it"
    )
    then = (
        'if that is how it is to end, write "expect": {{"state": "ignored"}} into the entry, else '
        "have the task return a value or raise another error"
    )


class NotRegistered(Otherwise):
    task: str
    says = "The worker{where} knows no task named {task!r}"
    then = STATUSES["unknown_task"].then


class RejectedAfterStart(Otherwise):
    says = "The task began{where}, and then its message was rejected{why}"
    then = "what it did before that is done, so look at the worker's log before it is sent again"


class RejectedUnrun(Otherwise):
    says = "The message was rejected{where} and the task not run{why}"
    then = "look at the worker's log, the entry's 'eta' and the app's accepted content types"


class RejectedUnclear(Otherwise):
    says = "The message was rejected{where}{why}; whether the task began is not known"
    then = "look at the worker's log for what it has done before it is sent again"


class Expired(Otherwise):
    says = "The job expired before it was started{where}"
    then = STATUSES["expired"].then


class Revoked(Otherwise):
    says = "The job was revoked{where}"
    then = STATUSES["revoked"].then


_HINT: Final = "find in its log lines what held it up, or raise"


class RanTooLong(Otherwise):
    """A time limit that was exceeded; ``own``: it is the task's, and not the entry's."""

    runtime: float | None
    limit: float
    own: bool = False
    says = "The task ran for {took}{where}, longer than its {what} of {most}"
    then = f"{_HINT} {{whose}}"

    def words(self) -> dict[str, object]:
        took = "" if self.runtime is None else seconds(self.runtime)
        what = "own time limit" if self.own else "timeout"
        whose = "the task's 'time_limit'" if self.own else "its 'timeout'"
        most = seconds(self.limit)
        return {**super().words(), "took": took, "what": what, "whose": whose, "most": most}


class StoppedAtLimit(RanTooLong):
    says = "The task was stopped[ after {took}]{where}, as its {what} of {most} was over"


class StoppedAtOwnLimit(RanTooLong):
    says = "The task was stopped[ after {took}]{where}, as its own time limit was over"
    then = f"{_HINT} it"


class StoppedAtSoftLimit(RanTooLong):
    says = "The task was stopped[ after {took}]{where}, as its own soft time limit was over"
    then = f"{_HINT} the task's 'soft_time_limit'"


def wrong_state(entry: Entry, receipt: Receipt, state: State) -> Reason:
    """Return that the job ended otherwise than expected."""
    expect, error = entry.expect, _error(receipt)
    wanted = "" if expect.state == "succeeded" else str(expect.state)
    match state:
        case "succeeded":
            kind = expect.error.type if expect.error is not None else None
            return SucceededInstead.of(receipt, wanted=wanted, error=kind or "")
        case "failed":
            return Raised.of(receipt, wanted=wanted, **({"error": error} if error else {}))
        case "timed_out":
            return _timed_out(entry, receipt, wanted)
        case "crashed":
            return Died.of(receipt, wanted=wanted, error=error)
        case "unknown_task":
            return NotRegistered.of(receipt, wanted=wanted, task=entry.task)
        case "ignored":
            return Ignored.of(receipt, wanted=wanted)
        case "expired":
            return Expired.of(receipt, wanted=wanted)
        case "revoked":
            return Revoked.of(receipt, wanted=wanted)
    rejected: type[Otherwise] = RejectedUnclear
    if receipt.has_trace:
        rejected = RejectedAfterStart
    elif receipt.source == "worker" and not receipt.redelivered:
        rejected = RejectedUnrun
    return rejected.of(receipt, wanted=wanted, error=error)


_SOON = 0.9
"""The share of its timeout before which a task was stopped at another limit: a descendant's own."""


def _timed_out(entry: Entry, receipt: Receipt, wanted: str) -> Reason:
    """Return at which limit it was stopped; the entry's ``timeout`` is the limit in force."""
    runtime = receipt.runtime
    code: type[RanTooLong] = StoppedAtLimit
    if receipt.state != "timed_out" and runtime is not None:
        code = RanTooLong
    elif _is_own_soft_limit(entry, receipt):
        code = StoppedAtSoftLimit
    elif runtime is not None and runtime < _SOON * entry.timeout:
        code = StoppedAtOwnLimit
    # The limit comes from the task: neither from the entry nor by default.
    default = Entry.model_fields["timeout"].default
    own = "timeout" not in entry.model_fields_set and entry.timeout != default
    return code.of(receipt, wanted=wanted, runtime=runtime, limit=entry.timeout, own=own)


def _is_own_soft_limit(entry: Entry, receipt: Receipt) -> bool:
    """Return whether the task's soft limit ended it before the timeout did.

    The timeout is a soft limit as well where the task's own would have come later.
    """
    soft = receipt.error is not None and receipt.error.type.endswith("SoftTimeLimitExceeded")
    return soft and (receipt.runtime is None or receipt.runtime < entry.timeout)


# Of another run


class Resting(Reason):
    """Base of what rests on another reason, ``why``."""

    why: Reason

    @property
    def cause(self) -> Reason:
        return self.why.cause


class Reused(Resting):
    """The judgement of the job of an earlier ``run``; ``entry``: its id there, if it is another."""

    rule = "K"
    run: str
    entry: str = ""

    def with_tree(self, descendants: int, did: str) -> Self:
        return self.having(why=self.why.with_tree(descendants, did))

    def sentence(self, status: VerdictStatus) -> str:
        other = f", entry {short(self.entry)}" if self.entry else ""
        return f"Reused from run {self.run}{other}: {self.why.sentence(status)}"

    def advice(self, status: VerdictStatus) -> str:
        return self.why.advice(status)
