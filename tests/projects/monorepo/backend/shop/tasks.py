"""Tasks that say themselves where their messages go, and how."""

from typing import Any

from celery import Task, shared_task
from celery.signals import before_task_publish


@before_task_publish.connect
def add_tenant(headers: dict[str, Any], **_: object) -> None:
    headers["tenant"] = "tea-house"


def how_it_was_sent(task: Task) -> dict[str, object]:
    request = task.request
    return {
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "expires": request.expires is not None,
        "limits": request.timelimit,
        "shadow": request.shadow,
        "tenant": getattr(request, "tenant", None),
    }


@shared_task(bind=True, queue="mails", priority=3, expires=600, compression="zlib", time_limit=20)
def confirm(self: Task, order: int) -> dict[str, object]:
    return {"order": order, **how_it_was_sent(self)}


def shown_as(_task: Task, _args: object, _kwargs: object, _options: object) -> str:
    return "a count"


@shared_task(bind=True, shadow_name=shown_as)
def count(self: Task) -> dict[str, object]:
    return how_it_was_sent(self)
