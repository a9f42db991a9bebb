import os

from celery import Celery

from app.models import Invoice, Order

celery = Celery(
    __name__,
    broker=os.environ.get("BROKER", "redis://localhost:6379/0"),
    backend=os.environ.get("BACKEND", "redis://localhost:6379/0"),
)


@celery.task(pydantic=True)
def invoice(order: Order) -> Invoice:
    return Invoice(item=order.item, total=order.count * order.price)


@celery.task(pydantic=True, pydantic_strict=True)
def repeat(text: str, times: int) -> str:
    return text * times
