from celery.result import AsyncResult
from fastapi import FastAPI

from app.models import Order
from app.worker import celery, invoice

api = FastAPI()


@api.post("/invoices", status_code=202)
def begin(order: Order) -> dict[str, str]:
    return {"id": invoice.delay(order.model_dump(mode="json")).id}


@api.get("/invoices/{task_id}")
def look(task_id: str) -> dict[str, object]:
    result = AsyncResult(task_id, app=celery)
    return {"state": result.state, "result": result.result if result.successful() else None}
