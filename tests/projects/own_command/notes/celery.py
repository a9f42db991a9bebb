"""An app whose own command gives it its storage, and which stores a task's work after its end."""

from celery import Celery, signals

app = Celery("notes", include=["notes.tasks"])


@signals.worker_init.connect
def open_storage(sender, **_):
    sender.app.storage = sender.app.make_storage()


@signals.task_prerun.connect
def forget(sender, **_):
    sender.app.storage.begin()


@signals.task_success.connect
def commit(sender, **_):
    sender.app.storage.commit()
