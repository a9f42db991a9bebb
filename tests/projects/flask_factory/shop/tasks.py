from celery import shared_task
from flask import current_app


@shared_task(ignore_result=False)
def greet(name: str) -> str:
    return f"{current_app.config['GREETING']}, {name}!"


@shared_task(ignore_result=False)
def whoami() -> str:
    return current_app.config["NOBODY_HAS_SET_THIS"]


@shared_task
def forget(name: str) -> None:
    """Has no result that anybody waits for."""
    current_app.logger.info("forgotten: %s", name)
