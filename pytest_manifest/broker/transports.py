"""The abilities of each kind of broker: a class and a row for each; no other code compares schemes.

A new broker is a class here, and its locator where it shows more than its workers answer.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import ClassVar, Final

from pytest_manifest.compat.kombu import Channel
from pytest_manifest.redaction.texts import redact
from pytest_manifest.urls import AMQP_SCHEMES, IN_PROCESS, REDIS_SCHEMES, scheme_of

CONNECT_TIMEOUT: Final = 5.0  # s
SOCKET_TIMEOUT: Final = 10.0
"""Seconds that one read or write of a socket may take; a healthy peer needs far less for any."""
REDIS_VISIBILITY: Final = 3600.0
"""kombu's visibility timeout (s) of Redis where neither app nor worker sets one."""
LOCATING: Final = "pytest_manifest.broker.locating"
NOT_FOUND: Final = "404"


class Transport:
    """A broker of which nothing is known but that kombu has a transport for it."""

    schemes: ClassVar[Container[str]] = ()
    locator: ClassVar[str] = f"{LOCATING}.worker_replies:WorkerLocator"
    """Who looks for jobs there; imported where it is needed, as each needs its own library."""
    in_process: ClassVar[bool] = False
    """Whether it lives in one process, with its workers."""
    knows_listeners: ClassVar[bool] = False
    """Whether it keeps the names of all nodes that ever listened, and counts who is connected."""
    visibility_timeout: ClassVar[float | None] = None
    """Seconds after which it takes a message back from a worker that only holds it, where the app
    sets no others; None: it never does."""
    queues_have_timeouts: ClassVar[bool] = False
    """Whether each queue says after how long, and not the app's settings."""
    passive: ClassVar[bool] = True
    """Whether a queue is counted by declaring it passively."""
    gives_back: ClassVar[bool] = False
    """Whether what was not acknowledged is given anew when its connection ends."""

    counts_messages: ClassVar[bool] = False
    """Whether it says how many messages wait in a queue; kombu says 0 of what does not."""
    counts_consumers: ClassVar[bool] = False
    """Whether it counts who consumes a queue."""

    def limits(self, own: Container[str]) -> dict[str, float]:  # noqa: ARG002
        """Give the limits (s) of a connection, but those of ``own``, which the app sets itself."""
        return {}

    def probe_options(self, seconds: float) -> dict[str, float]:
        """Give the options of a connection that only looks whether the broker is there."""
        return dict.fromkeys(self.limits(()), seconds)

    def reserved(self, name: str, options: Mapping[str, object]) -> str | None:  # noqa: ARG002
        """Say in a phrase which key of the broker's own has this name; None where none has."""
        return None

    def connected(self, channel: Channel, exchange: str) -> int | None:  # noqa: ARG002
        """Count the connections on which nodes listen for questions; None where nobody knows."""
        return None

    def uptime(self, channel: Channel) -> float:  # noqa: ARG002
        """Return for how long (s) it has been up; 0.0 where it reports none: it may just have
        started."""
        return 0.0

    def warnings(self, held: Mapping[str, float]) -> Iterable[str]:  # noqa: ARG002
        """Yield what this broker alone warns of; ``held``: for how long (s) a worker may keep a
        message of each task unacknowledged."""
        return ()

    def own_timeouts(self, channel: Channel, queues: Iterable[str]) -> tuple[float, dict[str, str]]:
        """Return the shortest timeout (s) that queues have of their own, and of which it could not
        be read, and why."""
        raise NotImplementedError


