"""The cells of the table: what each stack is made of, as a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.contract.app import ROUTED
from tests.contract.stacks import OTHER_QUEUE

PREFORK: Final = "prefork"
NAMES: Final[Mapping[str, str]] = {
    "valkey": "Valkey",
    "redis": "Redis",
    "redis-tls": "Redis, TLS by its URL",
    "redis-tls-settings": "Redis, TLS by settings",
    "redis-acl": "Redis, ACL user",
    "redis-socket": "Redis, unix socket",
    "sentinel": "Redis behind Sentinel",
    "cluster": "Redis Cluster of one node",
    "rabbitmq": "RabbitMQ, classic queues",
    "rabbitmq-quorum": "RabbitMQ, quorum queues",
    "rpc": "`rpc://`",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB (MySQL)",
    "sqlite": "SQLite",
    "filesystem": "filesystem",
    "sqs": "SQS (moto)",
    "django-db": "django-db",
    "django-cache": "django-cache",
}
"""What the page calls them."""


@dataclass(frozen=True)
class Cell:
    """A broker and a result store (names of :mod:`tests.stacks.servers`), and the worker.

    ``settings``: those of the app, beyond what the servers need. ``options``: of the worker's
    command. ``variant``: a word for what these are about. ``beat``: whether Celery's beat runs
    beside, and sends jobs of its own. ``seconds``: for its run, where the broker's are too few.
    """

    broker: str
    store: str
    pool: str = PREFORK
    is_instrumented: bool = True
    variant: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    beat: bool = False
    seconds: float = 0.0

    @property
    def worker(self) -> str:
        """What kind of worker it is, in a word."""
        return "instrumented" if self.is_instrumented else "stock"

    @property
    def name(self) -> str:
        """The cell's name, as the command line takes it."""
        parts = (self.broker, self.store, self.pool, self.worker, self.variant)
        return "/".join(part for part in parts if part)


def both(broker: str, store: str, pool: str = PREFORK) -> tuple[Cell, Cell]:
    """Make the cell with an instrumented worker, and that with a stock one."""
    return Cell(broker, store, pool), Cell(broker, store, pool, is_instrumented=False)


def variant(word: str, *options: str, beat: bool = False, **settings: object) -> Cell:
    """Make a cell of the commonest stack with something of its own."""
    return Cell("valkey", "valkey", variant=word, settings=settings, options=options, beat=beat)


def serialized(word: str) -> Cell:
    """Make a cell whose app writes messages and results in another format than JSON."""
    accept = [word, "json"]
    return variant(word, task_serializer=word, result_serializer=word, accept_content=accept)


TICK: Final = {"tick": {"task": "contract.add", "schedule": 0.5, "args": [1, 1]}}
TOPIC: Final[Mapping[str, object]] = {
    "task_default_exchange": "contract",
    "task_default_exchange_type": "topic",
    "task_default_routing_key": "contract.default",
}
SEVERAL: Final[Mapping[str, object]] = {
    "task_create_missing_queues": False,
    "task_queues": {
        name: {"exchange": "jobs", "exchange_type": "direct", "routing_key": f"jobs.{name}"}
        for name in ("celery", ROUTED, OTHER_QUEUE)
    },
}
"""An app that declares each of its queues, behind one exchange, and lets nobody add any."""
RENEWING: Final = 200.0
"""Seconds for a run whose processes are renewed; billiard ends each after a second."""
POOLS: Final = ("threads", "solo", "gevent", "eventlet")
CELLS: Final[Mapping[str, Cell]] = {
    cell.name: cell
    for cell in (
        *both("valkey", "valkey"),
        *both("redis", "redis"),
        *both("redis-tls", "redis-tls"),
        *both("redis-tls-settings", "redis-tls-settings"),
        *both("redis-acl", "redis-acl"),
        *both("redis-socket", "redis-socket"),
        *both("sentinel", "sentinel"),
        *both("cluster", "cluster"),
        *both("rabbitmq", "valkey"),
        Cell("rabbitmq", "redis"),
        *both("rabbitmq", "rpc"),
        *both("rabbitmq", "postgresql"),
        *both("rabbitmq", "mariadb"),
        *both("rabbitmq-quorum", "valkey"),
        Cell("rabbitmq-quorum", "redis"),
        *both("rabbitmq-quorum", "rpc"),
        *both("rabbitmq-quorum", "postgresql"),
        *both("rabbitmq-quorum", "mariadb"),
        *both("sqs", "valkey"),
        *both("sqs", "postgresql"),
        *both("filesystem", "valkey"),
        *both("filesystem", "filesystem"),
        *both("sqlite", "sqlite"),
        *both("postgresql", "postgresql"),
        *both("valkey", "rpc"),
        *both("valkey", "postgresql"),
        *both("valkey", "django-db"),
        *both("valkey", "django-cache"),
        *(cell for pool in POOLS for cell in both("valkey", "valkey", pool)),
        *(cell for pool in POOLS for cell in both("rabbitmq", "postgresql", pool)),
        variant("autoscale", "--autoscale=3,1"),
        Cell(
            "valkey",
            "valkey",
            variant="max-tasks-per-child",
            options=("-c", "1", "--max-tasks-per-child=5"),
            seconds=RENEWING,
        ),
        variant("rate limits", task_annotations={"*": {"rate_limit": "20/s"}}),
        variant("priorities", broker_transport_options={"queue_order_strategy": "priority"}),
        Cell("rabbitmq", "valkey", variant="priorities", settings={"task_queue_max_priority": 10}),
        Cell("valkey", "valkey", variant="topic exchange", settings=TOPIC),
        Cell("rabbitmq", "valkey", variant="topic exchange", settings=TOPIC),
        Cell("rabbitmq", "valkey", variant="several queues", settings=SEVERAL),
        variant("task protocol 1", task_protocol=1),
        serialized("yaml"),
        serialized("msgpack"),
        serialized("pickle"),
        variant("acks_late", task_acks_late=True),
        variant("soft shutdown", worker_soft_shutdown_timeout=5),
        variant("beat beside", beat=True, beat_schedule=TICK),
        variant("result_extended", result_extended=True),
        Cell(
            "valkey",
            "valkey",
            is_instrumented=False,
            variant="result_extended",
            settings={"result_extended": True},
        ),
    )
}
"""All cells, by name."""
