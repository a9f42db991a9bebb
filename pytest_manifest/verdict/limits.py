"""Which time limit ended a job, in words: the entry's, or one that its task sets itself."""

from __future__ import annotations

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.verdict.text import seconds

_HINT = "find in its log lines what held it up, or raise"
_TASKS = "the task's 'time_limit'"
_ENTRYS = "its 'timeout'"


def timed_out(entry: Entry, receipt: Receipt, where: str) -> tuple[str, str]:
    """What happened, and what to do; the entry's ``timeout`` is the limit that held."""
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
    return f"The task was stopped{after}{where}, as its {what} of {limit} was over", then


def _is_of_the_task(entry: Entry) -> bool:
    """Whether the limit that held is none of the entry, nor the default of those that say none."""
    default = Entry.model_fields["timeout"].default
    return "timeout" not in entry.model_fields_set and entry.timeout != default


def _is_own_soft_limit(entry: Entry, receipt: Receipt) -> bool:
    """Whether a soft limit ended it, and before the timeout, which is a soft one as well where the
    task's soft one would have come later."""
    soft = receipt.error is not None and receipt.error.type.endswith("SoftTimeLimitExceeded")
    return soft and (receipt.runtime is None or receipt.runtime < entry.timeout)
