"""An app that sends the standard library's records on to loguru, as many do."""

import logging
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger
from loguru import logger

from tests.live.apps.worker_tasks import register

app = Celery("relayed")
register(app, __name__)


class Relay(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())


def relay(logger: logging.Logger, **_: Any) -> None:
    logger.addHandler(Relay())


after_setup_logger.connect(relay)
after_setup_task_logger.connect(relay)
