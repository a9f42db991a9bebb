"""Scenarios of silence, of delays, and of sessions that are told to end; see ``scenarios``."""

from __future__ import annotations

from tests.chaos import peer_faults as peers
from tests.chaos import process_faults as processes
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import Setup
from tests.chaos.workload import PASSED, Group, kinds, plain, safe

CRASHED = kinds("crashed")
UNTOLD = kinds("timed_out", "unknown", "lost")
OUTSIDE = Setup("valkey", workers=1)
RESUME = (("--resume",),)

PEERS = (
    Scenario("broker frozen", (plain(16), safe(8)), peers.freeze_broker, OUTSIDE),
    Scenario(
        "broker frozen for good",
        (
            plain(24, never=UNTOLD, cut=UNTOLD, done=PASSED | kinds("timed_out", "unknown")),
            safe(16, never=UNTOLD, cut=UNTOLD, done=PASSED | kinds("timed_out", "unknown")),
        ),
        peers.freeze_broker_for_good,
        OUTSIDE,
        options=("--manifest-deadline=20s",),
    ),
    Scenario(
        "pool child killed, SQL results",
        (plain(16, never=CRASHED, cut=CRASHED), safe(8)),
        processes.kill_pool_child,
        Setup("valkey", workers=1, sql=True),
        damage=1,
    ),
    Scenario(
        "retries that wait longer than the timeout",
        (plain(8), Group("later", 4, task="chaos.later", fields={"timeout": 2})),
    ),
    Scenario("ended by a signal", (plain(16), safe(8)), peers.end_by_signal, then=RESUME),
    Scenario("a second pytest", (plain(24), safe(8)), peers.second_pytest, OUTSIDE),
)
