"""The app of a shop with tenants: whose job it is travels with the message."""

from celery import Celery

app = Celery("shop", task_cls="shop.tenants:TenantTask", include=["shop.tasks"])
app.conf.broker_connection_retry_on_startup = True
