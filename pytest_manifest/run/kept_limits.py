"""Keep the limits that operators have set: a resumed run begins with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from pytest_manifest.run.settings import FailureLimit, Rate, RunSettings
from pytest_manifest.schema.run_facts import JobFact, RunFact, Segment, Steered


def with_limits_set(
    settings: RunSettings, facts: Iterable[JobFact | RunFact]
) -> tuple[RunSettings, Mapping[str, JsonValue]]:
    """Return the settings with the limits that operators have set last, and these by their names.

    Such a limit holds until a session is given another value than the one before it had.
    ``facts``: those of the run; the last segment among them is that of this session.
    """
    held: dict[str, JsonValue] = {}
    stretches: list[Segment] = []
    for one in facts:
        if isinstance(one, Segment):
            stretches.append(one)
            held = _without_changed(held, stretches[-2:])
        elif isinstance(one, Steered) and one.action == "set":
            held |= {_name_of(name, value): value for name, value in one.data.items()}
    before = stretches[-2:][0].window if stretches else None
    if settings.window not in (None, before):
        held.pop("window", None)
    limits, rates = dict(settings.key_limits), dict(settings.rates)
    for name, value in held.items():
        kind, _, key = name.partition(".")
        keyed = Rate.parse_keyed(str(value)) if kind == "rate" else None
        if keyed is not None:
            rates[keyed[0]] = keyed[1]
        elif kind == "limit" and isinstance(value, int):
            limits[key] = value
    found = replace(settings, key_limits=limits, rates=rates)
    window, budget, depth = held.get("window"), held.get("budget"), held.get("queue-depth")
    if isinstance(window, int):
        found = replace(found, window=window)
    if isinstance(budget, int | float):
        found = replace(found, budget=float(budget))
    if isinstance(depth, int):
        found = replace(found, queue_depth=depth)
    if "max-failed" in held:
        found = replace(found, max_failed=FailureLimit.parse(str(held["max-failed"])))
    return found, held


def _name_of(name: str, value: JsonValue) -> str:
    """Return the name of a limit, with its key where that stands in the value."""
    keyed = Rate.parse_keyed(str(value)) if name == "rate" else None
    return f"rate.{keyed[0]}" if keyed is not None and keyed[0] else name


def _without_changed(
    held: Mapping[str, JsonValue], stretches: Sequence[Segment]
) -> dict[str, JsonValue]:
    """Leave out what the last of two stretches was given otherwise; a deadline is of one alone."""
    before, now = _given(stretches[0]), _given(stretches[-1])
    changed = {name for name, value in now.items() if value != before.get(name)}
    return {name: one for name, one in held.items() if name not in {*changed, "deadline"}}


def _given(one: Segment) -> Mapping[str, object]:
    """Return what a session was given, by the names by which it is set; not its window, which it
    always has."""
    found: dict[str, object] = {
        "max-failed": one.max_failed,
        "budget": one.budget,
        "queue-depth": one.queue_depth,
        **{f"limit.{key}": most for key, most in one.limits.items()},
        **{f"rate.{key}" if key else "rate": rate for key, rate in one.rates.items()},
    }
    return {name: value for name, value in found.items() if value is not None}
