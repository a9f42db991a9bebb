"""The app of a service in a monorepo: its tasks are in a module that only a worker imports."""

from celery import Celery

app = Celery("shop", include=["shop.tasks"])
app.conf.broker_connection_retry_on_startup = True
