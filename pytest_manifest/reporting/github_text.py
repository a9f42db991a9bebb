"""Foreign text within Markdown and workflow commands: shown as it is, and never understood."""

from __future__ import annotations

import re
from typing import Final

from pytest_manifest.reporting.run_page.text import visible
from pytest_manifest.verdict.text import middle

# What may begin or end something in Markdown, HTML, or what GitHub makes of the text of a page:
# names (@), emoji (:), formulas ($), links (://, www.). An underscore within a word begins nothing.
_SPECIAL: Final = re.compile(r"[&<>|`*\[\]#~\\!@$:^{}]|(?<![^\W_])_|_(?![^\W_])|(?i:(?<=www)\.)")


def code(text: str, limit: int = 200) -> str:
    """The text on one line in the type of code, for a cell of a table or anywhere in a line.

    A code span in backticks would do nearly as well, but not with ``|`` in a table.
    """
    return f"<code>{escaped(text, limit)}</code>" if text else ""


def escaped(text: str, limit: int = 200) -> str:
    """The text on one line, in which nothing is Markdown or HTML."""
    line = " ".join(visible(text).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", middle(line, limit))


def command_data(text: str) -> str:
    """Text as the message of a workflow command."""
    shown = visible(text)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Text as the value of a workflow command's property."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")
