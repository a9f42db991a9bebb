"""The Celery configuration of this project."""

from __future__ import annotations

from typing import Final

from tasks.settings import Settings

CONNECT_SECONDS: Final = 5
REPLY_SECONDS: Final = 30
HEALTH_CHECK_SECONDS: Final = 25


def task_modules(settings: Settings) -> list[str]:
    """Return the names of the modules that a worker loads."""
    modules = ["tasks.diagnostics", "tasks.crud", "tasks.rag", "tasks.judge"]
    if settings.run_counter:
        modules.append("tasks.counting")
    return modules


def configuration(settings: Settings) -> dict[str, object]:
    """Return Celery's settings; times in seconds."""
    return {
        "broker_url": settings.broker_url,
        "result_backend": settings.results_url,
        # JSON only: a pickled message can run code of any client that may write to the broker.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_time_limit": settings.task_time_limit,
        "result_expires": settings.result_expires,
        # One at a time: a job of seconds must not wait behind another while a worker idles.
        "worker_prefetch_multiplier": 1,
        "worker_disable_rate_limits": True,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        # Without it, a broker that is away at a task's end makes a success a failure.
        "result_backend_always_retry": True,
        "result_backend_max_sleep_between_retries_ms": 1000,
        "broker_transport_options": _transport_options(),
        "redis_socket_connect_timeout": CONNECT_SECONDS,
        "redis_socket_timeout": REPLY_SECONDS,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": HEALTH_CHECK_SECONDS,
    }


def _transport_options() -> dict[str, object]:
    """Return the options of kombu's Redis transport; its AMQP transport ignores them."""
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": REPLY_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_SECONDS,
    }
