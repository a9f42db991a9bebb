"""A shop whose jobs may run for half an hour, as its nightly reports do."""

from celery import Celery

app = Celery("shop")
app.conf.task_time_limit = 30 * 60
app.conf.task_acks_late = True


@app.task
def report(month: int) -> str:
    return f"month {month}"


@app.task
def mail(customer: int) -> int:
    return customer
