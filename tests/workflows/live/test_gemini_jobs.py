"""Batch jobs by the real SDK, against a server that speaks the wire format of jobs and files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import JsonValue

from tasks.text_model import failures
from tasks.text_model.base import BATCH, TextRequest
from tasks.text_model.choosing import open_jobs
from tasks.text_model.failures import ModelFailure, TextModelError
from tasks.text_model.jobs import BatchJobs, KeyedReply, KeyedRequest, ServiceJob
from tasks.text_model.settings import DEFAULT_GEMINI, GOOGLE_GENAI, GOOGLE_GENERATIVEAI
from tests.workflows.gemini_server import KEY, GeminiServer
from tests.workflows.gemini_server.batches import Served
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.gemini_support import server as server
from tests.workflows.gemini_support import settings_of
from tests.workflows.text_models import CLASSES
from tests.workflows.text_requests import text_request

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]

FORMS = {"inline": 10_000_000, "file": 0}
"""The most bytes of an inline job, by the form that this has three requests sent in."""


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def jobs(form: str, server: GeminiServer) -> Iterator[BatchJobs]:
    opened = open_jobs(settings_of(GOOGLE_GENAI, server.url, inline_bytes=FORMS[form]))
    yield opened
    opened.close()


def requests(number: int = 3) -> list[KeyedRequest]:
    """Requests whose answers bring back a key and a digest."""
    return [
        KeyedRequest(f"k-{place}", enveloped(f"k-{place}", f"d-{place}")) for place in range(number)
    ]


def enveloped(key: str, digest: str) -> TextRequest:
    """A request whose schema has the members of a batch answer."""
    plain = text_request({f"{key}-1": f"text of {key}"})
    properties = plain.schema["properties"]
    assert isinstance(properties, dict)
    more: dict[str, JsonValue] = {
        "request": {"type": "string", "enum": [key]},
        "digest": {"type": "string", "enum": [digest]},
    }
    required: list[JsonValue] = ["request", "digest", "items"]
    schema = {**plain.schema, "properties": {**more, **properties}, "required": required}
    return replace(plain, schema=schema, tier=BATCH)


def ended(jobs: BatchJobs, name: str) -> ServiceJob:
    """The job once it has ended; the server counts polls, not seconds."""
    for _ in range(5):
        job = jobs.get(name)
        if job.has_ended:
            return job
    raise AssertionError("the job has not ended")


def create(jobs: BatchJobs, display_name: str, asked: list[KeyedRequest]) -> ServiceJob:
    return jobs.create(jobs.prepare(display_name, asked))


def echoed(reply: KeyedReply) -> str:
    """The key that an answer brings back itself."""
    assert reply.answer is not None
    return str(json.loads(reply.answer.text)["request"])


def test_a_job_is_created_waits_and_is_answered(
    jobs: BatchJobs, server: GeminiServer, form: str
) -> None:
    """Tokens are those that the server billed, at the tier batch, in either form."""
    job = create(jobs, "RUN/entry/1", requests())
    assert (job.display_name, job.state) == ("RUN/entry/1", "waiting")
    assert jobs.get(job.name).state == "waiting"
    assert ended(jobs, job.name).state == "succeeded"
    replies = jobs.replies(job.name)
    assert [one.key for one in replies] == ["k-0", "k-1", "k-2"]
    assert [echoed(one) for one in replies] == ["k-0", "k-1", "k-2"]
    billed = [one.billed for one in replies]
    assert {one.tier for one in billed} == {BATCH}
    assert {one.model for one in billed} == {DEFAULT_GEMINI}
    assert (sum(b.tokens_in for b in billed), sum(b.tokens_out for b in billed)) == server.billed
    assert server.jobs.seen["upload"] == (form == "file")


def test_both_forms_ask_the_same(server: GeminiServer) -> None:
    """A line of a file is what the SDK makes of an inline request."""
    for size in FORMS.values():
        opened = open_jobs(settings_of(GOOGLE_GENAI, server.url, inline_bytes=size))
        create(opened, "RUN/entry/1", requests())
        opened.close()
    inline, of_file = (json.dumps(job.requests, sort_keys=True) for job in server.jobs.jobs)
    # The SDK writes the names of nested members with underscores, which the service takes, too.
    assert inline.replace("thinking_level", "thinkingLevel") == of_file
    assert '"thinkingConfig": {"thinkingLevel": "MINIMAL"}' in of_file
    assert "serviceTier" not in of_file


def test_a_job_is_found_by_its_display_name_on_any_page(
    jobs: BatchJobs, server: GeminiServer
) -> None:
    """The oldest of this very name comes first."""
    server.use({"jobs": {"page": 2}})
    names = ["RUN/a/1", "RUN/a/10", "RUN/b/1", "RUN/a/1", "RUN/c/1"]
    made = [create(jobs, name, requests(1)) for name in names]
    assert [one.name for one in jobs.named("RUN/a/1")] == [made[0].name, made[3].name]
    assert jobs.named("RUN/d/1") == []


@pytest.mark.ring(1)
def test_a_page_that_does_not_come_is_asked_for_again(server: GeminiServer) -> None:
    """And not the whole list, which would hardly ever come where each fifth page does not."""
    server.use({"jobs": {"page": 1, "away": 0.2, "seed": 1}})
    jobs = open_jobs(settings_of(GOOGLE_GENAI, server.url))
    made = [create(jobs, f"RUN/a/{number}", requests(1)) for number in range(10)]
    assert [jobs.named(f"RUN/a/{number}") for number in (0, 5, 9)] == [
        [made[number]] for number in (0, 5, 9)
    ]
    assert server.jobs.seen["list"] > 30
    jobs.close()


@pytest.mark.ring(1)
def test_a_page_without_jobs_does_not_end_the_list(jobs: BatchJobs, server: GeminiServer) -> None:
    """A service may send one, and say that others follow."""
    server.use({"jobs": {"page": 1, "hollow": True}})
    made = [create(jobs, f"RUN/a/{number}", requests(1)) for number in (1, 2)]
    assert [one.name for one in jobs.named("RUN/a/1")] == [made[0].name]
    assert jobs.named("RUN/a/3") == []


@pytest.mark.ring(1)
def test_a_list_without_an_end_is_given_up(jobs: BatchJobs, server: GeminiServer) -> None:
    """What is not on it is not said to be not there."""
    server.use({"jobs": {"page": 1, "endless": True}})
    for number in (1, 2):
        create(jobs, f"RUN/a/{number}", requests(1))
    with pytest.raises(failures.MalformedAnswer, match="has no end"):
        jobs.named("RUN/a/3")


@pytest.mark.ring(1)
def test_a_job_that_is_told_of_without_its_name_is_found(
    jobs: BatchJobs, server: GeminiServer
) -> None:
    """It is there, and only its name is not known."""
    server.use({"jobs": {"faults": ["unnamed"]}})
    with pytest.raises(failures.MalformedAnswer, match="without its name"):
        create(jobs, "RUN/a/1", requests(1))
    assert len(jobs.named("RUN/a/1")) == 1


def test_a_file_that_is_told_of_without_its_name_makes_no_job(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests are too many to be sent with the job."""
    monkeypatch.setattr(server.jobs, "_end_upload", unnamed)
    opened = open_jobs(settings_of(GOOGLE_GENAI, server.url, inline_bytes=0))
    with pytest.raises(failures.MalformedAnswer, match="a file without its name"):
        create(opened, "RUN/a/1", requests(1))
    opened.close()
    assert server.jobs.jobs == []


