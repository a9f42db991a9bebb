from flask import Blueprint, request

from shop import tasks

bp = Blueprint("greetings", __name__)


@bp.post("/greet")
def greet() -> dict[str, object]:
    result = tasks.greet.delay(request.form["name"])
    return {"result_id": result.id}
