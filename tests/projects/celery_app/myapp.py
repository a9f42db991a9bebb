"""In the shape of Celery's examples/app: an application in one module, which is its program, too.

    $ celery -A myapp worker -l INFO
"""

from celery import Celery

app = Celery(
    "myapp",
    broker="amqp://guest@localhost//",
    # ## add result backend here if needed.
    # backend="rpc"
)


@app.task
def add(x, y):
    return x + y


if __name__ == "__main__":
    app.start()
