"""Call any service or server that speaks OpenAI's chat completions, by the package ``openai``.

An example of a model of one's own: name it as it is, or copy it and change what differs. The
package retries nothing here, follows no redirect, and is loaded with this module.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import openai
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from tasks.text_model import failures, replies
from tasks.text_model.base import STANDARD, Billed, TextAnswer, TextRequest
from tasks.text_model.parameters import ROOM
from tasks.text_model.settings import TextModelSettings

KEY: Final = "OPENAI_API_KEY"
ADDRESS: Final = "OPENAI_BASE_URL"
THINKS: Final = re.compile(r"(^|/)(o\d|gpt-[5-9])")
"""Names of models that think first: they take no temperature, and count thoughts as output."""

UNREADABLE: Final = (ValueError, AttributeError, TypeError, LookupError, RecursionError)
"""What reading raises, by the package and here, where a document is of another form."""
SUCCESS: Final = 200
FAILED: Final = 500
STATUSES: Final = range(400, 600)

for _name in ("httpx2", "openai"):
    # They log lines for each call, which would push all else out of a receipt's last lines.
    logging.getLogger(_name).setLevel(logging.WARNING)


def open_model(settings: TextModelSettings) -> OpenAICompatibleModel:
    """Open the model that the settings name. Raises TextModelError where one does not fit it."""
    unknown = {
        "TEXT_MODEL_STREAM": settings.stream,
        "TEXT_MODEL_SERVICE_TIER": settings.service_tier != STANDARD,
        "TEXT_MODEL_THINKING_TOKENS": settings.thinking_tokens is not None,
        "TEXT_MODEL_THINKING_LEVEL": settings.thinking_level is not None
        and not THINKS.search(settings.name),
    }
    for name, is_set in unknown.items():
        if is_set:
            raise failures.TextModelError(
                f"{name} is set, for which {settings.name} has no word; unset it"
            )
    if settings.given_name is None:
        raise failures.TextModelError(
            "no model is named; set TEXT_MODEL_NAME (GAP_FILL_JUDGE_NAME for a judge) to one that "
            "the service has"
        )
    key = os.environ.get(KEY)
    if not key:  # never the one of the settings, which is another service's
        raise failures.TextModelError(
            f"there is no key; set {KEY}, to any word if the server asks for none"
        )
    return OpenAICompatibleModel(settings, SecretStr(key))


class OpenAICompatibleModel:
    """A model of such a service. Its answers are held to the schema as far as the service can."""

    provider = "openai-compatible"

    def __init__(self, settings: TextModelSettings, key: SecretStr) -> None:
        self.name = settings.name
        self._level = settings.thinking_level
        self._key = key
        self._client = openai.OpenAI(
            api_key=key.get_secret_value(),
            base_url=os.environ.get(ADDRESS) or settings.base_url,  # the address of this key first
            max_retries=0,
            # A redirect would take the key to another host.
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def generate(self, request: TextRequest) -> TextAnswer:
        """Answer one request, once. Raises ModelFailure."""
        if request.tier != STANDARD:
            raise replies.no_word(self.provider, request.tier)
        billed = Billed()
        try:
            document = self._ask(request)
            billed = _bill(document)  # first, as it is owed whatever else is wrong
            told = ChatCompletion.construct(**json.loads(document))
            reply = _read(told, billed)
            failure = self._of_error(getattr(told, "error", None), billed)
        except openai.OpenAIError as error:
            failure = self._failure(error, request)
        except UNREADABLE as error:  # what is no such document
            failure = failures.UnreadableAnswer(
                f"{self.name} sent what is no chat completion ({self._said(error)}); ask it again",
                billed=billed,
            )
        if failure is None:
            return _answer(reply, request)
        # Outside the handler: the package's exception holds the request, and that the key.
        raise failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, request: TextRequest) -> str:
        """Return the document that the service answers with."""
        thinks = THINKS.search(self.name) is not None
        room = ROOM[self._level or "medium"]  # as much as it thinks where it is told nothing
        most = request.max_output_tokens
        answered = self._client.chat.completions.with_raw_response.create(
            model=self.name,
            messages=[
                {"role": "system", "content": request.instructions},
                {"role": "user", "content": request.prompt},
            ],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(request.schema)},
            },
            max_tokens=openai.omit if thinks else most,
            max_completion_tokens=most + room if thinks else openai.omit,
            temperature=openai.omit if thinks else request.temperature,
            reasoning_effort=self._level or openai.omit,
            timeout=request.timeout,
        )
        return answered.text

    def _of_error(self, error: object, billed: Billed) -> failures.ModelFailure | None:
        """Return the failure of an error that was answered as a success; None where there is none.

        Gateways do so, with the status that they have got themselves as the error's code.
        """
        if not error:
            return None
        about = error if isinstance(error, dict) else {"message": error}
        code = about.get("code")
        kind = code if isinstance(code, int) and code in STATUSES else FAILED
        said = replies.hide(str(about.get("message") or about), self._key)
        return replies.status_failure(
            SUCCESS, said, model=self.name, key=KEY, kind=kind, billed=billed
        )

    def _failure(self, error: openai.OpenAIError, request: TextRequest) -> failures.ModelFailure:
        if isinstance(error, openai.APITimeoutError):
            return failures.ModelTimeout(
                f"{self.name} did not answer within {request.timeout:g} s; ask again"
            )
        if not isinstance(error, openai.APIStatusError):
            return failures.ConnectionFailed(
                f"the connection to {self.name} broke ({self._said(error)}); ask again"
            )
        said, wait = self._said(error), replies.wait_of(error.response.headers)
        billed = _bill(error.response.text)
        if replies.is_spent((error.code, error.type), wait):
            return replies.spent(error.status_code, self.name, said, wait, billed)
        if error.code in {"content_filter", "content_policy_violation"}:
            return replies.unread(said, billed)
        kind = replies.LONG if error.code == "context_length_exceeded" else error.status_code
        return replies.status_failure(
            error.status_code,
            said,
            model=self.name,
            key=KEY,
            retry_after=wait,
            kind=kind,
            billed=billed,
        )

    def _said(self, error: Exception) -> str:
        body = getattr(error, "body", None)
        told = body.get("message") if isinstance(body, dict) else body
        # The package's own words leave out a document of another form than OpenAI's.
        return replies.hide(str(told or body or error), self._key)[:200]


class _Reply(NamedTuple):
    """A completion, as far as it is used; texts are empty where it has none."""

    text: str
    refusal: str
    reason: str
    billed: Billed


def _bill(document: str) -> Billed:
    """Read what a service says that it has used, be the rest of its document what it may.

    Nothing is billed for what no document tells.
    """
    try:
        told = _object(json.loads(document))
    except UNREADABLE:
        return Billed()
    usage, name = _object(told.get("usage")), told.get("model")
    prompt = replies.tokens(usage.get("prompt_tokens"))
    cached = replies.tokens(_object(usage.get("prompt_tokens_details")).get("cached_tokens"))
    output = replies.tokens(usage.get("completion_tokens"))
    return Billed(prompt, output, name if isinstance(name, str) else "", min(cached, prompt))


def _object(value: object) -> Mapping[str, object]:
    """Return a JSON object, an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def _read(completion: ChatCompletion, billed: Billed) -> _Reply:
    """Read a completion, which the package has not checked: a server may leave anything out.

    Raises one of ``UNREADABLE`` for what is none.
    """
    _text(completion.model)
    if not completion.choices:
        return _Reply("", "", "", billed)
    choice = completion.choices[0]
    said = choice.message
    return _Reply(_text(said.content), _text(said.refusal), str(choice.finish_reason or ""), billed)


def _text(value: object) -> str:
    """Return a text, "" for none. Raises TypeError for what is neither."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"there is {type(value).__name__} where a text is meant")
    return value


def _answer(reply: _Reply, request: TextRequest) -> TextAnswer:
    """Return what was answered; raise the ModelFailure that says why there is nothing."""
    if reply.refusal or reply.reason == "content_filter":
        raise replies.withheld((reply.refusal or reply.reason)[:200], reply.billed)
    if reply.reason == "length":
        raise replies.cut_off(reply.billed, replies.limit_of(request))
    required = replies.required_of(request)
    return replies.checked(reply.text, reply.billed, required, reason=reply.reason)
