"""Report what batch jobs have brought, from what is recorded of each of their requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from tasks.filling.report import FOREIGN_SHOWN, Report
from tasks.filling.shares import Spent
from tasks.movie_bible.jobs import Document, StoredRequest
from tasks.text_model.base import BATCH, Billed

ANSWERED = "answered"
"""The outcome of a request whose answer was read."""
CHANGED_SINCE_ASKED = (
    "changed_since_asked",
    "its text was changed while its answer was waited for, which was to what it had been",
)


def account_of(
    bills: Sequence[Billed],
    spent: Spent,
    *,
    message: str = "",
    problems: Mapping[str, tuple[str, str]] | None = None,
    foreign: Sequence[str] = (),
) -> Document:
    """Return what is recorded of a request, beside the rows that came of it."""
    names: list[JsonValue] = [*sorted({one.model for one in bills if one.model})]
    return {
        "bills": len(bills),
        "spent": [
            spent.tokens_in,
            spent.tokens_out,
            spent.cost_nanos,
            spent.cached,
            spent.unpriced_in,
            spent.unpriced_out,
        ],
        "answered_by": names,
        "message": message,
        "problems": {passage: [*problem] for passage, problem in (problems or {}).items()},
        "foreign": [*foreign],
        "rows": {},
    }


def spent_of(requests: Iterable[StoredRequest]) -> Spent:
    """Add up what requests were billed."""
    return sum((_spent(one.account.get("spent")) for one in requests), Spent())


def rows_of(requests: Iterable[StoredRequest]) -> int:
    """Count the passages that have rows by these requests."""
    return len({name for one in requests for name in _members(one.account.get("rows"))})


def count(report: Report, requests: Iterable[StoredRequest]) -> None:
    """Add settled requests to a report, in the order in which they were asked."""
    shares: dict[str, Spent] = {}
    for request in requests:
        account, outcome = request.account, request.outcome
        report.calls += (bills := _number(account.get("bills")))
        report.tiers.update({BATCH: bills} if bills else {})
        report.spent += _spent(account.get("spent"))
        names = account.get("answered_by")
        report.answered_by |= {*map(str, names)} if isinstance(names, list) else set()
        if outcome not in (None, ANSWERED):
            report.failures[str(outcome)] += 1
        foreign = account.get("foreign")
        if isinstance(foreign, list):
            report.foreign += [*map(str, foreign)][: FOREIGN_SHOWN - len(report.foreign)]
        for passage, problem in _members(account.get("problems")).items():
            named = report.anomalies.setdefault(kind_of(problem), [])
            if passage not in named:
                named.append(passage)
        for passage, row in _members(account.get("rows")).items():
            told = _members(row)
            shares[passage] = _spent(told.pop("share", None))
            report.rows[passage] = told
    report.in_rows = sum(shares.values(), Spent())


def kind_of(problem: JsonValue) -> str:
    """Return the kind of a recorded problem."""
    return str(problem[0]) if isinstance(problem, list) and problem else ""


def why_of(request: StoredRequest, passage: str) -> tuple[str, str]:
    """Return kind and sentence of what has become of a passage in a request that left it a gap."""
    problem = _members(request.account.get("problems")).get(passage)
    if isinstance(problem, list) and len(problem) == 2:
        return str(problem[0]), str(problem[1])
    if request.outcome == ANSWERED:  # and yet a gap: its answer was to another text
        return CHANGED_SINCE_ASKED
    return str(request.outcome), str(request.account.get("message", ""))


def _spent(stored: JsonValue) -> Spent:
    return Spent(*map(_number, stored)) if isinstance(stored, list) else Spent()


def _number(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _members(value: JsonValue) -> dict[str, JsonValue]:
    return dict(value) if isinstance(value, dict) else {}
