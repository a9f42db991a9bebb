"""What a call is billed, and the name under which it is answered."""

from __future__ import annotations

from tests.workflows.gemini_server import answers
from tests.workflows.gemini_server.answers import Asked, Json
from tests.workflows.gemini_server.desk import Call
from tests.workflows.gemini_server.script import Fault, Script


def bill(call: Call, asked: Asked, text: str | None, script: Script) -> None:
    """Note what a call is billed that is answered by this text, None for no part.

    Thoughts are part of the output.
    """
    call.tokens_in = asked.tokens
    call.cached = int(asked.tokens * script.cached)
    call.tokens_out = 0 if text is None else answers.tokens(text) + script.thoughts


def usage_of(call: Call, asked: Asked, text: str | None, script: Script) -> Json:
    """The usage of a call, as Gemini's wire has it; it is noted in the call."""
    bill(call, asked, text, script)
    usage: Json = {"promptTokenCount": call.tokens_in}
    if call.cached:
        usage["cachedContentTokenCount"] = call.cached
    if text is not None:
        usage["candidatesTokenCount"] = call.tokens_out - script.thoughts
    usage["totalTokenCount"] = call.tokens_in + call.tokens_out
    if script.thoughts and text is not None:
        usage["thoughtsTokenCount"] = script.thoughts
    return usage


def answering(asked: str, fault: Fault) -> str:
    """The name under which a call is answered; "" for none."""
    return {"other_model": fault.model, "unnamed": ""}.get(fault.kind, asked)
