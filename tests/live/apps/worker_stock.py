"""An app that knows nothing of manifests: ``celery worker -I pytest_manifest.worker`` does it."""

from celery import Celery

from tests.live.apps.worker_tasks import register

app = Celery("stock")
register(app, __name__)
