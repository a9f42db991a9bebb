"""Write each verdict's message: what happened, what is known, what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pytest_manifest.schema import Entry, Mismatch, Receipt, State, VerdictStatus
from pytest_manifest.schema.statuses import RESEND, STATUSES
from pytest_manifest.text import middle, plural, printable, seconds

_ERROR_LIMIT = 160
_OUT_OF_TIME: Final = "The job did not finish before the run's deadline"
_RUN_DEADLINE: Final = re.compile(r"the run's deadline of (\S+ s) is over")
_NOT_BY_ITSELF = "this entry expects this end, and it is not known that the job ended so by itself"
NEVER_SENT = "it was never sent"
"""How a note begins where the run ended before the entry was sent."""
OWN_SENDING = "its own apply_async"
"""How a note begins where the task's own ``apply_async`` made no message that can be sent."""
RESULT_KEY = "celery-task-meta-"
"""How the key of a result in a store begins; the task id follows."""
REFUSALS = frozenset({"OutOfMemoryError", "ReadOnlyError", "ResponseError"})
"""Errors by which a Redis refuses a command, which their text names."""
SCHEMA_PATH = "expect.schema"
"""The path of a mismatch that is a fault of the schema itself."""


def passed(receipt: Receipt) -> str:
    """Write that all expectations hold."""
    took = f" in {seconds(receipt.runtime)}" if receipt.runtime is not None else ""
    if receipt.state == "succeeded":
        return f"The task succeeded{_where(receipt)}{took}, as expected."
    return (
        f"The task ended as {receipt.state!r}{_with_error(receipt)}{_where(receipt)}, as expected."
    )


def expected_problem(status: VerdictStatus, note: str) -> str:
    """Write that the job, without a receipt, ended as the entry expects."""
    return f"The job ended as {status!r}{_in_brackets(note)}, as expected."


def unmet(receipt: Receipt, found: Sequence[Mismatch], *, is_all: bool) -> str:
    """Write which expectation fails although the state is right.

    ``is_all``: whether there are no more differences than those found.
    """
    first, more = found[0], len(found) - 1
    if first.path == SCHEMA_PATH:
        return (
            f"The task ended as {receipt.state!r}{_where(receipt)}, but 'expect.schema' cannot be "
            f"applied to its result: it {first.actual}; correct the schema in the plan."
        )
    at_least = "" if is_all else "at least "
    rest = f" (and {at_least}{plural(more, 'more difference')})" if more else ""
    did = "succeeded" if receipt.state == "succeeded" else f"ended as {receipt.state!r}"
    return (
        f"The task {did}{_where(receipt)}, but {first.path} is {first.actual} where "
        f"{first.expected} was expected{rest}; find out whether the task or the entry's 'expect' "
        "is wrong, and correct it."
    )


def unverifiable(receipt: Receipt, names: Sequence[str]) -> str:
    """Write which expectations cannot be checked."""
    what = " and ".join(names)
    ended = f"The task ended as {receipt.state!r}{_where(receipt)}, but {what} cannot be checked: "
    asks_for_result = not {"result", "schema"}.isdisjoint(names)
    if asks_for_result and "result_omitted" in receipt.evidence:
        return (
            f"{ended}its result of {receipt.evidence['result_omitted']} bytes is too large for a "
            "receipt; return less, or raise MANIFEST_RESULT_LIMIT (bytes) for the workers."
        )
    if asks_for_result and "result_not_json" in receipt.evidence:
        return f"{ended}its result is not JSON; return plain values, or drop the expectation."
    return (
        f"{ended}the "
        "receipt has no such time, as the worker does not report any; instrument the worker "
        "(celery worker -I pytest_manifest.worker), or drop the expectation."
    )


def incomplete(receipt: Receipt, names: Sequence[str]) -> str:
    """Write which fields the receipt lacks."""
    return (
        f"The task ended as {receipt.state!r}{_where(receipt)}, but its receipt leaves out "
        f"{', '.join(names)}, by which it could be known whether that is true; bring the worker's "
        "pytest-celery-manifest up to date, or find out what else writes to this run's result "
        "store, then run it again."
    )


