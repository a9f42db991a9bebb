"""An app with the one line, before its configuration, and with a backend made too early."""

from celery import Celery

from pytest_manifest.worker import instrument
from tests.live.apps.worker_tasks import register

app = Celery("instrumented")
early = app.backend
instrument(app)
app.config_from_object({"task_default_queue": "celery"})
instrument(app)
register(app, __name__)
