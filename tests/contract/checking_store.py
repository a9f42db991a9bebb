"""A result store that knows nothing but UUIDs, as stores with a column of that type do."""

from __future__ import annotations

from uuid import UUID

from celery.backends.redis import RedisBackend


class CheckingStore(RedisBackend):  # type: ignore[misc]  # Celery ships no types
    """Refuses whatever else is stored under, or asked for by."""

    def get_key_for_task(self, task_id: str | bytes, key: str = "") -> bytes:
        """Name the key of a task's result; ValueError for an id that is no UUID."""
        text = task_id.decode() if isinstance(task_id, bytes) else task_id
        if str(UUID(text)) != text:
            raise ValueError(f"{text!r} is no UUID as it is written")
        name: bytes = super().get_key_for_task(task_id, key)
        return name
