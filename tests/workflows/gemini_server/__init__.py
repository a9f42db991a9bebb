"""A local server that speaks Gemini's REST wire format, and fails by a script.

``with gemini_server({"faults": ["unavailable", "ok"]}) as server:`` serves ``server.url`` on the
loopback address; ``python -m tests.workflows.gemini_server --port 0`` does so as a process.
"""

from __future__ import annotations

from tests.workflows.gemini_server.answers import filled
from tests.workflows.gemini_server.desk import Call
from tests.workflows.gemini_server.script import Fault, Poison, Script
from tests.workflows.gemini_server.server import KEY, GeminiServer, gemini_server

__all__ = ["KEY", "Call", "Fault", "GeminiServer", "Poison", "Script", "filled", "gemini_server"]
