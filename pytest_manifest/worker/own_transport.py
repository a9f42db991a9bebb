"""kombu's Redis transport for workers that we start ourselves, with fewer steps a message.

kombu 5.7 makes a new client, with its table of commands, for each round trip; a client has no state
between two commands but the pool that it takes its connections from. And it waits for an answer
when it notes what was taken, and when that is done: of which it reads only where something has gone
wrong.
"""

from __future__ import annotations

import time
from typing import Any, Final

from kombu.transport import redis, virtual
from kombu.utils.json import dumps
from loguru import logger

from pytest_manifest.worker.lean_redis import LeanRedis, lean
from pytest_manifest.worker.telling import Teller

NAME: Final = f"{__name__}:Transport"
"""For Celery's setting ``broker_transport``."""
SCHEMES: Final = ("redis://", "rediss://")
PATIENCE: Final = 5.0
"""Seconds that a channel which is closed waits for what was told: a broker may be silent."""


class QoS(redis.QoS):
    """As kombu's: what was taken and is not done is in two keys of the broker's. The same is noted
    in the same order, and nobody waits for the answer; who reads them waits first.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        teller = self.channel.teller
        if teller is None:
            super().append(message, delivery_tag)
            return
        info = message.delivery_info
        taken = dumps([message._raw, info["exchange"], info["routing_key"]])
        teller.tell(
            ("ZADD", self.unacked_index_key, str(time.time()), delivery_tag),
            ("HSET", self.unacked_key, delivery_tag, taken),
        )
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        teller = self.channel.teller
        if teller is None:
            super().ack(delivery_tag)
            return
        teller.tell(
            ("ZREM", self.unacked_index_key, delivery_tag),
            ("HDEL", self.unacked_key, delivery_tag),
        )
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.settle()
        super().reject(delivery_tag, requeue)

    def restore_unacked(self, client: Any = None) -> None:
        if self.channel.is_cut_off:  # kombu 5.7 would end the worker with an AttributeError
            return
        self.channel.settle()
        super().restore_unacked(client)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        self.channel.settle()
        super().restore_visible(start, num, interval)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        self.channel.settle()
        super().restore_by_tag(tag, client, leftmost)


class Channel(redis.Channel):
    """A channel that makes one client for each pool of connections."""

    QoS = QoS

    _client_of_pool: Any = None
    _teller: Teller | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # these keep connections of their own
            return super()._create_client(asynchronous=True)
        client = self._client_of_pool
        if client is None or client.connection_pool is not self.pool:
            client = self._client_of_pool = lean(super()._create_client())
            self._teller = Teller(self.pool) if isinstance(client, LeanRedis) else None
        return client

    @property
    def teller(self) -> Teller | None:
        """Whom to tell what needs no answer; None where that has to go another way."""
        # A channel whose connection is closed can make no pool; what there is goes on telling.
        if self._teller is None or self._pool is not None:
            self._create_client()
        return self._teller

    @property
    def is_cut_off(self) -> bool:
        """Whether its connection is closed for good, and nothing can be asked any more."""
        connection = self.connection
        return self._pool is None and (connection is None or connection.client is None)

    def settle(self) -> None:
        """Wait until the broker has done all that it was told."""
        if self._teller is not None:
            self._teller.settle()

    def close(self) -> None:
        try:
            self._settle_at_last()
        finally:
            super().close()

    def _settle_at_last(self) -> None:
        teller = self._teller
        if teller is None:
            return
        try:
            teller.settle(PATIENCE)
        except self.connection_errors as error:
            lost = teller.abandon()
            logger.warning(
                "the broker did not say whether it has noted the last {} steps of jobs ({}); what "
                "these are of may be delivered again",
                lost,
                error,
            )

    def _after_fork(self) -> None:
        self._client_of_pool = self._teller = None  # the parent goes on with these
        super()._after_fork()


class Transport(redis.Transport):
    """As kombu's, with that channel."""

    Channel = Channel
