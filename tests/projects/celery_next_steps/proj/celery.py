"""In the shape of Celery's examples/next-steps: a package with its app and tasks."""

from celery import Celery

app = Celery("proj", broker="amqp://", backend="rpc://", include=["proj.tasks"])

# Optional configuration, see the application user guide.
app.conf.update(
    result_expires=3600,
)

if __name__ == "__main__":
    app.start()
