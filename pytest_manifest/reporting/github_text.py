"""Make foreign text safe in Markdown and workflow commands, which show it as it is."""

from __future__ import annotations

import re
from typing import Final

from pytest_manifest.reporting.run_page.text import visible
from pytest_manifest.verdict.text import middle

# Characters that may begin or end markup in Markdown, in HTML, or in GitHub's own syntax:
# names (@), emoji (:), formulas ($), links (://, www.). An underscore within a word begins nothing.
_SPECIAL: Final = re.compile(r"[&<>|`*\[\]#~\\!@$:^{}]|(?<![^\W_])_|_(?![^\W_])|(?i:(?<=www)\.)")


def code(text: str, limit: int = 200) -> str:
    """Return the text on one line as HTML code, for a table's cell or within a line.

    A code span in backticks would serve except with ``|`` in a table.
    """
    return f"<code>{escaped(text, limit)}</code>" if text else ""


def escaped(text: str, limit: int = 200) -> str:
    """Return the text on one line, cut in the middle, with Markdown and HTML escaped."""
    line = " ".join(visible(text).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", middle(line, limit))


def command_data(text: str) -> str:
    """Return the text escaped as the message of a workflow command."""
    shown = visible(text)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Return the text escaped as a property's value of a workflow command."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")
