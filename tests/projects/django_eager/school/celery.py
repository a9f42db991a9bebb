"""The class of tasks imports a model, which needs Django to be set up."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "school.settings")

app = Celery("school", task_cls="audit.base:AuditedTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.broker_connection_retry_on_startup = True
app.autodiscover_tasks()


@app.task
def ring() -> str:
    """A task of the app's own module, which is made as soon as the app is looked at."""
    return "ding"
