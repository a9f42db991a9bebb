"""Plan the system test, ``--manifest-plan=system_test:MODE``.

The same options give the same entries: nothing here is random or reads a clock.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Annotated, Final

from pydantic import Field, FiniteFloat, JsonValue

from pytest_manifest import PlanBuilder, planning_fixture

# An option that does not hold these is refused with a sentence before anything is planned.
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=3600)]
Bytes = Annotated[int, Field(ge=0, le=1_000_000)]

TITLES: Final = ("Alien", "Brazil", "Casablanca", "Delicatessen", "Metropolis", "Rashōmon")
LIFECYCLE: Final = ("created", "verified", "deleted")

GRACE_SECONDS: Final = 30.0
"""What a job may take beyond the time it sleeps; ten times what a busy laptop needs."""


@planning_fixture("system_test:debug")
def system_test_debug(plan: PlanBuilder, *, count: Count = 20, message: str = "hello") -> None:
    """Plan jobs that echo a message: the shortest way through the whole stack."""
    for number in range(1, count + 1):
        _debug(plan, entry_id("debug", number, count), f"{message} {number}")


@planning_fixture("system_test:sleep")
def system_test_sleep(plan: PlanBuilder, *, count: Count = 20, sleep: Seconds = 0.1) -> None:
    """Plan jobs that sleep: do the workers really work side by side?"""
    for number in range(1, count + 1):
        _sleep(plan, entry_id("sleep", number, count), sleep)


@planning_fixture("system_test:crud")
def system_test_crud(plan: PlanBuilder, *, count: Count = 20) -> None:
    """Plan jobs that create, read, update and delete a database row in one transaction."""
    for number in range(1, count + 1):
        _crud(plan, entry_id("crud", number, count), row(number))


@planning_fixture("system_test:crud_latency")
def system_test_crud_latency(
    plan: PlanBuilder, *, count: Count = 20, sleep: Seconds = 0.05
) -> None:
    """Plan database jobs that hold a pooled connection for a while before they write."""
    for number in range(1, count + 1):
        _slow_crud(plan, entry_id("latency", number, count), row(number), sleep)


@planning_fixture("system_test:crud_stress")
def system_test_crud_stress(
    plan: PlanBuilder, *, count: Count = 50, sleep: Seconds = 0.05, payload: Bytes = 2000
) -> None:
    """Plan holding and fast database jobs by turns, with a payload: pool and locks under load."""
    for number in range(1, count + 1):
        data = row(number, payload)
        if number % 2:
            _slow_crud(plan, entry_id("hold", number, count), data, sleep)
        else:
            _crud(plan, entry_id("crud", number, count), data)


@planning_fixture("system_test:mixed")
def system_test_mixed(plan: PlanBuilder, *, count: Count = 60, sleep: Seconds = 0.05) -> None:
    """Plan debug, sleep, crud and crud_latency jobs by turns."""
    kinds = ("debug", "sleep", "crud", "latency")
    for index, kind in enumerate(islice(cycle(kinds), count)):
        number = index // len(kinds) + 1
        identity = entry_id(kind, number, count)
        if kind == "debug":
            _debug(plan, identity, f"hello {number}")
        elif kind == "sleep":
            _sleep(plan, identity, sleep)
        elif kind == "crud":
            _crud(plan, identity, row(number))
        else:
            _slow_crud(plan, identity, row(number), sleep)


def entry_id(kind: str, number: int, count: int) -> str:
    """Return an id like ``debug-0001``, of one width within a plan, so that ids sort as planned."""
    return f"{kind}-{number:0{max(4, len(str(count)))}d}"


def row(number: int, payload: int = 0) -> dict[str, JsonValue]:
    """Return the data of the ``number``-th database job, with ``payload`` bytes of filling."""
    data: dict[str, JsonValue] = {
        "title": f"{TITLES[number % len(TITLES)]} {number}",
        "year": 1920 + number % 100,
        "tags": ["system_test", str(number % 7)],
    }
    return data | {"payload": "x" * payload} if payload else data


def _debug(plan: PlanBuilder, identity: str, message: str) -> None:
    plan.add(
        "tasks.diagnostics.debug_task",
        id=identity,
        kwargs={"msg": message},
        timeout=GRACE_SECONDS,
        tags=["debug"],
        expect={"result": {"echo": message}},
    )


def _sleep(plan: PlanBuilder, identity: str, sleep: float) -> None:
    plan.add(
        "tasks.diagnostics.sleep_task",
        id=identity,
        kwargs={"sec": sleep},
        timeout=sleep + GRACE_SECONDS,
        tags=["sleep"],
        expect={"schema": _slept(sleep)},
    )


def _crud(plan: PlanBuilder, identity: str, data: dict[str, JsonValue]) -> None:
    plan.add(
        "tasks.crud.fast_crud_task",
        id=identity,
        kwargs={"data": data},
        timeout=2 * GRACE_SECONDS,  # a database file that is locked is waited for
        tags=["crud"],
        expect={"result": _life(data)},
    )


def _slow_crud(plan: PlanBuilder, identity: str, data: dict[str, JsonValue], sleep: float) -> None:
    plan.add(
        "tasks.crud.sleep_crud_task",
        id=identity,
        kwargs={"sec": sleep, "data": data},
        timeout=sleep + 2 * GRACE_SECONDS,
        tags=["crud", "sleep"],
        expect={"result": _life(data), "schema": _slept(sleep)},
    )


def _life(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the result that a CRUD job must have: every step was taken, with this row."""
    return {"lifecycle": list(LIFECYCLE), "verified": {"title": data["title"], "rows_left": 0}}


def _slept(sleep: float) -> dict[str, JsonValue]:
    """Return the JSON Schema of a result that slept at least ``sleep`` seconds."""
    return {
        "type": "object",
        "required": ["slept"],
        "properties": {"slept": {"type": "number", "minimum": sleep}},
    }
