"""Results in Redis, under ids that are UUIDs: a typing error of ours was once a key of its own."""

from uuid import UUID

from celery.backends.redis import RedisBackend


class ReportStore(RedisBackend):
    def get_key_for_task(self, task_id, key=""):
        if str(UUID(task_id)) != task_id:
            raise ValueError(f"{task_id} is no UUID of a report")
        return super().get_key_for_task(task_id, key)
