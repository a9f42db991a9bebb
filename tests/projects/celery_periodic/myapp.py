"""In the shape of Celery's examples/periodic-tasks: one task, which beat sends every few seconds.

    $ celery -A myapp beat
    $ celery -A myapp worker -l INFO
"""

from celery import Celery

app = Celery(
    "myapp",
    broker="amqp://guest@localhost//",
)

app.conf.timezone = "UTC"


@app.task
def say(what):
    print(what)


@app.on_after_configure.connect
def setup_periodic_tasks(sender, **kwargs):
    # Calls say('hello') every 10 seconds.
    sender.add_periodic_task(10.0, say.s("hello"), name="add every 10")
    # See periodic tasks user guide for more examples.


if __name__ == "__main__":
    app.start()