def duplicated(entry: Entry, receipt: Receipt) -> str:
    """Write that the job ran more often than allowed."""
    allowed = entry.expect.executions
    are = "is" if allowed == 1 else "are"
    why, pool = " (the broker delivered it again)", ""
    if not receipt.redelivered:
        why, pool = "", " (a pool, too, gives a job again whose process died as it began)"
    return (
        f"The job was started {plural(receipt.executions, 'time')} where {allowed} {are} allowed"
        f"{why}, and ended as {receipt.state!r}{_where(receipt)}; look for what it did more than "
        "once, and at acks_late and the broker's visibility timeout, which decide about redelivery"
        f"{pool}."
    )


def other_code(receipt: Receipt) -> str:
    """Write that the worker ran other code than is here."""
    host = f" on {printable(receipt.host)}" if receipt.host else ""
    return (
        f"The worker{host} ran other code of {receipt.task!r} than is here, so its end "
        "says nothing of this code; deploy, or restart the worker, and run it again."
    )


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


def refused_by_store(receipt: Receipt) -> str:
    """Write that it is not known how a job ended, as the store did not take it."""
    return (
        f"The result store refused what the job ended with{_where(receipt)}, so its own end is not "
        f"known ({_error(receipt).strip()}); see to the store, and start workers with -I "
        "pytest_manifest.worker."
    )


def wrong_state(entry: Entry, receipt: Receipt, state: State) -> str:
    """Write that the job ended otherwise than expected."""
    if state == "succeeded":
        return _succeeded(entry, receipt)
    what, then = _END_MESSAGES[state](entry, receipt)
    wanted = entry.expect.state
    instead = "" if wanted == "succeeded" else f", where {wanted!r} was expected"
    return f"{what}{instead}; {then}."


def problem(entry: Entry, status: VerdictStatus, note: str) -> str:
    """Write what is known where there is no receipt."""
    what, then = STATUSES[status].what, STATUSES[status].then
    if note.startswith(NEVER_SENT):
        what, then = "The job was not run", "send it with --manifest-resume"
    if note.startswith(OWN_SENDING):
        what, then = _NOT_MADE
    if status == "lost" and note.startswith("started"):
        what, then = _LOST_IN_FLIGHT
    fields = {"task": repr(entry.task), "timeout": seconds(entry.timeout)}
    if status == entry.expect.state and entry.expect.error is None:
        then = f"{_NOT_BY_ITSELF}, so {then}"
    if status == "timed_out" and (over := _RUN_DEADLINE.fullmatch(note)):
        what, note = _OUT_OF_TIME, f"{over[1]}, --manifest-deadline"
    return f"{what.format_map(fields)}{_in_brackets(note)}; {then}."


def _succeeded(entry: Entry, receipt: Receipt) -> str:
    error = entry.expect.error
    wanted = ""
    if error is not None and error.type:
        wanted = f" with {error.type}"
    return (
        f"The task succeeded{_where(receipt)}, but this entry expects it to end as "
        f"{entry.expect.state!r}{wanted}; if success is right now, correct 'expect' in the plan, "
        "else find out why the task no longer fails."
    )


def _failed(_: Entry, receipt: Receipt) -> tuple[str, str]:
    return (
        f"The task raised{_error(receipt, ' an error that was not reported')}{_where(receipt)}",
        "start from the worker's traceback",
    )


def _timed_out(entry: Entry, receipt: Receipt) -> tuple[str, str]:
    return timed_out(entry, receipt, _where(receipt))


def _crashed(_: Entry, receipt: Receipt) -> tuple[str, str]:
    why = _in_brackets(_error(receipt))
    return (
        f"The process that ran the task{_where(receipt)} died before the task ended{why}",
        f"look at the worker's log and for a lack of memory, then {RESEND}",
    )


def _ignored(_: Entry, receipt: Receipt) -> tuple[str, str]:
    return (
        (
            f"The task raised celery.exceptions.Ignore{_where(receipt)}, by which Celery stores no "
            "state and no result of it"
        ),
        (
            'if that is how it is to end, write "expect": {"state": "ignored"} into the entry, '
            "else have the task return a value or raise another error"
        ),
    )


def _unknown_task(entry: Entry, receipt: Receipt) -> tuple[str, str]:
    return (
        f"The worker{_where(receipt)} knows no task named {entry.task!r}",
        "correct the name, or start a worker whose app has that task",
    )


