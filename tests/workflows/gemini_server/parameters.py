"""What a model refuses of a request's configuration, as the service words it."""

from __future__ import annotations

import re
from typing import Final

from tests.workflows.gemini_server.answers import Json

VERSION: Final = re.compile(r"^gemini-(\d+)(?:\.(\d+))?")


def refused(model: str, body: Json) -> str | None:
    """Why the service would not take this configuration; None where it does.

    Of names without a version everything is taken.
    """
    match = VERSION.match(model)
    config = body.get("generationConfig")
    if match is None or not isinstance(config, dict):
        return None
    version = int(match[1]), int(match[2] or 0)
    thinking = config.get("thinkingConfig")
    told = (
        {name.replace("_", "").lower() for name in thinking} if isinstance(thinking, dict) else {}
    )
    if "thinkingbudget" in told and version >= (3, 5):
        return f"thinking_budget is not supported by {model}; use thinking_level instead."
    if "thinkinglevel" in told and version < (3, 0):
        return f"Thinking level is not supported for {model}."
    if told and version < (2, 5):
        return f"Thinking is not enabled for {model}."
    if "candidateCount" in config and version >= (3, 0):
        return f"candidate_count is not supported by {model}."
    return None
