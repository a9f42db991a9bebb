"""The app as the project's own command has it: with its storage."""

from notes.celery import app
from notes.storage import Storage

app.make_storage = Storage
