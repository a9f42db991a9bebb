"""What a worker would report of a job, made of the message that carries it: true, but for the job.

Whoever reads the broker can make them, as all that they hold is in the message or in the code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final, cast

import redis

from pytest_manifest.schema import wire
from pytest_manifest.schema.wire import code_digest
from pytest_manifest.worker.receipt import encode, encode_signed, finished_record
from tests.forgeries.app import work

Fields = dict[str, Any]
TASK: Final = "forged.work"
TRUE: Final = "e0e0e0e0e0e0e0e0"
"""The execution that a true worker reports."""
FORGED: Final = "f0f0f0f0f0f0f0f0"


@dataclass(frozen=True)
class Job:
    """A job as its message says it is."""

    run: str
    entry: str
    attempt: int
    task_id: str
    sent_at: str
    stream: str
    n: int

    @property
    def value(self) -> Fields:
        """What the entry expects the job to return."""
        return {"n": self.n}

    def moment(self, seconds: float) -> str:
        """So long after it was sent."""
        sent = wire.parse_moment(self.sent_at)
        return wire.timestamp(sent + timedelta(seconds=seconds))

    def start(self, execution: str = FORGED, **fields: object) -> Fields:
        """The record of its start."""
        return {
            "kind": "started",
            "run": self.run,
            "entry": self.entry,
            "attempt": self.attempt,
            "task_id": self.task_id,
            "task": TASK,
            "worker": "w@h",
            "host": "h",
            "pid": 77,
            "queue": "celery",
            "sent_at": self.sent_at,
            "received_at": self.moment(0.01),
            "started_at": self.moment(0.02),
            "redelivered": False,
            "retries": 0,
            "hop": 0,
            "execution": execution,
            **fields,
        }

    def receipt(self, **fields: object) -> Fields:
        """The receipt of its success."""
        return {
            "receipt": 1,
            "run": self.run,
            "entry": self.entry,
            "attempt": self.attempt,
            "task_id": self.task_id,
            "task": TASK,
            "state": "succeeded",
            "source": "worker",
            "result": self.value,
            "error": None,
            "worker": "w@h",
            "host": "h",
            "pid": 77,
            "queue": "celery",
            "sent_at": self.sent_at,
            "received_at": self.moment(0.01),
            "started_at": self.moment(0.02),
            "finished_at": self.moment(0.03),
            "wait": 0.02,
            "runtime": 0.01,
            "executions": 1,
            "code": code_digest(work),
            "args_sha256": wire.arguments_sha256([], self.value),
            "result_sha256": wire.json_sha256(self.value),
            "cpu": 0.01,
            **fields,
        }

    def failure(self) -> Fields:
        """The receipt of its failure."""
        error = {"type": "ValueError", "message": "no", "traceback": None}
        return self.receipt(state="failed", result=None, result_sha256=None, error=error)

    def finished(self, execution: str = FORGED, **fields: object) -> Fields:
        """The record of its success, with these fields in its receipt."""
        return {"kind": "finished", "execution": execution, "receipt": self.receipt(**fields)}

    def signed(self, receipt: Fields, execution: str = TRUE) -> Fields:
        """The record of an end as the worker writes it, with its signature where it has a key."""
        document: Fields = json.loads(finished_record(execution, receipt))
        return document

    def signed_start(self, execution: str = TRUE) -> Fields:
        """The record of its start as the worker writes it."""
        document: Fields = json.loads(encode_signed(self.start(execution)))
        return document


class Publisher:
    """Whoever can write to the run's stream and its result store."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def jobs(self, queue: str = "celery") -> dict[str, Job]:
        """The jobs whose messages wait in a queue, by entry."""
        found = {}
        for text in cast("list[bytes]", self.client.lrange(queue, 0, -1)):
            message = json.loads(text)
            headers = message["headers"]
            kwargs = json.loads(base64.b64decode(message["body"]))[1]
            found[headers["manifest_entry"]] = Job(
                headers["manifest_run"],
                headers["manifest_entry"],
                headers["manifest_attempt"],
                headers["id"],
                headers["manifest_sent_at"],
                headers["manifest_stream"],
                kwargs["n"],
            )
        return found

    def push(self, job: Job, *records: Mapping[str, Any] | bytes) -> None:
        """Add records to the stream of the job's run."""
        for record in records:
            text = record if isinstance(record, bytes) else encode(dict(record))
            self.client.xadd(job.stream, {"r": text})

    def store(self, job: Job, status: str = "SUCCESS", **fields: object) -> None:
        """Put a result of the job into the store, as Celery does."""
        meta = {
            "status": status,
            "result": job.value,
            "traceback": None,
            "children": [],
            "date_done": datetime.now(timezone.utc).isoformat(),
            "task_id": job.task_id,
            **fields,
        }
        self.client.set(f"celery-task-meta-{job.task_id}", json.dumps(meta))

    def fail_stored(self, job: Job, kind: str, status: str = "FAILURE") -> None:
        """Put a failure of this kind into the store."""
        result = {"exc_type": kind, "exc_message": ["x"], "exc_module": "billiard.exceptions"}
        self.store(job, status, result=result)

    def drop_messages(self, queue: str = "celery") -> None:
        """Take all jobs away from their workers."""
        self.client.delete(queue)
