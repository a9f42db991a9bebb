"""Write Markdown: foreign text as text, code, links, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from pytest_manifest.text import middle, pictured, visible

MOST: Final = 1 << 20
"""Characters of a text that is shown whole."""

# Characters that may begin or end markup in Markdown, in HTML, or in GitHub's own syntax:
# names (@), emoji (:), formulas ($), links (://, www.), and at a paragraph's beginning a list's.
# An underscore within a word begins nothing.
_SPECIAL: Final = re.compile(
    r"[&<>|`*\[\]#~\\!@$:^{}]|(?<![^\W_])_|_(?![^\W_])|(?i:(?<=www)\.)|^[-+=]|(?<=^\d)[.)]"
)


def escaped(text: str, limit: int = 200) -> str:
    """Return the text on one line, cut in the middle, with Markdown and HTML escaped."""
    line = " ".join(pictured(text).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", middle(line, limit))


def code(text: str, limit: int = 200) -> str:
    """Return the text on one line as HTML code, for a table's cell or within a line.

    A code span in backticks would serve except with ``|`` in a table.
    """
    return f"<code>{escaped(text, limit)}</code>" if text else ""


def verbatim(text: str) -> str:
    """Return the text on one line as a code span, for where HTML is not shown."""
    shown = visible(text).replace("\n", "\\n").replace("\t", " ")
    room = " " if "`" in shown or not shown.strip() else ""
    fence = _fence(shown, 1)
    return f"{fence}{room}{shown}{room}{fence}"


def fenced(text: str) -> str:
    """Return the text as a block of code, which GitHub shows with a button to copy."""
    shown = pictured(text)
    fence = _fence(shown, 3)
    return f"{fence}console\n{shown}\n{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def link(text: str, address: str | None) -> str:
    """Return the text as code that leads to the address, if there is one."""
    return code(text) if address is None else f"[{code(text)}]({address})"


def table(heads: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a table; ``sides`` has an ``r`` for each column that is aligned right."""
    rule = ["--:" if side == "r" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))
