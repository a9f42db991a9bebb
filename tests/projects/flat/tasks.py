"""The app of Celery's first steps: one module with all of it."""

from celery import Celery

app = Celery("tasks", broker="redis://localhost:6379/0", backend="redis://localhost:6379/1")


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, max_retries=3)
def fetch(self, page):
    """Give up twice, then have it."""
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError(f"page {page} is not there yet"), countdown=0)
    return {"page": page, "tries": self.request.retries + 1}


@app.task
def divide(x, y):
    return x / y
