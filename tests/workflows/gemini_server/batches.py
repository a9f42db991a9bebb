"""Batch jobs and files of the service, and what goes wrong with them.

A job is answered, and billed, where it is created, and is told of as waiting for some polls more.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Final

from pydantic import JsonValue

from tests.workflows.gemini_server import answers, bodies, parameters
from tests.workflows.gemini_server.answers import Json
from tests.workflows.gemini_server.billing import answering, usage_of
from tests.workflows.gemini_server.desk import Call, Desk
from tests.workflows.gemini_server.script import Fault, JobFault

CREATE: Final = re.compile(r"^/v1beta/models/(?P<model>[^:/]+):batchGenerateContent$")
ONE: Final = re.compile(r"^/v1beta/batches/(?P<id>[^:/]+)(?P<cancel>:cancel)?$")
LIST: Final = "/v1beta/batches"
UPLOAD: Final = "/upload/v1beta/files"
DOWNLOAD: Final = re.compile(r"^/v1beta/files/(?P<id>[^:/]+):download$")
TYPE: Final = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"

LATE: Final = frozenset({"lost", "lost_late"})
UNSEEN_POLLS: Final = 2
"""Questions for a job of ``unseen`` that are answered by not knowing it."""
LATE_LISTS: Final = 3
"""Lists in which a job of ``lost_late`` is not there yet."""

RPC_CODES: Final[Mapping[int, int]] = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    429: 8,
    500: 13,
    502: 13,
    503: 14,
    504: 4,
}
UNANSWERED: Final = frozenset({"expired", "failed", "stuck", "cancelled"})
ENDS: Final[Mapping[JobFault, str]] = {
    "expired": "BATCH_STATE_EXPIRED",
    "failed": "BATCH_STATE_FAILED",
    "cancelled": "BATCH_STATE_CANCELLED",
}


@dataclass(slots=True)
class Served:
    """A response to be sent; None as document resets the connection."""

    status: int
    document: Json | bytes | None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Job:
    """A job. ``rows`` are its answers as they will be told; ``texts`` what it was asked about."""

    name: str
    display_name: str
    model: str
    fault: JobFault
    in_file: bool
    created: datetime
    rows: list[Json] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    requests: list[Json] = field(default_factory=list)
    polls: int = 0
    hidden: int = 0
    cancelled: bool = False


class JobDesk:
    """Keeps jobs and files. Thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.RLock()
        self._uploads: dict[str, Json] = {}
        self._files: dict[str, bytes] = {}
        self._served = 0
        self._asked = 0
        self.jobs: list[Job] = []
        self.seen: Counter[str] = Counter()

    def serve(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        raw: bytes,
    ) -> Served | None:
        """Serve a request; None where the path is none of jobs and files."""
        action = self._action(method, path, query, headers, raw)
        if action is None:
            return None
        with self._lock:
            name, do = action
            self.seen[name] += 1
            if headers.get("x-goog-api-key") != self._desk.key and name != "send":
                return Served(*bodies.error_body(Fault(kind="unauthorized"), "jobs"))
            self._served += 1
            away = random.Random(f"away:{self._desk.script.seed}:{self._served}").random()
            if name != "create" and away < self._desk.script.jobs.away:
                return Served(*bodies.error_body(Fault(kind="unavailable"), "jobs"))
            return do()

    def _action(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        raw: bytes,
    ) -> tuple[str, Callable[[], Served]] | None:
        if method == "POST" and (found := CREATE.match(path)):
            return "create", lambda: self._create(found["model"], json.loads(raw)["batch"])
        if method == "POST" and path == UPLOAD:
            if headers.get("x-goog-upload-command") == "start":
                return "upload", lambda: self._begin_upload(raw, headers)
            return "send", lambda: self._end_upload(query["upload_id"][0], raw)
        if method == "GET" and path == LIST:
            return "list", lambda: self._list(query)
        if found := ONE.match(path):
            name = f"batches/{found['id']}"
            if method == "POST" and found["cancel"]:
                return "cancel", lambda: self._cancel(name)
            return "get", lambda: self._get(name)
        if method == "GET" and (found := DOWNLOAD.match(path)):
            return "download", lambda: self._download(f"files/{found['id']}")
        return None

    # Files

    def _begin_upload(self, raw: bytes, headers: Mapping[str, str]) -> Served:
        number = str(len(self._uploads) + 1)
        size = headers["x-goog-upload-header-content-length"]
        given = json.loads(raw)["file"]  # the SDK writes its names with underscores
        self._uploads[number] = {
            "displayName": given["display_name"],
            "mimeType": given["mime_type"],
            "sizeBytes": size,
        }
        url = f"http://{headers['host']}{UPLOAD}?upload_id={number}&upload_protocol=resumable"
        return Served(200, {}, {"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})

    def _end_upload(self, number: str, raw: bytes) -> Served:
        name = f"files/up{number}"
        assert int(str(self._uploads[number]["sizeBytes"])) == len(raw)
        self._files[name] = raw
        told: Json = {"file": {**self._uploads[number], "name": name, "state": "ACTIVE"}}
        return Served(200, told, {"X-Goog-Upload-Status": "final"})

    def _download(self, name: str) -> Served:
        content = self._files.get(name)
        if content is None or not name.startswith("files/batch-"):
            return _not_found(name)
        return Served(200, content)

    # Jobs

    def _create(self, model: str, batch: Json) -> Served:
        given, in_file = self._requests(batch["inputConfig"])
        number = len(self.jobs)
        job = Job(
            f"batches/j{number}x{random.Random(number).randrange(10**9)}",
            str(batch["displayName"]),
            model,
            self._desk.script.jobs.fault(number),
            in_file,
            datetime.now(timezone.utc) + timedelta(microseconds=number),
            keys=[key for key, _ in given],
            requests=[request for _, request in given],
        )
        if job.fault == "refused":
            job.hidden = -1
            self.jobs.append(job)
            return Served(*bodies.error_body(Fault(kind="rate_limited"), model))
        if job.fault == "vanished":  # the connection breaks before the service has read it
            job.hidden = -1
            self.jobs.append(job)
            return Served(0, None)
        if job.fault not in UNANSWERED:
            gone = len(given) // 2 if job.fault == "missing" else -1
            job.rows = [
                self._answer(job, key, request)
                for place, (key, request) in enumerate(given)
                if place != gone
            ]
            self._mar(job)
        job.hidden = LATE_LISTS if job.fault == "lost_late" else 0
        self.jobs.append(job)
        if job.fault == "unnamed":
            return Served(200, {})
        return Served(0, None) if job.fault in LATE else Served(200, self._told(job))

    def _requests(self, source: JsonValue) -> tuple[list[tuple[str, Json]], bool]:
        assert isinstance(source, dict)
        if "fileName" in source:
            lines = self._files[str(source["fileName"])].decode().splitlines()
            rows = [json.loads(line) for line in lines]
            return [(str(row["key"]), row["request"]) for row in rows], True
        rows = json.loads(json.dumps(source["requests"]))["requests"]
        return [(str(row["metadata"]["key"]), row["request"]) for row in rows], False

    def _answer(self, job: Job, key: str, request: Json) -> Json:
        """Answer one request as generateContent would, and bill it."""
        fault = self._desk.script.jobs.request_fault(self._asked)
        self._asked += 1
        asked = answers.read_request(request)
        poisoned = [
            (one, self._desk.script.poisoned(asked.texts.get(one, ""))) for one in asked.keys
        ]
        sick = [(one, found) for one, found in poisoned if found is not None]
        if fault.kind == "ok" and sick:
            fault = sick[0][1]
        call = Call(0, "batch", job.model, fault.kind, asked.keys, tier="batch", request=request)
        refused = parameters.refused(job.model, request)
        if refused is not None:
            return {"key": key, "error": {"code": 3, "message": refused}}
        if fault.kind in bodies.ERRORS:
            call.status, document = bodies.error_body(fault, job.model)
            self._desk.note(call)
            error = document["error"]
            assert isinstance(error, dict)
            return {"key": key, "error": {**error, "code": RPC_CODES[call.status]}}
        text, finish = answers.written(fault, asked, [one for one, _ in sick])
        call.status, call.answered = 200, answering(job.model, fault)
        usage = usage_of(call, asked, text, self._desk.script)
        self._desk.note(call)
        if fault.kind == "blocked_prompt":
            whole = bodies.blocked_prompt(fault.reason, usage, call.answered, numbers=False)
        elif fault.kind == "empty":
            whole = {"usageMetadata": usage, "modelVersion": call.answered}
        else:
            whole = bodies.response(text, usage=usage, model=call.answered, finish=finish)
        return {"key": key, "response": whole}

    def _mar(self, job: Job) -> None:
        """Do to a job's answers what its fault says; what was answered is billed all the same."""
        rows, last = job.rows, len(job.rows) - 1
        if job.fault == "swapped" and last > 0:
            rows[0]["key"], rows[last]["key"] = rows[last]["key"], rows[0]["key"]
        elif job.fault == "doubled":
            rows.append(self._answer(job, str(rows[0]["key"]), job.requests[0]))
        elif job.fault == "foreign":
            rows.append(self._answer(job, "nobody-0", job.requests[0]))
        elif job.fault == "no_keys":
            for row in rows:
                row["key"] = ""
        elif job.fault == "shuffled":
            rows.reverse()

    def _told(self, job: Job) -> Json:
        """A job as an operation: where it has ended, with its answers."""
        state = "BATCH_STATE_PENDING" if job.polls == 0 else "BATCH_STATE_RUNNING"
        metadata: Json = {
            "@type": TYPE,
            "name": job.name,
            "model": f"models/{job.model}",
            "displayName": job.display_name,
            "createTime": job.created.isoformat().replace("+00:00", "Z"),
            "batchStats": {"requestCount": str(len(job.keys))},
        }
        has_ended = self._has_ended(job)
        if has_ended or job.cancelled:
            state = ENDS.get(job.fault, "BATCH_STATE_SUCCEEDED")
            if job.cancelled and not has_ended:
                state = "BATCH_STATE_CANCELLED"
            elif state == "BATCH_STATE_SUCCEEDED":
                metadata["output"] = self._output(job)
        return {"name": job.name, "metadata": {**metadata, "state": state}}

    def _has_ended(self, job: Job) -> bool:
        return job.polls > self._desk.script.jobs.polls and job.fault != "stuck"

    def _output(self, job: Job) -> Json:
        if job.in_file:
            name = f"files/batch-{job.name.partition('/')[2]}"
            lines = [json.dumps(row, ensure_ascii=False) for row in job.rows]
            self._files[name] = "".join(f"{line}\n" for line in lines).encode()
            return {"responsesFile": name}
        told: list[JsonValue] = [
            {name: value for name, value in row.items() if name != "key"}
            | ({"metadata": {"key": row["key"]}} if row["key"] else {})
            for row in job.rows
        ]
        return {"inlinedResponses": {"inlinedResponses": told}}

    def _get(self, name: str) -> Served:
        job = next((one for one in self.jobs if one.name == name and one.hidden >= 0), None)
        if job is None:
            return _not_found(name)
        job.polls += 1
        if job.fault == "unseen" and job.polls <= UNSEEN_POLLS:
            return _not_found(name)
        return Served(200, self._told(job))

    def _list(self, query: Mapping[str, list[str]]) -> Served:
        """The newest first, so many on a page as the script has, whatever was asked for."""
        for job in self.jobs:
            job.hidden -= job.hidden > 0
        there = [job for job in reversed(self.jobs) if job.hidden == 0]
        script = self._desk.script.jobs
        token = query.get("pageToken", ["0"])[0]
        if script.hollow and not token.startswith("past-"):
            return Served(200, {"nextPageToken": f"past-{token}"})
        start = int(token.removeprefix("past-"))
        end = start + script.page
        document: Json = {"operations": [self._told(job) for job in there[start:end]]}
        if not there:
            document = {}
        if end < len(there) or script.endless:
            document["nextPageToken"] = str(end if end < len(there) else 0)
        return Served(200, document)

    def _cancel(self, name: str) -> Served:
        job = next((one for one in self.jobs if one.name == name), None)
        if job is None:
            return _not_found(name)
        if self._has_ended(job):
            said = f"{name} has ended and cannot be cancelled."
            error: Json = {"code": 400, "message": said, "status": "FAILED_PRECONDITION"}
            return Served(400, {"error": error})
        job.cancelled = True
        return Served(200, {})


def _not_found(name: str) -> Served:
    said = f"Requested entity {name} was not found."
    return Served(404, {"error": {"code": 404, "message": said, "status": "NOT_FOUND"}})
