"""An app with the one line, before its configuration, and with a backend made too early."""

from celery import Celery

from pytest_manifest.worker import instrument
from tests.live.apps.worker_tasks import register

app = Celery("instrumented")
early = app.backend
instrument(app)
app.config_from_object({"broker_connection_retry_on_startup": True})
instrument(app)
register(app)
