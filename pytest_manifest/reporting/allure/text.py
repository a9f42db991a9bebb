"""Make foreign text safe in a report, which shows it and never interprets it."""

from __future__ import annotations

import re

from pytest_manifest.verdict import printable

_HIDDEN = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udfff]")
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!]|^[-+=:]|(?<=^\d)[.)]")


def visible(text: str) -> str:
    """Remove terminal sequences; escape what is invisible or changes the text's direction."""
    if text.isascii() and text.isprintable():
        return text
    text = printable(text)
    if text.isascii():
        return text
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible_json(text: str) -> str:
    """Escape the invisible characters of a JSON text, which keeps its meaning."""
    if text.isascii():
        return text
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def code(text: str) -> str:
    """Return Markdown that shows the text verbatim, on one line."""
    shown = visible(text).replace("\n", "\\n").replace("\t", " ")
    if "`" not in shown and shown.strip():
        return f"`{shown}`"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest or not shown.strip() else ""
    return f"{fence}{room}{shown}{room}{fence}"


def escaped(text: str) -> str:
    """Return Markdown that shows the text as a paragraph, whatever characters it has."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(visible(text).split()))
