import sqlite3
from pathlib import Path
from uuid import UUID

from celery import shared_task

LOG = Path(__file__).parents[1] / "log.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS log (id VARCHAR(36) PRIMARY KEY CHECK (length(id) <= 36), what)"


@shared_task(bind=True)
def execute(self, report):
    """Write down that a report was carried out, by the id of its execution."""
    execution = UUID(self.request.id)
    with sqlite3.connect(LOG) as log:
        log.execute(TABLE)
        log.execute("INSERT INTO log VALUES (?, ?)", (str(execution), report))
    return str(execution) == self.request.id


@shared_task
def retract(report):
    raise LookupError(f"{report} was never sent")