def _rejected(_: Entry, receipt: Receipt) -> tuple[str, str]:
    why = _in_brackets(_error(receipt))
    if receipt.has_trace:
        return (
            f"The task began{_where(receipt)}, and then its message was rejected{why}",
            "what it did before that is done, so look at the worker's log before it is sent again",
        )
    if receipt.source == "worker" and not receipt.redelivered:
        return (
            f"The message was rejected{_where(receipt)} and the task not run{why}",
            "look at the worker's log, the entry's 'eta' and the app's accepted content types",
        )
    return (
        f"The message was rejected{_where(receipt)}{why}; whether the task began is not known",
        "look at the worker's log for what it has done before it is sent again",
    )


def _expired(_: Entry, receipt: Receipt) -> tuple[str, str]:
    return (
        f"The job expired before it was started{_where(receipt)}",
        "add workers, or give it a later 'expires', and send it again",
    )


def _revoked(_: Entry, receipt: Receipt) -> tuple[str, str]:
    return (
        f"The job was revoked{_where(receipt)}",
        "send it again (--manifest-resume) if it is still wanted",
    )


_END_MESSAGES: Mapping[State, Callable[[Entry, Receipt], tuple[str, str]]] = {
    "failed": _failed,
    "timed_out": _timed_out,
    "crashed": _crashed,
    "ignored": _ignored,
    "unknown_task": _unknown_task,
    "rejected": _rejected,
    "expired": _expired,
    "revoked": _revoked,
}
_LOST_IN_FLIGHT = (
    "The job was lost in flight",
    f"look at that worker's log and for a lack of memory, then {RESEND}",
)
_NOT_MADE = (
    "No message was made, so the task was not run",
    "correct the entry or that method, or leave manifest_apply_async out",
)


def _where(receipt: Receipt) -> str:
    """Format `` on worker@host (pid 12)``, as far as it is known."""
    name = receipt.worker or receipt.host
    if not name:
        return ""
    pid = f" (pid {receipt.pid})" if receipt.pid is not None else ""
    return f" on {printable(name)}{pid}"


def _error(receipt: Receipt, otherwise: str = "") -> str:
    if receipt.error is None:
        return otherwise
    message = " ".join(printable(receipt.error.message).split())
    shown = (
        f"{printable(receipt.error.type)}: {message}" if message else printable(receipt.error.type)
    )
    return f" {middle(shown, _ERROR_LIMIT)}"


def _with_error(receipt: Receipt) -> str:
    return f" with{error}" if (error := _error(receipt)) else ""


def _in_brackets(note: str) -> str:
    note = note.strip().rstrip(".")
    return f" ({note})" if note else ""


_HINT = "find in its log lines what held it up, or raise"
_TASKS = "the task's 'time_limit'"
_SOON = 0.9
"""The share of its timeout before which a task was stopped at another limit: a descendant's own."""
_ENTRYS = "its 'timeout'"


def timed_out(entry: Entry, receipt: Receipt, where: str) -> tuple[str, str]:
    """Return what happened, and what to do; the entry's ``timeout`` is the limit in force."""
    own = _is_of_the_task(entry)
    what = "own time limit" if own else "timeout"
    then = f"{_HINT} {_TASKS if own else _ENTRYS}"
    took = None if receipt.runtime is None else seconds(receipt.runtime)
    limit = seconds(entry.timeout)
    if receipt.state != "timed_out" and took is not None:
        return f"The task ran for {took}{where}, longer than its {what} of {limit}", then
    after = "" if took is None else f" after {took}"
    if _is_own_soft_limit(entry, receipt):
        stopped = f"The task was stopped{after}{where}, as its own soft time limit was over"
        return stopped, f"{_HINT} the task's 'soft_time_limit'"
    if receipt.runtime is not None and receipt.runtime < _SOON * entry.timeout:
        return f"The task was stopped{after}{where}, as its own time limit was over", f"{_HINT} it"
    return f"The task was stopped{after}{where}, as its {what} of {limit} was over", then


def _is_of_the_task(entry: Entry) -> bool:
    """Return whether the limit comes from the task: neither from the entry nor by default."""
    default = Entry.model_fields["timeout"].default
    return "timeout" not in entry.model_fields_set and entry.timeout != default


def _is_own_soft_limit(entry: Entry, receipt: Receipt) -> bool:
    """Return whether the task's soft limit ended it before the timeout did.

    The timeout is a soft limit as well where the task's own would have come later.
    """
    soft = receipt.error is not None and receipt.error.type.endswith("SoftTimeLimitExceeded")
    return soft and (receipt.runtime is None or receipt.runtime < entry.timeout)
