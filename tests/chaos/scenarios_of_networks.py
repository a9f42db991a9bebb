"""Scenarios of bad networks: each fault on each way, pytest's and workers', to broker and store."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos import network_faults as networks
from tests.chaos.scenario import Scenario
from tests.chaos.stacks import WAYS, Setup
from tests.chaos.workload import Json, kinds, plain, safe

LOST = kinds("lost")
LIMITS: Mapping[str, Json] = {
    "broker_transport_options": {"socket_timeout": 4, "socket_connect_timeout": 4},
    "redis_socket_timeout": 4,
    "redis_socket_connect_timeout": 4,
}
"""Without limits of its own Celery's worker waits for a silent broker for ever."""
GOOD = {"latency": networks.be_late, "slices of a byte": networks.slice_bytes}
"""What is slow, and spoils nothing."""
BAD = {"half-closed": networks.half_close, "silent peer": networks.fall_silent}

NETWORKS = (
    *(
        Scenario(
            f"{name}, {way}",
            (plain(16), safe(8)),
            networks.on_the_way(spoil),
            Setup("valkey", workers=1, own_store=True, proxied=(way,)),
        )
        for name, spoil in GOOD.items()
        for way in WAYS
    ),
    *(
        Scenario(
            f"{name}, {way}",
            (plain(16), safe(8)),
            networks.on_the_way(spoil),
            Setup("valkey", workers=1, own_store=True, proxied=(way,)),
            app=LIMITS,
        )
        for name, spoil in BAD.items()
        for way in WAYS
        if way != "workers' broker"
    ),
    *(
        Scenario(
            f"{name}, workers' broker",
            # What Redis gives to a worker that does not hear it any more is gone.
            (plain(16, never=LOST), safe(8)),
            networks.on_the_way(spoil),
            Setup("valkey", workers=1, own_store=True, proxied=("workers' broker",)),
            options=("--manifest-repair",),
            app=LIMITS,
            forced=True,  # a worker that reconnects may run again what it had taken
        )
        for name, spoil in BAD.items()
    ),
    *(
        Scenario(
            f"{name}, RabbitMQ",
            (plain(16, never=LOST), safe(8)),
            networks.on_the_way(spoil),
            Setup("rabbitmq", workers=1, proxied=("pytest's broker", "workers' broker")),
            app={"broker_heartbeat": 2},
            forced=True,  # RabbitMQ hands out again what a worker that has gone had taken
        )
        for name, spoil in (GOOD | BAD).items()
    ),
)
