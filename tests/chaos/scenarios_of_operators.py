"""Scenarios of runs that somebody steers, killed at any moment of a command, and gone on with."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos import operator_faults as operators
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import Setup
from tests.chaos.workload import PASSED, Allowed, Group, Kinds, kinds, plain, safe

CANCELLED, CRASHED, FAILED, LOST = (
    kinds(one) for one in ("cancelled", "crashed", "failed", "lost")
)
UNTOLD = kinds("timed_out", "unknown", "lost")
OUTSIDE = Setup("valkey", workers=1)
ONE = Setup(workers=1)
RESUME = (("--manifest-resume",),)
WINDOW = ("--override-ini=manifest_window=8",)
"""So that at each moment some are not sent yet."""


def slow(count: int, **allowed: Kinds) -> Group:
    """Entries that still run when the operator's shell has started Python."""
    return replace(plain(count, **allowed), sec=(0.3, 0.9))


OPERATORS = (
    Scenario(
        "operator cancels, pytest killed",
        (slow(20, aimed=PASSED | CANCELLED), safe(10, aimed=PASSED | CANCELLED)),
        operators.cancel_waiting,
        OUTSIDE,
        options=WINDOW,
        then=RESUME,
    ),
    Scenario(
        "operator ends what runs, worker killed",
        (
            slow(
                20,
                never=CRASHED | LOST,
                cut=CRASHED,
                aimed=PASSED | CANCELLED | CRASHED | LOST,
            ),
            # One that was cancelled is not sent again, whatever becomes of it.
            safe(10, aimed=PASSED | CANCELLED | CRASHED | LOST),
        ),
        operators.cancel_running,
        ONE,
        options=WINDOW,
        then=RESUME,
    ),
    Scenario(
        "operator has failed ones sent again, pytest killed",
        (
            slow(16),
            Group(
                "fails",
                8,
                Allowed(cut=FAILED),
                task="chaos.fails",
                fields={"idempotent": True, "retries": 2},
            ),
            # What is not idempotent is not sent again by that.
            Group("once", 4, Allowed(cut=FAILED), task="chaos.fails"),
        ),
        operators.requeue_failed,
        OUTSIDE,
        options=WINDOW,
        then=RESUME,
    ),
    Scenario(
        "operator pauses, pytest killed",
        (slow(20), safe(10)),
        operators.pause_run,
        OUTSIDE,
        options=WINDOW,
        then=RESUME,
    ),
    Scenario(
        "operator sets the window, worker killed",
        (slow(20, never=CRASHED | LOST, cut=CRASHED), safe(10)),
        operators.set_window,
        options=WINDOW,
        damage=2,
    ),
    Scenario(
        "operator stops in an outage",
        (slow(20, never=LOST, cut=CRASHED | UNTOLD), safe(10)),
        operators.stop_in_an_outage,
        options=WINDOW,
        then=RESUME,
        forced=True,  # of what a worker acknowledges just then the broker may not have heard
    ),
)
"""Of each the record is held against the promises to operators, too: see ``steering_flaws``."""
