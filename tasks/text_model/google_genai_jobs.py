"""Have batch jobs of Gemini done by ``google-genai``. Importing this module loads the SDK."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, TypeVar

from google.genai import types
from pydantic import JsonValue, SecretStr, TypeAdapter, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from tasks.text_model.base import BATCH
from tasks.text_model.failures import EmptyAnswer, MalformedAnswer, ModelFailure
from tasks.text_model.gemini import Usage, http_failure, read_text
from tasks.text_model.gemini_model import Chunk, joined
from tasks.text_model.google_genai import GoogleGenaiModel, call_config, chunk_of
from tasks.text_model.jobs import (
    ENVELOPE,
    JobState,
    KeyedReply,
    KeyedRequest,
    PreparedJob,
    ServiceJob,
)
from tasks.text_model.settings import TextModelSettings

PAGE: Final = 100
TRIES: Final = 4
FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 1.0
"""Tries of a page of the list, and seconds between two of them."""
MIME_TYPE: Final = "application/jsonl"
STATES: Final[Mapping[types.JobState, JobState]] = {
    types.JobState.JOB_STATE_SUCCEEDED: "succeeded",
    types.JobState.JOB_STATE_PARTIALLY_SUCCEEDED: "succeeded",
    types.JobState.JOB_STATE_FAILED: "failed",
    types.JobState.JOB_STATE_CANCELLED: "cancelled",
    types.JobState.JOB_STATE_EXPIRED: "expired",
}
"""The states in which a job stays."""

HTTP_STATUS: Final[Mapping[int, int]] = {
    3: 400,
    4: 504,
    5: 404,
    7: 403,
    8: 429,
    9: 400,
    11: 400,
    13: 500,
    14: 503,
    16: 401,
}
"""The HTTP status for a code of google.rpc, by which a job tells of a failed request."""

T = TypeVar("T")
_LINE: Final = TypeAdapter(dict[str, JsonValue])


class GoogleGenaiJobs(GoogleGenaiModel):
    """The batch jobs of a Gemini model. The SDK repeats nothing that is paid for."""

    def __init__(self, settings: TextModelSettings, key: SecretStr) -> None:
        super().__init__(settings, key)
        self._timeout = settings.times(BATCH).timeout
        self._inline_bytes = settings.inline_bytes
        self._base_url = settings.base_url

    def prepare(self, display_name: str, requests: Sequence[KeyedRequest]) -> PreparedJob:
        """Send a file of the requests, where they are too many to be sent with the job."""
        lines = [self._line(one) for one in requests]
        if sum(map(len, lines)) <= self._inline_bytes:
            return PreparedJob(display_name, tuple(requests))
        config = types.UploadFileConfig(
            display_name=display_name, mime_type=MIME_TYPE, http_options=self._options()
        )
        content = b"".join(lines)
        sent = self._try(lambda: self._client.files.upload(file=io.BytesIO(content), config=config))
        if not sent.name:  # without one its requests would be sent inline
            raise MalformedAnswer("the service told of a file without its name; ask again")
        return PreparedJob(display_name, tuple(requests), sent.name)

    def create(self, prepared: PreparedJob) -> ServiceJob:
        """Create a job by one call."""
        if prepared.file is not None:
            source = types.BatchJobSource(file_name=prepared.file)
        else:
            inlined = [self._inlined(one) for one in prepared.requests]
            source = types.BatchJobSource(inlined_requests=inlined)
        config = types.CreateBatchJobConfig(
            display_name=prepared.display_name, http_options=self._options()
        )
        batches = self._client.batches
        return self._try(lambda: _job(batches.create(model=self.name, src=source, config=config)))

    def get(self, name: str) -> ServiceJob:
        """Return a job as it is now."""
        return self._try(lambda: _job(self._job(name)))

    def named(self, display_name: str) -> list[ServiceJob]:
        """Return all jobs of this display name, the oldest first: the list has no filter."""
        found = self._listed(display_name)
        return sorted(
            found, key=lambda one: one.created or datetime.min.replace(tzinfo=timezone.utc)
        )

    def replies(self, name: str) -> list[KeyedReply]:
        """Return what has come of a job that has ended: none, where it has no answers."""
        return self._try(lambda: self._replies(name))

    def cancel(self, name: str) -> None:
        """Ask for a job's end."""
        config = types.CancelBatchJobConfig(http_options=self._options())
        self._try(lambda: self._client.batches.cancel(name=name, config=config))

    def _options(self) -> types.HttpOptions:
        # With the base URL, as the SDK would else send a file wherever the service says.
        return types.HttpOptions(timeout=math.ceil(self._timeout * 1000), base_url=self._base_url)

    def _job(self, name: str) -> types.BatchJob:
        config = types.GetBatchJobConfig(http_options=self._options())
        return self._client.batches.get(name=name, config=config)

    def _listed(self, display_name: str) -> list[ServiceJob]:
        """Return the jobs of this display name, of all pages of the list."""
        config = types.ListBatchJobsConfig(page_size=PAGE, http_options=self._options())
        pages = self._again(lambda: self._client.batches.list(config=config))
        found: list[ServiceJob] = []
        seen: set[str] = set()
        # Not by the SDK's iteration, which fails at a page without jobs that others follow.
        while True:
            found += [_job(one) for one in pages.page if one.display_name == display_name]
            following = str(pages.config.get("page_token") or "")
            if not following:
                return found
            if following in seen:
                said = "the service's list of batch jobs has no end; ask again"
                raise MalformedAnswer(said)
            seen.add(following)
            self._again(pages.next_page)

    def _inlined(self, one: KeyedRequest) -> types.InlinedRequest:
        return types.InlinedRequest(
            contents=[types.Content(role="user", parts=[types.Part(text=one.request.prompt)])],
            metadata={"key": one.key},
            config=call_config(one.request, self._parameters),
        )

    def _line(self, one: KeyedRequest) -> bytes:
        """Return the line of a file that stands for a request, as REST has it."""
        config = call_config(one.request, self._parameters)
        names = types.GenerationConfig.model_fields.keys()
        generation = types.GenerationConfig.model_validate(
            {name: value for name, value in config if name in names and value is not None}
        )
        request = {
            "contents": [{"role": "user", "parts": [{"text": one.request.prompt}]}],
            "systemInstruction": {"role": "user", "parts": [{"text": one.request.instructions}]},
            "generationConfig": generation.model_dump(
                mode="json", by_alias=True, exclude_none=True
            ),
        }
        line = json.dumps({"key": one.key, "request": request}, ensure_ascii=False)
        return f"{line}\n".encode()

    def _replies(self, name: str) -> list[KeyedReply]:
        found = self._job(name).dest
        if found is None:
            return []
        if found.file_name is None:
            return [self._of_inlined(one) for one in found.inlined_responses or []]
        config = types.DownloadFileConfig(http_options=self._options())
        content = self._client.files.download(file=found.file_name, config=config)
        return [self._of_line(line) for line in content.splitlines() if line.strip()]

    def _of_inlined(self, one: types.InlinedResponse) -> KeyedReply:
        key = (one.metadata or {}).get("key", "")
        if one.error is not None:
            return KeyedReply(key, failure=self._of_error(one.error.code, one.error.message))
        return self._read(key, None if one.response is None else chunk_of(one.response))

    def _of_line(self, line: bytes) -> KeyedReply:
        try:
            told = _LINE.validate_json(line)
        except ValidationError:
            said = f"{self.name} sent a line of answers that is no JSON object; ask again"
            return KeyedReply("", failure=MalformedAnswer(said))
        key, error, response = (told.get(name) for name in ("key", "error", "response"))
        named = key if isinstance(key, str) else ""
        if isinstance(error, dict):
            return KeyedReply(
                named, failure=self._of_error(error.get("code"), error.get("message"))
            )
        return self._read(named, _chunk_of_json(response) if isinstance(response, dict) else None)

    def _of_error(self, code: JsonValue, said: JsonValue) -> ModelFailure:
        number = code if isinstance(code, int) else 500
        status = HTTP_STATUS.get(number, number if number >= 400 else 500)
        return http_failure(status, {"error": {"message": said}}, model=self.name, key=self._key)

    def _read(self, key: str, chunk: Chunk | None) -> KeyedReply:
        if chunk is None:
            said = f"{self.name} sent neither an answer nor an error; ask it again"
            return KeyedReply(key, failure=EmptyAnswer(said))
        try:
            return KeyedReply(key, read_text(joined([chunk], BATCH), ENVELOPE))
        except ModelFailure as failure:
            return KeyedReply(key, failure=failure)

    def _again(self, action: Callable[[], T]) -> T:
        """Do it, a few times where the service is away: of a long list each page may be.

        Only what is not paid for.
        """
        retrying = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            retry=retry_if_exception(lambda e: isinstance(e, ModelFailure) and e.retryable),
            reraise=True,
        )
        found: T = retrying(self._try, action)
        return found

    def _try(self, action: Callable[[], T]) -> T:
        """Do it, and raise the failure that an exception of the SDK stands for."""
        failure: ModelFailure
        try:
            return action()
        except ModelFailure as error:
            failure = error
        except Exception as error:
            found = self._failure(error, self._timeout)
            if found is None:
                raise
            failure = found
        # Outside the handler: the SDK's exception holds the request, and that the key.
        raise failure


