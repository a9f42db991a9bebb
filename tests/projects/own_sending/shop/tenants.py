"""Classes of tasks with an ``apply_async`` of their own, as in public packages."""

from pathlib import Path
from typing import Any

from celery import Task
from celery.result import AsyncResult

LOCKS = Path("locks")


class TenantTask(Task):
    """Add the header of the present tenant, as tenant-schemas-celery does."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        headers = options.get("headers") or {}
        options["headers"] = {"tenant": "tea-house", **headers}
        return super().apply_async(args, kwargs, *more, **options)


class OnceTask(TenantTask):
    """Send no second job of the same arguments before the first has ended, as celery-singleton."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        LOCKS.mkdir(exist_ok=True)
        lock = self.lock(args)
        if lock.exists():
            return AsyncResult(lock.read_text(), app=self.app)
        result = super().apply_async(args, kwargs, **options)
        lock.write_text(result.id)
        return result

    def lock(self, args: Any) -> Path:
        return LOCKS / "-".join(map(str, args))