class Redis(Transport):
    """Redis, and servers that speak its protocol."""

    schemes = REDIS_SCHEMES
    locator = f"{LOCATING}.redis:RedisLocator"
    knows_listeners = True
    visibility_timeout = REDIS_VISIBILITY
    counts_messages = True
    # Under a global_keyprefix it finds nothing, and declaring creates nothing here.
    passive = False
    bindings: Final = "_kombu.binding."
    bookkeeping: Final[Mapping[str, str]] = {
        "unacked_key": "unacked",
        "unacked_index_key": "unacked_index",
        "unacked_mutex_key": "unacked_mutex",
    }
    """Options that name keys in which kombu keeps what workers have taken, and their defaults."""

    def limits(self, own: Container[str]) -> dict[str, float]:
        # Whose answer was too late may have been done: redis-py would have it done once more.
        return redis_limits(own) | {"retry_on_timeout": False}

    def probe_options(self, seconds: float) -> dict[str, float]:
        return dict.fromkeys(redis_limits(()), seconds)

    def reserved(self, name: str, options: Mapping[str, object]) -> str | None:
        if name.startswith(self.bindings):
            return "that is where kombu keeps which queues there are"
        if name in {options.get(option, key) for option, key in self.bookkeeping.items()}:
            return "that is where kombu keeps what workers have taken"
        return None

    def connected(self, channel: Channel, exchange: str) -> int:
        # Nodes pass over the empty message that finds them out.
        with channel.conn_or_acquire() as client:
            return int(client.publish(f"{channel.keyprefix_fanout}{exchange}", ""))

    def uptime(self, channel: Channel) -> float:
        from redis import ResponseError

        with suppress(ResponseError), channel.conn_or_acquire() as client:  # not for this user
            return float(client.info("server").get("uptime_in_seconds", 0))
        return 0.0


class Amqp(Transport):
    """RabbitMQ."""

    schemes = AMQP_SCHEMES
    locator = f"{LOCATING}.amqp:AmqpLocator"
    gives_back = True
    counts_messages = True
    counts_consumers = True
    consumer_timeout: Final = 1800.0
    """Seconds after which it takes back an unacknowledged message, unless it is set otherwise."""

    def limits(self, own: Container[str]) -> dict[str, float]:
        return _without({"read_timeout": SOCKET_TIMEOUT, "write_timeout": SOCKET_TIMEOUT}, own)

    def warnings(self, held: Mapping[str, float]) -> Iterator[str]:
        for name, longest in held.items():
            if longest >= self.consumer_timeout:
                yield (
                    f"task {name} may keep a message unacknowledged for {longest:g} s, and "
                    "RabbitMQ closes the channel after its consumer_timeout "
                    f"({self.consumer_timeout:g} s unless it is set otherwise), so that the job "
                    "runs twice; raise consumer_timeout"
                )


class Sqs(Transport):
    """Amazon's queues, whose own timeout holds once they are made."""

    schemes = ("sqs",)
    visibility_timeout = 1800.0
    counts_messages = True  # about
    queues_have_timeouts = True
    not_there: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    """Amazon's words for a queue that is not there yet, and is then made with the app's timeout."""

    def own_timeouts(self, channel: Channel, queues: Iterable[str]) -> tuple[float, dict[str, str]]:
        own = float(channel.visibility_timeout)
        unread: dict[str, str] = {}
        timeouts = []
        for name in queues:
            try:
                timeouts.append(self._timeout(channel, name))
            except Exception as error:  # of Amazon's client, which is not there without SQS
                timeouts.append(own)
                is_there = not any(word in str(error) for word in self.not_there)
                if is_there or name in channel.predefined_queues:
                    unread[name] = redact(f"{type(error).__name__}: {error}")
        return min(timeouts, default=own), unread

    def _timeout(self, channel: Channel, name: str) -> float:
        client = channel.sqs(queue=name)
        given = channel.predefined_queues.get(name) or client.get_queue_url(
            QueueName=channel.canonical_queue_name(name)
        )
        url = given.get("url") or given["QueueUrl"]
        said = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        return float(said["Attributes"]["VisibilityTimeout"])


class InMemory(Transport):
    """kombu's broker in the memory of one process."""

    schemes = (IN_PROCESS,)
    locator = f"{LOCATING}.redis:MemoryLocator"
    in_process = True
    counts_messages = True


REGISTRY: Final[tuple[type[Transport], ...]] = (Redis, Amqp, Sqs, InMemory)
"""The brokers of which more is known; the first that has a URL's scheme is its."""


def transport_of(url: str) -> Transport:
    """Return what the broker at this URL can do."""
    scheme = scheme_of(url)
    names = (scheme, scheme.partition("+")[0])
    found = (kind for name in names for kind in REGISTRY if name in kind.schemes)
    return next(found, Transport)()


def redis_limits(own: Container[str]) -> dict[str, float]:
    """Give the limits (s) of a Redis connection, but those of ``own``, which the app sets."""
    limits = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": SOCKET_TIMEOUT}
    return _without(limits, own)


def _without(limits: Mapping[str, float], own: Container[str]) -> dict[str, float]:
    return {name: seconds for name, seconds in limits.items() if name not in own}
