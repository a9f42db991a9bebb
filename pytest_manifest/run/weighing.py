"""All that was said of one attempt, weighed: what workers began, and every end that they told of.

The first end that arrives is not the true one for having been first. What an instrumented worker
says of an end it said of the beginning, too; so each end is held against the starts, and the ends
of one execution against one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from pytest_manifest.ledger import Start
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.wire import canonical
from pytest_manifest.verdict import is_hearsay, short

ReportedEnd: TypeAlias = tuple[str | None, Receipt]
"""An end and the execution that it is of; None where that is not told: not by way of a stream."""

OF_ITS_PROCESS: Final = frozenset({"succeeded", "failed", "ignored"})
"""Ends that only the process can tell of which ran the task, and said before that it began."""
_WITHOUT_START: Final = frozenset({"expired", "unknown_task"})


def decisive_end(said: Sequence[ReportedEnd]) -> ReportedEnd:
    """The end that counts: of the last execution that has one, in the words of its own process.

    The main process speaks of a child that it has ended, or found dead: it does not know what that
    had done before. What the plain result store says counts where no worker says anything.
    """
    if len(said) == 1:
        return said[0]
    last: dict[str | None, ReportedEnd] = {}
    for execution, receipt in said:
        before = last.get(execution)
        if before is None or _rank(receipt) > _rank(before[1]):
            last[execution] = execution, receipt
    ends = list(last.values())
    ours = [end for end in ends if end[1].source == "worker"]
    return (ours or ends)[-1]


def _rank(receipt: Receipt) -> tuple[bool, bool, bool]:
    return receipt.source == "worker", not is_hearsay(receipt), _is_from_child(receipt)


def _is_from_child(receipt: Receipt) -> bool:
    return receipt.state in OF_ITS_PROCESS or receipt.cpu is not None


def disagreement(said: Sequence[ReportedEnd]) -> str:
    """A phrase for two ends of one execution that cannot both be true, "" where there are none."""
    if len(said) == 1:
        return ""
    own: dict[str, Receipt] = {}
    for execution, receipt in said:
        if execution is None or not _is_from_child(receipt):
            continue
        other = own.setdefault(execution, receipt)
        if _essence(other) != _essence(receipt):
            return (
                f"two receipts of one execution contradict one another: {_in_short(other)} and "
                f"{_in_short(receipt)}"
            )
    return ""


def _essence(receipt: Receipt) -> tuple[object, ...]:
    error = receipt.error
    told = None if error is None else (error.type, error.message)
    result = receipt.result_sha256 or repr(receipt.result)
    return receipt.state, told, result, receipt.task, receipt.args_sha256


def _in_short(receipt: Receipt) -> str:
    if receipt.state == "succeeded":
        return f"'succeeded' with {short(receipt.result)}"
    error = f" with {short(receipt.error.type)}" if receipt.error is not None else ""
    return f"{receipt.state!r}{error}"


def contradiction_with_starts(said: Sequence[ReportedEnd], starts: Sequence[Start]) -> str:
    """A phrase for an end of which the starts tell that it cannot be, "" where there is none."""
    for execution, receipt in said:
        if execution is None:
            continue
        begun = any(start.execution == execution for start in starts)
        if not begun and receipt.state in OF_ITS_PROCESS:
            return "it tells the end of an execution that no worker has begun"
        if begun and receipt.state in _WITHOUT_START:
            return f"it says that the job was {receipt.state!r}, which a worker had begun"
    return ""


def without_unproven_claims(
    execution: str | None, receipt: Receipt, starts: Sequence[Start]
) -> Receipt:
    """The receipt without the claims that switch checks off, where no start bears them out.

    Other arguments are allowed to a retry, and another task to a job that was handed on. Where no
    starts are told, in a store without a stream, the tries that the receipt lists must do.
    """
    if not (receipt.retries or receipt.replaced) or receipt.source != "worker":
        return receipt
    own = [start for start in starts if start.execution == execution] or starts
    if starts:
        retried = any(start.retries == receipt.retries for start in own)
        replaced = len(starts) > 1 or any(start.hop for start in own)
    else:
        retried, replaced = bool(receipt.retried), True
    struck: dict[str, object] = {}
    if receipt.retries and not retried:
        struck["retries"] = 0
    if receipt.replaced and not replaced:
        struck["replaced"] = False
    return receipt.model_copy(update=struck) if struck else receipt


def missing_fields(
    entry: Entry, receipt: Receipt, *, sent: bool, code: str | None
) -> Sequence[str]:
    """What a worker of ours always says of a task that it ran, and this receipt does not.

    ``sent``: whether it is known when the attempt was sent; ``code``: the digest of the task's code
    on this side. What is not said cannot be found wrong; so without it nothing has passed.
    """
    if receipt.source != "worker" or receipt.state not in OF_ITS_PROCESS:
        return ()
    left_out = [name for name in _ALWAYS if getattr(receipt, name) is None]
    if entry.expect.max_wait is not None and receipt.wait is None:
        left_out.append("wait")
    if not receipt.executions:
        left_out.append("executions")
    if sent and receipt.sent_at is None:
        left_out.append("sent_at")
    if receipt.args_sha256 is None and _args_survive_json(entry):
        left_out.append("args_sha256")
    if code is not None and receipt.code is None and not receipt.replaced:
        left_out.append("code")
    if receipt.result_sha256 is None and _has_digest(receipt):
        left_out.append("result_sha256")
    return left_out


def _args_survive_json(entry: Entry) -> bool:
    """Whether a worker gets the entry's arguments as JSON, of which it can make a digest: kombu
    makes dates and the like of objects with this key."""
    data = canonical([entry.args, entry.kwargs])
    return data is not None and b'"__type__"' not in data


_ALWAYS: Final = ("started_at", "finished_at", "runtime")


def _has_digest(receipt: Receipt) -> bool:
    return receipt.state == "succeeded" and "result_not_json" not in receipt.evidence
