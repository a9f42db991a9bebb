"""An app with a result backend class of its own, and one task with a backend of its own."""

import os

from celery import Celery
from celery.backends.redis import RedisBackend

from tests.live.apps.worker_tasks import register


class OwnBackend(RedisBackend):  # type: ignore[misc]  # celery has no types
    """Counts what it stores."""

    stored = 0

    def __init__(self, **options: object) -> None:
        super().__init__(**options | {"url": os.environ["CELERY_BROKER_URL"]})

    def store_result(self, *args: object, **kwargs: object) -> object:
        OwnBackend.stored += 1
        return super().store_result(*args, **kwargs)


app = Celery("own")
register(app, __name__)


def stored_so_far() -> int:
    return OwnBackend.stored


app.task(name="stored_so_far")(stored_so_far)
