"""What a call is billed, as the wire has it."""

from __future__ import annotations

from tests.gemini_server import answers
from tests.gemini_server.answers import Asked, Json
from tests.gemini_server.desk import Call
from tests.gemini_server.script import Script


def usage_of(call: Call, asked: Asked, text: str | None, script: Script) -> Json:
    """The usage of a call that is answered by this text, None for no part, which it notes."""
    thoughts = script.thoughts
    answer = answers.tokens(text) if text is not None else 0
    call.tokens_in = asked.tokens
    call.cached = int(asked.tokens * script.cached)
    call.tokens_out = answer + thoughts if text is not None else 0
    usage: Json = {"promptTokenCount": asked.tokens}
    if call.cached:
        usage["cachedContentTokenCount"] = call.cached
    if text is not None:
        usage["candidatesTokenCount"] = answer
    usage["totalTokenCount"] = asked.tokens + (answer + thoughts if text is not None else 0)
    if thoughts and text is not None:
        usage["thoughtsTokenCount"] = thoughts
    return usage


def answering(asked: str, kind: str, other: str) -> str:
    """The name under which a call is answered; "" for none."""
    return {"other_model": other, "unnamed": ""}.get(kind, asked)
