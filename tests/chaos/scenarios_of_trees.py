"""Faults that hit what jobs have started: an entry is what all of that comes to."""

from __future__ import annotations

from tests.chaos import message_faults as messages
from tests.chaos import process_faults as processes
from tests.chaos import trees
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import Setup
from tests.chaos.workload import Allowed, Group, grown, kinds

CRASHED, LOST, FAILED = (kinds(one) for one in ("crashed", "lost", "failed"))
ONE = Setup(workers=1)
OUTSIDE = Setup("valkey", workers=1)
RESUME = (("--manifest-resume",),)

TREES = (
    Scenario(
        "trees, odd endings",
        (
            *grown((*trees.SOUND, "retries", "late")),
            Group("fails", 2, Allowed(done=FAILED), trees.TASK, shape="fails"),
            Group(
                "stuck",
                1,
                Allowed(cut=kinds("timed_out")),
                trees.TASK,
                fields={"timeout": 2},
                shape="never ends",
            ),
        ),
    ),
    Scenario(
        "trees, message removed",
        grown(aimed=LOST),
        messages.change_messages(messages.removed, descendants=True),
        ONE,
    ),
    Scenario(
        "trees, message delivered twice",
        grown(),
        messages.change_messages(messages.doubled, descendants=True),
        forced=True,
    ),
    Scenario(
        "trees, pool child killed",
        grown(never=CRASHED, cut=CRASHED),
        processes.kill_pool_child,
        damage=1,
    ),
    Scenario(
        "trees, worker killed",
        grown(never=CRASHED | LOST, cut=CRASHED),
        processes.kill_worker,
        damage=2,
    ),
    Scenario(
        "trees, worker killed, late",
        grown(("late", *trees.SOUND), never=CRASHED | LOST, cut=CRASHED),
        processes.kill_worker,
        damage=2,
    ),
    Scenario(
        "trees, worker killed, rabbitmq",
        grown(never=CRASHED | LOST, cut=CRASHED),
        processes.kill_worker,
        Setup("rabbitmq", workers=1),
        damage=3,
    ),
    Scenario(
        "trees, broker killed",
        grown(never=LOST, cut=CRASHED),
        processes.kill_broker,
        damage=2,
        forced=True,  # of what a worker acknowledges just then the broker may not have heard
    ),
    Scenario(
        "trees, pytest killed",
        grown(),
        processes.kill_driver_after_publishing,
        OUTSIDE,
        then=RESUME,
    ),
)
