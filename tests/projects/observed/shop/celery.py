"""An app that is watched from all sides: by Celery's signals, by hooks of its tasks, by tracing."""

import logging

import sentry_sdk
from celery import Celery, signals
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.transport import Transport

from shop.base import HookedTask
from shop.notes import note

app = Celery(
    "shop",
    broker="redis://localhost:6379/0",
    backend="redis://localhost:6379/1",
    task_cls=HookedTask,
    include=["shop.tasks"],
)

OURS = [name for name in signals.__all__ if not name.startswith(("beat_", "eventlet_"))]


def receiver_of(name):
    """Make what notes that a signal was sent, with the name of the task where it is of one."""

    def receive(sender=None, **kwargs):
        note("signal", name, str(getattr(sender, "name", "")))

    return receive


for name in OURS:
    if name != "setup_logging":
        getattr(signals, name).connect(receiver_of(name), weak=False)


@signals.setup_logging.connect
def set_up_logging(loglevel=logging.INFO, **kwargs):
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
trace.set_tracer_provider(provider)
CeleryInstrumentor().instrument()


class Nowhere(Transport):
    """Reports go nowhere: the shop has no Sentry yet."""

    def capture_envelope(self, envelope):
        pass


sentry_sdk.init("http://key@127.0.0.1:1/1", traces_sample_rate=1.0, transport=Nowhere)
