"""Foreign text in a report: shown, never acted upon."""

from __future__ import annotations

import re

from pytest_manifest.verdict import printable

_HIDDEN = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udfff]")
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&!]|^[-+=:]|(?<=^\d)[.)]")


def visible(text: str) -> str:
    """Text without terminal sequences; what is not seen or turns text around becomes an escape."""
    if text.isascii() and text.isprintable():
        return text
    text = printable(text)
    if text.isascii():
        return text
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible_json(text: str) -> str:
    """JSON with the same meaning, in which no character is unseen."""
    if text.isascii():
        return text
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def code(text: str) -> str:
    """Markdown that shows the text as it is, on one line."""
    shown = visible(text).replace("\n", "\\n").replace("\t", " ")
    if "`" not in shown and shown.strip():
        return f"`{shown}`"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest or not shown.strip() else ""
    return f"{fence}{room}{shown}{room}{fence}"


def escaped(text: str) -> str:
    """Markdown that shows the text as a paragraph, whatever it has in it."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(visible(text).split()))
