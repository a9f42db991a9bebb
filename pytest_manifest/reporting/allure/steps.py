"""Show an attempt as Allure steps: planned, sent, received, started, finished.

Show the tasks that a job started as Allure steps, nested as one started the other.

Translate verdicts, tags and meta into Allure's statuses, categories, labels and links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import pytest
from pydantic import JsonValue

from pytest_manifest.analysis.records import AttemptRecord, TryRecord
from pytest_manifest.analysis.tree_reading import DescendantRecord, TreeRecord
from pytest_manifest.schema import Entry
from pytest_manifest.schema.statuses import STATUSES, AllureStatus, VerdictStatus
from pytest_manifest.text import many, plural, visible

CATEGORIES: Final[Sequence[tuple[str, str, tuple[AllureStatus, ...]]]] = tuple(
    (one.title, name, (one.allure,)) for name, one in STATUSES.items() if one.title
)
"""A category for each verdict that is not ``passed``: its name, the verdict, Allure's statuses."""


def status_of(verdict: VerdictStatus | None) -> AllureStatus:
    """Return ``failed`` for an expectation not met, ``broken`` for a fault of stack or harness."""
    return STATUSES[verdict or "pending"].allure


def message_of(verdict: VerdictStatus | None, sentence: str | None) -> str:
    """Return the message that Allure shows; categories match the verdict at its beginning."""
    return visible(f"{verdict or 'pending'}: {sentence or 'it has no verdict'}")


SEVERITIES: Final = ("blocker", "critical", "normal", "minor", "trivial")
_LABELS: Final = ("severity", "owner", "epic", "feature", "story", "layer")
_ISSUES: Final = ("issue", "issues", "known_issue")


