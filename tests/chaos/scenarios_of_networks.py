"""Scenarios of bad networks: each fault on each way, pytest's and workers', to broker and store."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos import network_faults as networks
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import WAYS, Setup
from tests.chaos.workload import Json, kinds, plain, safe

LOST, LATE = kinds("lost"), kinds("timed_out", "pending")
LIMITS: Mapping[str, Json] = {
    "broker_transport_options": {"socket_timeout": 4, "socket_connect_timeout": 4},
    "redis_socket_timeout": 4,
    "redis_socket_connect_timeout": 4,
}
"""Without these Celery's worker waits for a silent peer for ever."""
GOOD = {
    "latency": networks.throughout(networks.be_late),
    "slices of a byte": networks.throughout(networks.slice_bytes),
}
"""What is slow, and spoils nothing."""
BAD = {
    "half-closed": networks.at_once(networks.half_close),
    "silent peer": networks.at_once(networks.fall_silent),
}

VALKEY = {way: Setup("valkey", workers=1, own_store=True, proxied=(way,)) for way in WAYS}
PYTESTS, WORKERS = (
    Setup("rabbitmq", workers=1, proxied=(way,)) for way in ("pytest's broker", "workers' broker")
)
HEARTBEAT: Mapping[str, Json] = {"broker_heartbeat": 2}

NETWORKS = (
    *(
        Scenario(f"{name}, {way}", (plain(16), safe(8)), fault, setup)
        for name, fault in GOOD.items()
        for way, setup in VALKEY.items()
    ),
    *(
        Scenario(f"{name}, workers' RabbitMQ", (plain(16), safe(8)), fault, WORKERS)
        for name, fault in GOOD.items()
    ),
    *(
        Scenario(f"{name}, {way}", (plain(16), safe(8)), fault, setup, app=LIMITS)
        for name, fault in BAD.items()
        for way, setup in VALKEY.items()
        if way != "workers' broker"
    ),
    *(
        Scenario(
            f"{name}, workers' broker",
            # What Redis gives to a worker that does not hear it any more is gone, and on such a
            # connection the worker waits for its next message, and for questions, for ever.
            (plain(16, never=LOST | LATE), safe(8, never=LATE)),
            fault,
            VALKEY["workers' broker"],
            options=("--manifest-repair", "--manifest-deadline=30s"),
            app=LIMITS,
            forced=True,  # a worker that reconnects may run again what it had taken
        )
        for name, fault in BAD.items()
    ),
    *(
        Scenario(f"{name}, pytest's RabbitMQ", (plain(16), safe(8)), fault, PYTESTS, app=HEARTBEAT)
        for name, fault in BAD.items()
    ),
    *(
        Scenario(
            f"{name}, workers' RabbitMQ",
            # A worker that has reconnected may take nothing any more, and answers nobody.
            (plain(16, never=LOST | LATE), safe(8, never=LATE)),
            fault,
            WORKERS,
            app=HEARTBEAT,
            forced=True,  # RabbitMQ hands out again what a worker that has gone had taken
        )
        for name, fault in BAD.items()
    ),
)
