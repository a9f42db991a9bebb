"""A local server that speaks OpenAI's chat completions, and fails by a script.

It follows the same scripts as ``tests.workflows.gemini_server``, and fills fields with the same
values: ``with openai_server({"faults": ["unavailable", "ok"]}) as server:`` serves ``server.url``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import JsonValue

from tests.workflows.gemini_server import KEY, GeminiServer, Script
from tests.workflows.openai_server.handler import VERSION, ChatHandler

__all__ = ["KEY", "OpenAIServer", "openai_server"]


class OpenAIServer(GeminiServer):
    """Serves ``url`` until it is closed; what it did is in ``calls``. Only the wire is another."""

    handler = ChatHandler

    def __init__(self, script: Script, *, key: str = KEY) -> None:
        super().__init__(script, key=key)
        self.url += VERSION


@contextmanager
def openai_server(
    script: Mapping[str, JsonValue] | Script | None = None, *, key: str = KEY
) -> Iterator[OpenAIServer]:
    """Serve as the script says; other processes can reach it too."""
    server = OpenAIServer(Script.model_validate(script or {}), key=key)
    try:
        yield server
    finally:
        server.close()
