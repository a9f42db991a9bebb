"""Scenarios of silence, of delays, of full disks, and of sessions that are told to end."""

from __future__ import annotations

from tests.chaos import message_faults as messages
from tests.chaos import peer_faults as peers
from tests.chaos import process_faults as processes
from tests.chaos import session_faults as sessions
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import Setup
from tests.chaos.workload import PASSED, Group, kinds, plain, safe

CRASHED, LOST = kinds("crashed"), kinds("lost")
LATE = kinds("timed_out")
UNTOLD = kinds("timed_out", "unknown", "lost")
OUTSIDE = Setup("valkey", workers=1)
RESUME = (("--manifest-resume",),)

QUIET = (
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
        Setup("valkey", workers=1, sql="sqlite"),
        damage=1,
    ),
    Scenario(
        "retries that wait longer than the timeout",
        (plain(8), Group("later", 4, task="chaos.later", fields={"timeout": 2})),
    ),
    Scenario("a second pytest", (plain(24), safe(8)), peers.second_pytest, OUTSIDE),
)

FROZEN = (
    Scenario(
        "store frozen",
        (plain(16), safe(8)),
        peers.freeze_store,
        Setup("valkey", workers=1, own_store=True),
    ),
    Scenario(
        "PostgreSQL frozen",
        (plain(16), safe(8)),
        peers.freeze_store,
        Setup("valkey", workers=1, sql="postgres"),
    ),
    Scenario(
        "RabbitMQ frozen",
        (plain(16), safe(8)),
        peers.freeze_broker,
        Setup("rabbitmq", workers=1),
    ),
    Scenario(
        "worker killed, rabbitmq",
        # One between being acknowledged and being announced may vanish with its worker; where its
        # successor is up later than a job's timeout, nobody is there to say that it has it no more.
        (plain(16, never=LOST, cut=CRASHED | LATE), safe(8, cut=LATE)),
        processes.kill_worker,
        Setup("rabbitmq", workers=1),
        damage=3,
    ),
)

STOCK = (
    Scenario(
        # Nobody says what it had begun, and Redis keeps what it had taken for an hour.
        "worker killed, stock worker",
        (
            plain(16, never=UNTOLD, cut=UNTOLD),
            safe(8, never=UNTOLD, cut=UNTOLD),
        ),
        processes.kill_worker,
        Setup("valkey", workers=1, stock=True),
        options=("--manifest-deadline=30s",),
        damage=10,
    ),
    Scenario(
        "worker paused, stock worker",
        (plain(16), safe(8)),
        processes.pause_worker,
        Setup("valkey", workers=1, stock=True),
    ),
    Scenario(
        "connections reset, pytest's, stock worker",
        (plain(16), safe(8)),
        messages.cut_connections,
        Setup("valkey", workers=1, stock=True, proxied=("pytest's broker",)),
    ),
    Scenario(
        "message removed, stock worker",
        (plain(16, aimed=UNTOLD), safe(8, aimed=PASSED | UNTOLD)),
        messages.change_messages(messages.removed),
        Setup("valkey", workers=1, stock=True),
        options=("--manifest-deadline=30s",),
    ),
)

ELSEWHERE = Setup("valkey", workers=1, elsewhere=True)
NAMESPACES = (
    Scenario(
        "worker killed, in another namespace",
        (plain(16, never=UNTOLD, cut=CRASHED | UNTOLD), safe(8, never=LATE, cut=LATE)),
        processes.kill_worker,
        ELSEWHERE,
        options=("--manifest-repair",),
        then=RESUME,
        damage=3,
    ),
    Scenario(
        "pytest killed, worker in another namespace",
        (plain(16, never=UNTOLD, cut=CRASHED | UNTOLD), safe(8, never=LATE, cut=LATE)),
        processes.kill_driver_and_perhaps_worker,
        ELSEWHERE,
        then=(("--manifest-resume", "--manifest-repair"),),
        damage=3,
    ),
)

SESSIONS = (
    Scenario(
        "worker killed, three manifests",
        (plain(16, never=LOST, cut=CRASHED), safe(8)),
        processes.kill_worker,
        manifests=3,
        damage=2,
    ),
    Scenario(
        "disk full, ledger's",
        (plain(16), safe(8)),
        sessions.fill_disk(".manifest"),
        OUTSIDE,
        then=RESUME,
        disk=".manifest",
    ),
    Scenario(
        "disk full, private broker's",
        # A message that a worker has just taken is gone when the broker refuses to keep it.
        (plain(16, never=LOST), safe(8)),
        sessions.fill_disk(".manifest/stacks"),
        then=RESUME,
        disk=".manifest/stacks",
    ),
    Scenario("ended by a signal", (plain(16), safe(8)), sessions.end_by_signal(), then=RESUME),
    *(
        Scenario(
            f"ended by a signal, {phase}",
            (plain(16), safe(8)),
            sessions.end_by_signal(phase),
            then=RESUME,
        )
        for phase in sessions.PHASES
    ),
)
PEERS = (*QUIET, *FROZEN, *STOCK, *NAMESPACES, *SESSIONS)
