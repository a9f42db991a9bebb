"""Reports that are carried out once each, by an id that is a UUID everywhere."""

from celery import Celery

app = Celery("reports", backend="reports.store:ReportStore+redis://localhost:6379/1")
app.autodiscover_tasks(["reports"])
