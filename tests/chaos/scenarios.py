"""Every fault, and the exact verdicts that each kind of entry may have after it.

An entry that is not named otherwise must have run once, to its end, and have passed.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos import message_faults as messages
from tests.chaos import process_faults as processes
from tests.chaos import receipt_faults as receipts
from tests.chaos.scenario import Scenario
from tests.chaos.scenarios_of_networks import NETWORKS
from tests.chaos.scenarios_of_operators import OPERATORS
from tests.chaos.scenarios_of_peers import PEERS
from tests.chaos.scenarios_of_trees import TREES
from tests.chaos.stacks import WAYS, Setup
from tests.chaos.workload import (
    PASSED,
    Allowed,
    Group,
    Json,
    Kinds,
    kinds,
    late,
    late_safe,
    plain,
    safe,
)

CRASHED, LOST, UNKNOWN = (kinds(one) for one in ("crashed", "lost", "unknown"))
DUPLICATED, FORGED, REJECTED = (kinds(one) for one in ("duplicated", "forged", "rejected"))
ONE = Setup(workers=1)
OUTSIDE = Setup("valkey", workers=1)
PROXIED = Setup("valkey", workers=1, proxied=("pytest's broker",))
RESUME = (("--manifest-resume",),)
REPAIR = ("--manifest-repair",)
HEARTBEAT: Mapping[str, Json] = {"broker_heartbeat": 2}

WORKERS = (
    Scenario(
        "pool child killed",
        # Announced by the worker, and killed before the task's first line: never, yet crashed.
        (plain(16, never=CRASHED, cut=CRASHED), safe(8)),
        processes.kill_pool_child,
        damage=1,
    ),
    Scenario("pool child killed, late", (late(12), late_safe(12)), processes.kill_pool_child),
    Scenario(
        "pool child killed, stock worker",
        (plain(16, never=CRASHED, cut=CRASHED), safe(8)),
        processes.kill_pool_child,
        Setup("valkey", workers=1, stock=True),
        damage=1,
    ),
    Scenario(
        "poison job, late",
        (
            plain(12),
            late(6),
            Group(
                "poison",
                1,
                Allowed(cut=kinds("quarantined"), again=kinds("quarantined")),
                task="chaos.poison",
            ),
        ),
        options=("--override-ini=manifest_kills=2",),
        damage=1,
    ),
    Scenario(
        "worker killed",
        # One between being popped and being noted as taken may vanish with its worker.
        (plain(16, never=CRASHED | LOST, cut=CRASHED), safe(8)),
        processes.kill_worker,
        damage=2,
    ),
    Scenario(
        "worker killed, late",
        (late(12, never=LOST, cut=CRASHED), late_safe(12)),
        processes.kill_worker,
        damage=2,
    ),
    Scenario(
        "worker killed under load",
        (plain(24, never=CRASHED | LOST, cut=CRASHED | LOST), safe(16)),
        processes.kill_worker,
        OUTSIDE,
        options=REPAIR,
        damage=3,
    ),
    Scenario(
        "worker killed under load, late",
        (late(16, never=LOST, cut=CRASHED | LOST), late_safe(16)),
        processes.kill_worker,
        OUTSIDE,
        options=REPAIR,
        damage=3,
    ),
    Scenario("worker paused", (plain(16), safe(8)), processes.pause_worker),
    Scenario(
        "worker killed, rabbitmq, late",
        (late(12, cut=CRASHED | LOST), late_safe(12)),
        processes.kill_worker,
        Setup("rabbitmq", workers=1),
        damage=3,
    ),
)

BROKER = (
    Scenario(
        "broker killed, aof",
        (plain(16, never=LOST), safe(8)),
        processes.kill_broker,
        damage=2,
        forced=True,  # of what a worker acknowledges just then the broker may not have heard
    ),
    Scenario(
        "broker killed, no aof",
        (
            plain(24, never=LOST | UNKNOWN, done=PASSED | UNKNOWN),
            safe(16, done=PASSED | UNKNOWN),
        ),
        processes.kill_broker,
        Setup("valkey", workers=1, aof=False),
    ),
    Scenario("broker restarted", (plain(16, never=LOST), safe(8)), processes.stop_broker, damage=2),
    Scenario(
        "broker disconnects, late",
        (late(12, never=LOST, cut=CRASHED), late_safe(12)),
        messages.disconnect_all,
        damage=4,
    ),
    Scenario("broker paused", (plain(16), safe(8)), processes.pause_broker),
    Scenario(
        "broker paused, rabbitmq",
        (plain(16), late_safe(8)),
        processes.pause_broker,
        Setup("rabbitmq", workers=1),
        app=HEARTBEAT,
        forced=True,  # RabbitMQ hands out again what it thinks its consumer has left behind
    ),
    Scenario(
        "result store full",
        (plain(16), safe(8)),
        messages.fill_store,
        Setup("valkey", workers=1, own_store=True),
        app={
            "result_backend_always_retry": True,
            "result_backend_max_sleep_between_retries_ms": 500,
        },
    ),
    Scenario(
        "connections reset, pytest's",
        (plain(24), safe(16)),
        messages.cut_connections,
        PROXIED,
    ),
    Scenario(
        "connections reset, all",
        (plain(24, never=LOST), safe(16)),
        messages.cut_connections,
        Setup("valkey", workers=1, proxied=WAYS),
        options=REPAIR,
        forced=True,  # a worker that reconnects may run again what it had taken
    ),
    Scenario(
        "broker flushed",
        (
            plain(16, never=LOST | UNKNOWN, done=PASSED | UNKNOWN),
            safe(8, done=PASSED | UNKNOWN),
        ),
        messages.flush,
        ONE,
    ),
)


def tampered(name: str, change: messages.Change, *, plain_: Kinds, safe_: Kinds) -> Scenario:
    """Messages that wait are changed behind our back."""
    groups = (plain(16, aimed=plain_), safe(8, aimed=safe_))
    return Scenario(name, groups, messages.change_messages(change), ONE)


MESSAGES = (
    tampered("message removed", messages.removed, plain_=LOST, safe_=PASSED),
    tampered("message with a bad eta", messages.with_bad_eta, plain_=REJECTED, safe_=REJECTED),
    tampered(
        "message of a refused content type",
        messages.with_refused_content,
        plain_=REJECTED,
        safe_=REJECTED,
    ),
    tampered("message corrupt", messages.with_corrupt_body, plain_=REJECTED, safe_=REJECTED),
    Scenario(
        "message delivered twice",
        (plain(16), safe(8)),
        messages.change_messages(messages.doubled),
        forced=True,
    ),
    Scenario(
        "revoked by somebody",
        (plain(16, never=kinds("revoked")), safe(8, never=kinds("revoked"))),
        messages.revoke,
        ONE,
    ),
    Scenario(
        "odd endings",
        (
            plain(8),
            Group("unknown", 2, Allowed(never=kinds("unknown_task")), task="chaos.wrok"),
            Group(
                "expired",
                2,
                Allowed(never=kinds("expired")),
                fields={"countdown": 1.0, "expires": 0.4},
            ),
            Group("ignore", 1, Allowed(done=kinds("failed")), task="chaos.ignore"),
            Group("ignored", 1, task="chaos.ignore", fields={"expect": {"state": "ignored"}}),
            Group("opaque", 2, Allowed(done=kinds("failed")), task="chaos.opaque"),
            Group(
                "opaque_error",
                2,
                task="chaos.opaque_error",
                fields={"expect": {"state": "failed", "error": {"match": "cannot be serialised"}}},
            ),
            Group("huge", 1, task="chaos.huge"),
            Group("memory", 1, Allowed(cut=kinds("failed")), task="chaos.memory"),
            Group("again", 2, task="chaos.again"),
        ),
    ),
)

RECEIPTS = (
    Scenario("receipt dropped", (plain(16), safe(8)), receipts.edit_receipts(receipts.drop, 2)),
    Scenario(
        "receipt and result dropped",
        (plain(16, aimed=LOST | UNKNOWN), safe(8, aimed=PASSED)),
        receipts.edit_receipts(receipts.drop_everything, 2),
        breaks="store",
    ),
    Scenario("receipt doubled", (plain(16), safe(8)), receipts.edit_receipts(receipts.double, 2)),
    Scenario(
        "receipt truncated", (plain(16), safe(8)), receipts.edit_receipts(receipts.truncate, 2)
    ),
    Scenario(
        "receipts swapped",
        (plain(16, aimed=FORGED), safe(8, aimed=FORGED)),
        receipts.edit_receipts(receipts.swap, 2),
    ),
)

DRIVER = (
    Scenario(
        "pytest killed before it sends",
        (plain(16), safe(8)),
        processes.kill_driver_before_publishing,
        OUTSIDE,
        then=RESUME,
    ),
    Scenario(
        "pytest killed within a batch",
        (plain(24), safe(16)),
        processes.kill_driver_within_a_batch,
        PROXIED,
        then=RESUME,
    ),
    Scenario(
        "pytest killed after it has sent",
        (plain(24), safe(16)),
        processes.kill_driver_after_publishing,
        OUTSIDE,
        then=RESUME,
    ),
    Scenario(
        "pytest killed with its own stack",
        # What ran, and its neighbours on the way in, are left alone: they may have begun.
        (plain(16, never=CRASHED | LOST, cut=CRASHED | LOST), safe(8)),
        processes.kill_driver_after_publishing,
        then=RESUME,
        damage=4,
    ),
    Scenario(
        "xdist worker killed",
        (plain(16), safe(8)),
        processes.kill_xdist_worker,
        ONE,
        options=("-n", "2"),
    ),
    Scenario("ledger's reader killed", (plain(16), safe(8)), processes.kill_reader, ONE),
)

OTHERS = (*PEERS, *NETWORKS, *TREES, *OPERATORS)
SCENARIOS = (*WORKERS, *BROKER, *MESSAGES, *RECEIPTS, *DRIVER, *OTHERS)
