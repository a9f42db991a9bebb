"""Show an attempt as Allure steps: planned, sent, received, started, finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pytest_manifest.analysis.records import AttemptRecord, TryRecord
from pytest_manifest.reporting.allure.terms import message_of, status_of
from pytest_manifest.schema.statuses import AllureStatus
from pytest_manifest.text import visible

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
        return _whole_way(attempts[0], planned_at, trees)
    return [_attempt(one, planned_at, trees) for one in attempts]


def _whole_way(
    one: AttemptRecord, planned_at: datetime | None, trees: Mapping[str, Json]
) -> list[Json]:
    steps = list(_way(one, planned_at))
    if one.task_id in trees:
        steps.append(trees[one.task_id])
    return steps


def _attempt(one: AttemptRecord, planned_at: datetime | None, trees: Mapping[str, Json]) -> Json:
    name = f"attempt {one.number}: {one.kind or 'pending'}"
    status = status_of(one.kind)
    step = step_between(name, one.sent_at, one.finished_at or one.started_at, status)
    step["steps"] = _whole_way(one, planned_at, trees)
    if status != "passed":
        step["statusDetails"] = {"message": visible(message_of(one.kind, one.sentence))}
    return step


def _way(one: AttemptRecord, planned_at: datetime | None) -> Iterator[Json]:
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
    if one.finished_at is not None:
        name = "found dead" if one.was_found_dead else "finished"
        end = step_between(name, one.finished_at, one.finished_at, status)
    else:
        end = step_between(f"not {last}", None, None, status)
    if status != "passed":
        end["name"] = f"{end['name']}: {one.kind or 'pending'}"
    yield end


def _tried(one: TryRecord) -> Json:
    pid = "" if one.pid is None else f" in process {one.pid}"
    host = f" on {visible(one.host)}" if one.host else ""
    name = f"try {one.retries + 1}{pid}{host}: to be retried"
    step = step_between(name, one.started_at, one.ended_at, "broken")
    if one.error is not None:
        step["statusDetails"] = {"message": visible(one.error)}
    step["parameters"] = [{"name": "retries", "value": str(one.retries)}]
    return step


def _started(one: AttemptRecord) -> Json:
    pid = "" if one.pid is None else f" in process {one.pid}"
    host = f" on {visible(one.host)}" if one.host else ""
    until = one.started_at if one.was_found_dead else one.finished_at
    step = step_between(f"started{pid}{host}", one.started_at, until)
    counts = {
        "executions": one.executions if one.executions > 1 else 0,
        "retries": one.retries,
        "redelivered": "yes" if one.redelivered else 0,
    }
    parameters = [{"name": name, "value": str(value)} for name, value in counts.items() if value]
    if parameters:
        step["parameters"] = parameters
    return step


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