def labels_of(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield labels from ``meta`` (``{"severity": "critical"}``) or tags (``owner:ann``)."""
    for name in _LABELS:
        for value in _values(entry, name):
            if name != "severity" or value.lower() in SEVERITIES:
                yield name, value.lower() if name == "severity" else visible(value)


def links_of(entry: Entry, pattern: Callable[[str], str | None]) -> Iterator[tuple[str, str, str]]:
    """Yield type, address and name of issues and links from ``meta`` or tags (``issue:ABC-1``).

    ``pattern`` returns an issue's address by its name, None if it knows none.
    """
    seen: set[str] = set()
    for kind, keys in (("issue", _ISSUES), ("link", ("link", "links"))):
        for name in (name for key in keys for name in _values(entry, key)):
            url = name if kind == "link" or _is_address(name) else pattern(name)
            if url is not None and _is_address(url) and url not in seen:
                seen.add(url)
                yield kind, url, visible(name)


def issue_addresses(config: pytest.Config) -> Callable[[str], str | None]:
    """Return a function from an issue's name to its address, or to None without a pattern."""
    pattern: str | None = config.getini("manifest_issue_link")
    if not pattern:
        pattern = dict(getattr(config.option, "allure_link_pattern", ())).get("issue")
    return lambda name: issue_address(pattern, name) if pattern else None


def issue_address(pattern: str, name: str) -> str:
    """Return the pattern with the issue's name, quoted, in place of ``{}``."""
    return pattern.replace("{}", quote(name, safe="/"))


def is_known(entry: Entry) -> bool:
    """Return whether a failure is known: ``"known_issue": true``, or with the issue's name."""
    return bool(entry.meta.get("known_issue")) or any(_tagged(entry, "known_issue"))


def _values(entry: Entry, name: str) -> Iterator[str]:
    value = entry.meta.get(name)
    for one in value if isinstance(value, list) else [value]:
        if (text := _text(one)) is not None:
            yield text
    yield from _tagged(entry, name)


def _text(value: JsonValue) -> str | None:
    if isinstance(value, dict):
        value = value.get("url") or value.get("name")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def _tagged(entry: Entry, name: str) -> Iterator[str]:
    for tag in entry.tags:
        key, colon, value = tag.partition(":")
        if colon and key == name and value.strip():
            yield value.strip()


def _is_address(text: str) -> bool:
    """Return whether the text is a web page's address, which cannot make a browser run code."""
    return text.startswith(("https://", "http://"))


Json = dict[str, object]


def milliseconds(moment: datetime | None) -> int | None:
    """Return a moment as Allure has it, in milliseconds since the epoch; None for None."""
    return None if moment is None else int(moment.timestamp() * 1000)


def steps_of(
    attempts: Sequence[AttemptRecord], planned_at: datetime | None, trees: Mapping[str, Json]
) -> list[Json]:
    """Return the steps of one attempt, or of several one step each with its own steps inside.

    ``trees``: the step of an attempt's descendants, which comes last, by the attempt's task id.
    """
    if len(attempts) == 1:
        return list(_way(attempts[0], planned_at, trees))
    return [_attempt(one, planned_at, trees) for one in attempts]


def _attempt(one: AttemptRecord, planned_at: datetime | None, trees: Mapping[str, Json]) -> Json:
    name = f"attempt {one.number}: {one.kind or 'pending'}"
    status = status_of(one.kind)
    step = step_between(name, one.sent_at, one.finished_at or one.started_at, status)
    step["steps"] = list(_way(one, planned_at, trees))
    if status != "passed":
        step["statusDetails"] = {"message": message_of(one.kind, one.sentence)}
    return step


def _way(
    one: AttemptRecord, planned_at: datetime | None, trees: Mapping[str, Json]
) -> Iterator[Json]:
    """Yield an attempt's steps, each until the next one; the last says how far the attempt came."""
    if one.reason:
        yield step_between(f"planned again: {visible(one.reason)}", None, one.sent_at)
    else:
        yield step_between("planned", planned_at if one.number == 1 else None, one.sent_at)
    last = "sent"
    if one.sent_at is not None:
        queue = f" to the queue {visible(one.queue)}" if one.queue else ""
        tried = next((a_try.started_at for a_try in one.tries if a_try.started_at), None)
        yield step_between(f"sent{queue}", one.sent_at, tried or one.received_at or one.started_at)
        last = "started" if one.received_at else "received"
    yield from map(_tried, one.tries)
    if one.received_at is not None:
        by = f" by {visible(one.worker)}" if one.worker else ""
        yield step_between(f"received{by}", one.received_at, one.started_at)
    if one.started_at is not None:
        yield _started(one)
        last = "finished"
    status = status_of(one.kind)
    name = f"not {last}"
    if one.finished_at is not None:
        name = "found dead" if one.was_found_dead else "finished"
    if status != "passed":
        name += f": {one.kind or 'pending'}"
    yield step_between(name, one.finished_at, one.finished_at, status)
    if one.task_id in trees:
        yield trees[one.task_id]


def _tried(one: TryRecord) -> Json:
    name = f"try {one.retries + 1}{_where(one)}: to be retried"
    step = step_between(name, one.started_at, one.ended_at, "broken")
    if one.error is not None:
        step["statusDetails"] = {"message": visible(one.error)}
    step["parameters"] = [{"name": "retries", "value": str(one.retries)}]
    return step


def _where(one: AttemptRecord | TryRecord) -> str:
    pid = "" if one.pid is None else f" in process {one.pid}"
    return f"{pid} on {visible(one.host)}" if one.host else pid


def _started(one: AttemptRecord) -> Json:
    until = one.started_at if one.was_found_dead else one.finished_at
    step = step_between(f"started{_where(one)}", one.started_at, until)
    counts = {
        "executions": one.executions if one.executions > 1 else 0,
        "retries": one.retries,
        "redelivered": "yes" if one.redelivered else 0,
    }
    if parameters := _parameters(counts):
        step["parameters"] = parameters
    return step


def _parameters(rows: Mapping[str, object]) -> list[Json]:
    return [{"name": name, "value": visible(str(value))} for name, value in rows.items() if value]


def step_between(
    name: str, start: datetime | None, stop: datetime | None, status: AllureStatus = "passed"
) -> Json:
    """Return a step; of two times, one that is not known equals the other, or both are left out."""
    begin, end = milliseconds(start), milliseconds(stop)
    if begin is None:
        begin = end
    step: Json = {"name": name, "status": status, "stage": "finished"}
    if begin is not None:
        step["start"] = begin
        step["stop"] = begin if end is None or end < begin else end
    return step


MOST: Final = 200
"""Descendants of an attempt that are steps; of more, the failed, the critical path, the slowest."""
CRITICAL: Final = "critical path"
"""What the name of a step ends with that the end of its tree depended on."""
_WORST_FIRST: Final[tuple[AllureStatus, ...]] = ("failed", "broken", "passed")


def step_of_tree(tree: TreeRecord) -> Json:
    """Return one step for an attempt's descendants, with a step for each of them inside."""
    moments = (one.spawned_at or one.started_at for _, one in tree.tasks)
    began = min(filter(None, moments), default=None)
    statuses = {status_of(status) for status in tree.counts}
    worst: AllureStatus = next((one for one in _WORST_FIRST if one in statuses), "passed")
    name = f"{many(tree.total, 'descendant')}: {_counted(tree.counts)}"
    step = step_between(name, began, tree.ended_at, worst)
    step["steps"] = _nested(tree)
    return step


def _nested(tree: TreeRecord) -> list[Json]:
    on_path = set(tree.path)
    top: list[Json] = []
    open_lists = [top]
    """The list of steps that a task of each depth is appended to."""
    for depth, one in tree.tasks:
        inner: list[Json] = []
        step = _step(one, critical=one.task_id in on_path)
        del open_lists[depth + 1 :]
        open_lists[depth].append(step)
        step["steps"] = inner
        open_lists.append(inner)
    if tree.left_out:
        shown = Counter(one.status for _, one in tree.tasks)
        left = {status: count - shown[status] for status, count in tree.counts.items()}
        top.append(step_between(f"and {tree.left_out:,} more: {_counted(left)}", None, None))
    return top


def _step(one: DescendantRecord, *, critical: bool) -> Json:
    name = visible(one.task)
    if one.status != "passed":
        name = f"{name}: {one.status or 'pending'}"
    if one.retries:
        name = f"{name} ({plural(one.retries, 'retry')})"
    if critical:
        name = f"{name} ({CRITICAL})"
    status = status_of(one.status)
    step = step_between(name, one.started_at or one.spawned_at, one.ended_at, status)
    rows = {"started as": one.how.replace("_", " "), "worker": one.place, "host": one.host}
    step["parameters"] = _parameters({**rows, "retries": one.retries, "task id": one.task_id})
    if status != "passed":
        trace = one.failure and (one.failure.traceback or one.failure.error)
        details = {"message": message_of(one.status, one.sentence)}
        step["statusDetails"] = details | ({"trace": visible(trace)} if trace else {})
    return step


def _counted(counts: Mapping[VerdictStatus | None, int]) -> str:
    """Return how many there are of each status, the most frequent first."""
    some = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return ", ".join(
        f"{count:,} {(status or 'pending').replace('_', ' ')}" for status, count in some if count
    )