def unnamed(*_: object) -> Served:
    """A file was sent, and is told of as nothing."""
    return Served(200, {"file": {}}, {"X-Goog-Upload-Status": "final"})


def test_no_job_at_all_is_found(jobs: BatchJobs) -> None:
    """The service leaves out a list that is empty."""
    assert jobs.named("RUN/a/1") == []


def test_a_job_whose_creation_nobody_hears_of_is_found(
    jobs: BatchJobs, server: GeminiServer
) -> None:
    """Also where it is listed later only; one that the service never read is not."""
    server.use({"jobs": {"faults": ["lost", "lost_late", "vanished"]}})
    for name in ("RUN/a/1", "RUN/b/1", "RUN/c/1"):
        with pytest.raises(failures.ConnectionFailed):
            create(jobs, name, requests(1))
    assert len(jobs.named("RUN/a/1")) == 1
    assert jobs.named("RUN/b/1") == []
    assert len(jobs.named("RUN/b/1")) == 1
    assert jobs.named("RUN/c/1") == []


@pytest.mark.parametrize("state", ["expired", "failed", "cancelled"])
def test_a_job_that_ends_without_answers(jobs: BatchJobs, server: GeminiServer, state: str) -> None:
    """It has no replies, and has cost nothing."""
    server.use({"jobs": {"faults": [state]}})
    job = create(jobs, "RUN/a/1", requests())
    assert ended(jobs, job.name).state == state
    assert jobs.replies(job.name) == []
    assert server.billed == (0, 0)


