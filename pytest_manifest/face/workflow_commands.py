"""GitHub's workflow commands: what a job has said must not be taken for one of them."""

from __future__ import annotations

import os
import re

# The runner trims a line before it looks for `::`; the older form it finds anywhere in a line.
_AT_START = re.compile(r"(^|[\r\n])(\s*)::")
_ANYWHERE = re.compile(r"##\[")


def on_github() -> bool:
    """Whether GitHub's runner, or one that does as it does, reads what is printed here."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def harmless(text: str) -> str:
    r"""The text without workflow commands, where a runner would carry them out: ``\::error::``."""
    if not on_github():
        return text
    return _ANYWHERE.sub(r"#\\#[", _AT_START.sub(r"\1\2\\::", text))
