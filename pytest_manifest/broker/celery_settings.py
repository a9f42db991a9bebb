"""List the settings by which a Celery app can name its own broker, result store or file.

Workers of a private stack run the user's app, and the app may know its production broker: by a URL
for reading and another for writing, by a variable of the environment that it sets itself, by the
parts of a URL. What is forgotten here is a broker that private workers would empty. So a test
holds this list against all settings that Celery has: each is here, or among the harmless ones.
Only the standard library: the supervisor imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VARIABLES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
"""Of the environment: Celery prefers these to what an app is configured with."""

PROGRAM_VARIABLES: Final = ("BROKER_URL", "RESULT_BACKEND")
"""What the program ``celery`` takes for its --broker and --result-backend: above all others."""

URLS: Final = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
"""The settings that get the private stack's own URL."""

BROKER_PARTS: Final = (
    "broker_transport",
    "broker_host",
    "broker_port",
    "broker_user",
    "broker_password",
    "broker_vhost",
)
"""The settings that each say a part of a broker's URL."""

PARTS: Final[Mapping[str, object]] = {
    **dict.fromkeys(BROKER_PARTS),
    # How to talk to that broker and to no other.
    "broker_use_ssl": False,
    "broker_login_method": None,
    "broker_failover_strategy": None,
    # Of a result store.
    "cache_backend": None,
    "cache_backend_options": {},
    "database_url": None,
    "redis_host": None,
    "redis_port": None,
    "redis_db": None,
    "redis_username": None,
    "redis_password": None,  # nosec B105  # no password is none
    "redis_backend_use_ssl": None,
    "redis_backend_credential_provider": None,
    "cassandra_servers": None,
    "cassandra_bundle_path": None,
    "cassandra_secure_bundle_path": None,
    "dynamodb_endpoint_url": None,
    "s3_endpoint_url": None,
    "s3_bucket": None,
    "couchbase_backend_settings": None,
    "arangodb_backend_settings": None,
    "mongodb_backend_settings": None,
    "gcs_bucket": None,
    # A file with the ids of revoked jobs, which workers read, and write when they end.
    "worker_state_db": None,
    # A process for each worker, which can be killed: the stack is built on that, and the
    # app's choice would win over the command line's.
    "worker_pool": "prefork",
    # Without it these workers answer no question and revoke no job.
    "worker_enable_remote_control": True,
    # An app may run at once what has no broker; here it has one, and so what a job sends is
    # sent, as in production.
    "task_always_eager": False,
}
"""The settings that are as if the app had not set them, and what they are then."""

OPTIONS: Final = ("broker_transport_options", "result_backend_transport_options")
"""The settings of which only what is in ``HARMLESS_OPTIONS`` is left."""

HARMLESS_OPTIONS: Final = frozenset(
    {
        # How keys are called, and in which order queues are read: clients of the app do the same.
        "global_keyprefix",
        "sep",
        "priority_steps",
        "queue_order_strategy",
        "fanout_prefix",
        "fanout_patterns",
        "unacked_key",
        "unacked_index_key",
        "unacked_mutex_key",
        "body_encoding",
        "deadletter_queue",
        # How long something takes, how often it is tried, how much is done at once.
        "ack_emulation",
        "visibility_timeout",
        "unacked_mutex_expire",
        "unacked_restore_limit",
        "unacked_restore_interval",
        "unacked_restore_throttle",
        "polling_interval",
        "max_connections",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_keepalive_options",
        "health_check_interval",
        "retry_on_timeout",
        "retry_policy",
        "max_retries",
        "interval_start",
        "interval_step",
        "interval_max",
        "connect_retries_timeout",
        "result_chord_ordered",
        "additional_connection_errors",
        "client_name",
    }
)
"""Options of a transport or store that lead nowhere else; all others are left out."""


def environment(url: str, present: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that lead a process to ``url``; ``present`` is what it would inherit."""
    chosen = dict.fromkeys(VARIABLES, url)
    return chosen | {name: url for name in PROGRAM_VARIABLES if name in present}


def harmless(options: object) -> dict[str, object]:
    """Keep a transport's harmless options."""
    given = options if isinstance(options, Mapping) else {}
    return {name: value for name, value in given.items() if name in HARMLESS_OPTIONS}


def is_overridden(name: str) -> bool:
    """Tell whether a private stack overrides the app's own value of this setting."""
    return name in URLS or name in PARTS or name in OPTIONS