def _job(told: types.BatchJob) -> ServiceJob:
    """Read a job. Raises MalformedAnswer where it has no name, by which alone it can be had."""
    if not told.name:
        raise MalformedAnswer("the service told of a batch job without its name; ask again")
    state = STATES.get(told.state, "waiting") if told.state is not None else "waiting"
    return ServiceJob(told.name, told.display_name or "", state, told.create_time)


def _chunk_of_json(response: Mapping[str, JsonValue]) -> Chunk:
    """Read a response of a file, which the SDK leaves as it is."""
    candidates = response.get("candidates")
    candidate = _member(candidates[0] if isinstance(candidates, list) and candidates else None)
    parts = _member(candidate.get("content")).get("parts")
    texts = [_member(part) for part in parts] if isinstance(parts, list) else []
    block = _member(response.get("promptFeedback")).get("blockReason")
    return Chunk(
        text="".join(
            part
            for one in texts
            if isinstance(part := one.get("text"), str) and not one.get("thought")
        ),
        finish_reason=str(candidate.get("finishReason") or ""),
        block_reason=str(block or ""),
        usage=_usage_of_json(_member(response.get("usageMetadata"))),
        model=str(response.get("modelVersion") or ""),
    )


def _usage_of_json(counts: Mapping[str, JsonValue]) -> Usage:
    def count(name: str) -> int:
        value = counts.get(name)
        return value if isinstance(value, int) else 0

    answer = count("candidatesTokenCount") + count("thoughtsTokenCount")
    cached = count("cachedContentTokenCount")
    return Usage(count("promptTokenCount"), answer, count("totalTokenCount"), cached)


def _member(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}
