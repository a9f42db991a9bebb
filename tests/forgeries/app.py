"""The app whose jobs are forged: no worker runs it."""

from __future__ import annotations

from celery import Celery

app = Celery("forged", set_as_current=False)


@app.task(name="forged.work", shared=False)  # type: ignore[untyped-decorator]  # celery has no types
def work(n: int) -> dict[str, int]:
    """Return what each entry expects."""
    return {"n": n}
