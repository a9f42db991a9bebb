from celery import Task, shared_task

from shop.tenants import OnceTask


def whose(task: Task) -> str | None:
    tenant: str | None = getattr(task.request, "tenant", None)
    return tenant


@shared_task(bind=True)
def bill(self: Task, order: int) -> dict[str, object]:
    return {"order": order, "tenant": whose(self)}


@shared_task(bind=True, base=OnceTask)
def tidy(self: Task, shelf: str) -> dict[str, object]:
    self.lock([shelf]).unlink()
    return {"shelf": shelf, "tenant": whose(self)}