def test_a_job_that_is_stuck_is_cancelled(jobs: BatchJobs, server: GeminiServer) -> None:
    server.use({"jobs": {"faults": ["stuck"]}})
    job = create(jobs, "RUN/a/1", requests())
    assert {jobs.get(job.name).state for _ in range(9)} == {"waiting"}
    jobs.cancel(job.name)
    assert jobs.get(job.name).state == "cancelled"


def test_answers_under_wrong_keys_are_told_as_they_come(
    jobs: BatchJobs, server: GeminiServer, form: str
) -> None:
    """What an answer brings back itself differs from the key that it comes under."""
    server.use({"jobs": {"faults": ["swapped", "missing", "doubled", "foreign", "no_keys"]}})
    told = []
    for number in range(5):
        job = create(jobs, f"RUN/{number}/1", requests())
        ended(jobs, job.name)
        told.append([(one.key, echoed(one)) for one in jobs.replies(job.name)])
    assert told[0] == [("k-2", "k-0"), ("k-1", "k-1"), ("k-0", "k-2")]
    assert told[1] == [("k-0", "k-0"), ("k-2", "k-2")]
    assert told[2] == [("k-0", "k-0"), ("k-1", "k-1"), ("k-2", "k-2"), ("k-0", "k-0")]
    assert told[3][-1] == ("nobody-0", "k-0")
    assert told[4] == [("", "k-0"), ("", "k-1"), ("", "k-2")]


OF_REQUESTS = (
    "unavailable",
    "server_error",
    "deadline",
    "unauthenticated",
    "bad_request",
    "too_long",
    "malformed_json",
    "not_an_object",
    "cut_off",
    "empty",
    "no_parts",
    "blocked_prompt",
    "blocked_answer",
)
"""What may go wrong with a single request of a job."""


@pytest.mark.parametrize("kind", OF_REQUESTS)
def test_a_request_fails_by_itself(jobs: BatchJobs, server: GeminiServer, kind: str) -> None:
    """Its failure is the one that a call by itself would have, with what it was billed."""
    server.use({"jobs": {"requests": {kind: 1.0}}})
    job = create(jobs, "RUN/a/1", requests(1))
    ended(jobs, job.name)
    (reply,) = jobs.replies(job.name)
    assert type(reply.failure) is CLASSES[kind]
    assert (reply.key, reply.answer) == ("k-0", None)
    assert (reply.billed.tokens_in, reply.billed.tokens_out) == server.billed
    assert KEY not in str(reply.failure)


def test_what_is_refused_before_it_is_created(jobs: BatchJobs, server: GeminiServer) -> None:
    """Too many jobs, a wrong name, a wrong key, a service that is away: failures as of calls."""
    server.use({"jobs": {"faults": ["refused"]}})
    with pytest.raises(failures.RateLimited):
        create(jobs, "RUN/a/1", requests(1))
    with pytest.raises(failures.ModelNotFound):
        jobs.get("batches/gone")
    server.use({"jobs": {"away": 1.0}})
    with pytest.raises(failures.Unavailable):
        jobs.named("RUN/a/1")
    server.key = "another"
    with pytest.raises(failures.Unauthorized) as caught:
        create(jobs, "RUN/a/1", requests(1))
    assert KEY not in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    """The failure is that of a broken connection."""
    opened = open_jobs(settings_of(GOOGLE_GENAI, "http://127.0.0.1:9"))
    with pytest.raises(ModelFailure, match="connection"):
        opened.get("batches/1")
    opened.close()


def test_other_models_have_no_jobs() -> None:
    """The sentence says what to set."""
    with pytest.raises(TextModelError, match="TEXT_MODEL=google-genai"):
        open_jobs(settings_of(GOOGLE_GENERATIVEAI, "http://127.0.0.1:9"))
