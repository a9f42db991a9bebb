"""An app that knows nothing of manifests: ``celery worker -I pytest_manifest.worker`` does it."""

from celery import Celery

from tests.live.apps.worker_tasks import register

app = Celery("stock")
app.conf.update(broker_connection_retry_on_startup=True)
register(app)
