from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task(bind=True, autoretry_for=(TimeoutError,), retry_backoff=False, default_retry_delay=0)
def confirm(self, order):
    logger.info("confirming order %s", order)
    if self.request.retries == 0:
        raise TimeoutError("the mail server is busy")
    return {"order": order, "queue": self.request.delivery_info["routing_key"]}
