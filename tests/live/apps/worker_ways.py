"""An app whose worker says of what it takes and acknowledges messages with."""

from celery import Celery
from celery.worker.control import inspect_command

from tests.live.apps.worker_tasks import register

app = Celery("ways")
register(app, __name__)


def named(one: object) -> str:
    kind = one if isinstance(one, type) else type(one)
    return f"{kind.__module__}.{kind.__qualname__}"


@inspect_command()
def ways(state):  # type: ignore[no-untyped-def]  # Celery looks at its arguments' names alone
    """Its classes by name, and all of its settings."""
    consumer = state.consumer
    channel = consumer.task_consumer.channel
    return {
        "pool": named(consumer.pool._pool),
        "transport": named(consumer.connection.transport),
        "channel": named(channel),
        "notes": named(channel.qos),
        "client": named(channel.client),
        "settings": {
            name: repr(value)
            for name, value in state.app.conf.items()
            if name.startswith(("broker", "result", "task", "worker"))
        },
    }
