"""kombu's Redis transport for workers that we start ourselves, with one thing remembered.

kombu 5.7 makes a new client, with its table of commands, for each round trip: some 30 of the 530
microseconds that a message costs a worker's main process. A client has no state between two
commands but the pool that it takes its connections from.
"""

from __future__ import annotations

from typing import Any, Final

from kombu.transport import redis

from pytest_manifest.worker.lean_redis import lean

NAME: Final = f"{__name__}:Transport"
"""For Celery's setting ``broker_transport``."""
SCHEMES: Final = ("redis://", "rediss://")


class Channel(redis.Channel):
    """A channel that makes one client for each pool of connections."""

    _client_of_pool: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # these keep connections of their own
            return super()._create_client(asynchronous=True)
        client = self._client_of_pool
        if client is None or client.connection_pool is not self.pool:
            client = self._client_of_pool = lean(super()._create_client())
        return client


class Transport(redis.Transport):
    """As kombu's, with that channel."""

    Channel = Channel
