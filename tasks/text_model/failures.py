"""Define how a call of a language model can fail: one class each, and the remedy."""

from __future__ import annotations

from typing import ClassVar

from pytest_manifest.errors import ManifestToolError
from tasks.text_model.base import Billed


class TextModelError(ManifestToolError):
    """A model, limit or price table that cannot be opened as the settings have it."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The caller asked to stop while a call, or its turn, was waited for."""

    def __init__(
        self, message: str = "the call was given up, as the batch was told to stop"
    ) -> None:
        super().__init__(message)


class ModelFailure(Exception):  # noqa: N818 - the base of names that say what failed
    """A call that brought no answer. The message is a sentence, and never holds the key.

    ``kind`` names the class in counts. ``retryable``: the same call may succeed later;
    ``splittable``: a smaller batch may succeed; ``fatal``: no call of this batch will succeed.
    ``retry_after`` is in seconds, None where the service named no time; ``billed`` is what the
    failed call was billed. ``may_be_billed``: where that says nothing, the call may have been
    billed all the same.
    """

    kind: ClassVar[str] = "failed"
    retryable: ClassVar[bool] = False
    splittable: ClassVar[bool] = False
    fatal: ClassVar[bool] = False
    may_be_billed: ClassVar[bool] = False

    def __init__(
        self, message: str, *, retry_after: float | None = None, billed: Billed | None = None
    ) -> None:
        if not message:
            raise TypeError(f"{type(self).__name__} needs a sentence")
        super().__init__(message)
        self.retry_after = retry_after
        self.billed = billed or Billed()


class RateLimited(ModelFailure):
    """429: too many requests or tokens a minute; the service may say when to come again."""

    kind = "rate_limited"
    retryable = True


class QuotaExhausted(ModelFailure):
    """429 for a quota of a day, or a limit of what is spent: waiting for minutes does not help."""

    kind = "quota_exhausted"
    fatal = True


class ServerFailed(ModelFailure):
    """500, 502 or 504: the service failed."""

    kind = "server_failed"
    retryable = True


class Unavailable(ModelFailure):
    """503: the model is overloaded, or the service is away for now."""

    kind = "unavailable"
    retryable = True


class Shed(ModelFailure):
    """429 or 503 of a flex call: the service has no room for it now, at half the price."""

    kind = "shed"
    retryable = True


class ModelTimeout(ModelFailure):
    """No answer within the request's timeout. What it cost is not known."""

    kind = "timeout"
    retryable = True
    may_be_billed = True


class ConnectionFailed(ModelFailure):
    """A connection that was refused, reset or cut. What the call cost is not known."""

    kind = "connection_failed"
    retryable = True
    may_be_billed = True


class PromptBlocked(ModelFailure):
    """The service would not read the prompt; without the passage it minds, it may."""

    kind = "prompt_blocked"
    splittable = True


class AnswerBlocked(ModelFailure):
    """An answer that was withheld for safety, recitation or the like; other passages may pass."""

    kind = "answer_blocked"
    splittable = True


class AnswerCutOff(ModelFailure):
    """The answer reached the limit of output tokens; fewer passages need fewer."""

    kind = "answer_cut_off"
    splittable = True


class EmptyAnswer(ModelFailure):
    """The service reported success and sent no candidate, or one without text."""

    kind = "empty_answer"
    splittable = True


class MalformedAnswer(ModelFailure):
    """An answer that is not JSON, or not of the schema's shape."""

    kind = "malformed_answer"
    splittable = True


class UnreadableAnswer(MalformedAnswer):
    """A document of which nothing can be read. What it cost is not known."""

    may_be_billed = True


class Unauthorized(ModelFailure):
    """401, 403 or an invalid key: no call will succeed."""

    kind = "unauthorized"
    fatal = True


class ModelNotFound(ModelFailure):
    """404: the service knows no such model."""

    kind = "model_not_found"
    fatal = True


class OtherModel(ModelFailure):
    """Another model answered than the one that was asked, or one that has no name.

    Each of its answers is paid, at its own price, so it is not asked again.
    """

    kind = "other_model"
    fatal = True


class BadRequest(ModelFailure):
    """400: the service does not take requests of this form."""

    kind = "bad_request"
    fatal = True


class TooLong(ModelFailure):
    """400: more tokens than the model takes; fewer passages need fewer."""

    kind = "too_long"
    splittable = True


class Unexpected(ModelFailure):
    """An error that no model should raise, of a model of one's own for example."""

    kind = "unexpected"
    fatal = True


class AnswerMissing(ModelFailure):
    """A batch job has ended, and has no answer to this request."""

    kind = "answer_missing"
    retryable = True


class AnswerDoubled(ModelFailure):
    """A batch job has several answers to one request; nobody knows which of them is right."""

    kind = "answer_doubled"
    retryable = True


class AnswerSwapped(ModelFailure):
    """An answer of a batch job came under the key of one request, and is to another."""

    kind = "answer_swapped"
    retryable = True


class JobExpired(ModelFailure):
    """The service gave a batch job up, as it did not come to it in a day."""

    kind = "job_expired"
    retryable = True


class JobFailed(ModelFailure):
    """A batch job has failed as a whole."""

    kind = "job_failed"
    retryable = True


class JobCancelled(ModelFailure):
    """A batch job was cancelled, by somebody or because it took too long."""

    kind = "job_cancelled"
    retryable = True


class JobStuck(ModelFailure):
    """A batch job does not end, not even where it is cancelled: it may be answered, and billed.

    So its requests are not made by another one, which would be paid for a second time.
    """

    kind = "job_stuck"
    fatal = True


class JobLost(ModelFailure):
    """The service knows a batch job no more that it had created."""

    kind = "job_lost"
    retryable = True


class LimitsUnreachable(ModelFailure):
    """The server that holds the shared rate limits is away; nothing was sent to the model."""

    kind = "limits_unreachable"
    retryable = True
