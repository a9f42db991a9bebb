"""Make text fit for people: hostile characters escaped, texts shortened, durations in words.

Every escaper, shortener and duration format of the package is here. What a format asks for beyond
(HTML, Markdown, JSON, XML) stays with that format, and is applied to what comes from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from reprlib import Repr
from typing import Final

# Foreign text

_CONTROLS: Final = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""All but tab and line feed."""
_BIDIRECTIONAL: Final = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SURROGATES: Final = r"\ud800-\udfff"
_ZERO_WIDTH: Final = r"\u200b-\u200d\u2028\u2029\u2060-\u2065\ufeff"
JOINERS: Final = "\u200c\u200d"
"""Zero-width non-joiner and joiner: words of Persian or Hindi, and pictures made of several."""
_RARE: Final = r"\u00ad\u180e\u206a-\u206f\ufff9-\ufffb"
"""Soft hyphens, deprecated format characters and annotations: invisible as well."""

_TERMINAL_SEQUENCE: Final = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\^_])?"
)
_OBEYED: Final = re.compile(f"[{_CONTROLS}{_BIDIRECTIONAL}{_SURROGATES}]")
"""Characters that a terminal obeys, or that cannot be written."""
_HIDDEN: Final = re.compile(f"[{_BIDIRECTIONAL}{_ZERO_WIDTH}{_SURROGATES}]")
_UNSEEN: Final = re.compile(f"[{_CONTROLS}{_BIDIRECTIONAL}{_ZERO_WIDTH}{_RARE}{_SURROGATES}]")
_LINE_ENDS: Final = {ord("\t"): r"\t", ord("\n"): r"\n", ord("\r"): r"\r"}


def whole_text(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8 form, so that nothing is lost over them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """Remove terminal sequences; escape what else a terminal would obey (``\\x07``, ``\\u202e``).

    Tabs and line feeds stay.
    """
    text = _TERMINAL_SEQUENCE.sub("", text.replace("\r\n", "\n"))
    return _OBEYED.sub(lambda match: _escape(match[0]), text)


def visible(text: str) -> str:
    """Return printable text with zero-width characters escaped, too: for a report's labels."""
    if text.isascii() and text.isprintable():
        return text
    return escape_hidden(printable(text))


def escape_hidden(text: str) -> str:
    """Escape zero-width and bidirectional characters alone: a JSON text keeps its meaning."""
    return text if text.isascii() else _HIDDEN.sub(_escape_match, text)


def pictured(text: str) -> str:
    """Show each control character as its picture (``␛[31m``), and escape all that is invisible.

    Nothing is removed; tabs and line feeds stay.
    """
    return _UNSEEN.sub(_picture, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return printable text on one line, with whatever cannot be drawn escaped."""
    return _escape_unprintable(" ".join(printable(text).split()))


def terminal_line(text: str, encoding: str = "utf-8") -> str:
    """Return the text on one line, with all escaped that a terminal would obey or cannot draw.

    Nothing is removed. Characters that ``encoding`` lacks are escaped as well.
    """
    if not text.isprintable():
        text = _escape_unprintable(text.translate(_LINE_ENDS))
    return text.encode(encoding, "backslashreplace").decode(encoding)


def json_line(text: str) -> str:
    """Escape what cannot be drawn in a JSON text that is on one line; it means the same."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def number_unprintable(text: str) -> str:
    r"""Return text on one line, with the number of whatever cannot be drawn: ``\u001b``."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _escape_unprintable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or _joins(text, at) else _escape(c) for at, c in enumerate(text)
    )


def _joins(text: str, at: int) -> bool:
    """Check for a joiner or non-joiner that shapes its neighbours: of a script or a picture."""
    if text[at] not in JOINERS or at in (0, len(text) - 1):
        return False
    return not any(one.isascii() or not one.isprintable() for one in (text[at - 1], text[at + 1]))


def _escape_match(match: re.Match[str]) -> str:
    return match[0] if _joins(match.string, match.start()) else _escape(match[0])


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _picture(match: re.Match[str]) -> str:
    number = ord(match[0])
    if _joins(match.string, match.start()):
        return match[0]
    if number < 0x20:
        return chr(0x2400 + number)
    return "\u2421" if number == 0x7F else f"\\u{number:04x}"


# Width

EMOJI: Final = "\ufe0f"
"""Variation selector: the character before it is drawn as a picture, two columns wide."""


def cells(text: str) -> int:
    """Count the columns of printable text, at most: a terminal that joins characters takes less."""
    return len(text) if text.isascii() else sum(map(_width, text))


def fitting(text: str, width: int) -> str:
    """Return the beginning of a printable text that fits into so many columns."""
    if text.isascii():
        return text[: max(width, 0)]
    taken = 0
    for position, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:position]
    return text


def _width(character: str) -> int:
    from rich.cells import get_character_cell_size  # its tables take milliseconds to load

    # The selector adds a column to the character before it.
    return 1 if character == EMOJI else get_character_cell_size(character)


# Shortened text

VALUE_LIMIT: Final = 80


def short(value: object, limit: int = VALUE_LIMIT) -> str:
    """Return a value's repr on one line, cut in the middle to ``limit`` characters.

    Large values are cut before they are formatted, so that a result of megabytes costs nothing.
    """
    return middle(_bounded(limit).repr(value), limit)


@cache
def _bounded(limit: int) -> Repr:
    bounded = Repr()
    bounded.maxstring = bounded.maxother = bounded.maxlong = limit
    bounded.maxlist = bounded.maxdict = bounded.maxtuple = 12
    return bounded


def middle(text: str, limit: int) -> str:
    """Return ``text``, or its head and tail around an ellipsis if it has more characters."""
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[len(text) - tail :]}"


def beginning(text: str, limit: int, ellipsis: str = "...") -> str:
    """Return ``text``, or its head before an ellipsis if it has more than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - len(ellipsis)]}{ellipsis}"


def cut(text: str, width: int, ellipsis: str = "...") -> str:
    """Return printable text in at most ``width`` columns; a longer one loses its middle.

    That begins and ends between two words where such a place is near: an option stays whole.
    """
    if cells(text) <= width:
        return text
    room = width - len(ellipsis)
    if room <= 0:
        return ellipsis[: max(width, 0)]
    head, tail = fitting(text, room - room // 2), fitting(text[::-1], room // 2)[::-1]
    before, behind = head.rfind(" "), tail.find(" ") + 1
    head = head[:before] if before > len(head) * 2 // 3 else head
    tail = tail[behind:] if 0 < behind < len(tail) // 3 else tail
    return f"{head}{ellipsis}{tail}"


def short_path(path: Path, root: Path) -> str:
    """Return the path as a person would type it: relative where it lies below ``root``."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


# Counts, durations and rates


def listed(names: Sequence[str], most: int) -> str:
    """Join the first names, at ``most`` so many, with the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """Format a count: ``1 line``, ``2 lines``, ``2 entries``, ``2 ways``, ``2 processes``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("s"):
        return f"{count} {noun}es"
    changes = noun.endswith("y") and noun[-2:-1] not in "aeou"
    return f"{count} {noun[:-1]}ies" if changes else f"{count} {noun}s"


def limits_phrase(limits: Mapping[str, int]) -> str:
    """Format limits of keys: ``at most 5 in flight of each tenant, 2 of each host``; "": none."""
    parts = [
        f"{most} {'in flight ' * (not place)}of each {name}"
        for place, (name, most) in enumerate(limits.items())
    ]
    return f"at most {', '.join(parts)}" if parts else ""


def many(count: int, noun: str) -> str:
    """Format a count that may be large: ``1 entry``, ``100,000 entries``."""
    return plural(count, noun).replace(str(count), f"{count:,}", 1)


def seconds(value: float) -> str:
    """Format a duration in seconds: ``0.031 s``, ``12.4 s``, ``300 s``."""
    if value and abs(value) < 0.0005:
        return f"{value:.1g} s"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:.0f} s"
    return f"{value:.3g} s"


def duration(value: float) -> str:
    """Format seconds in words, with three digits: ``12.4 s``, ``3 min 05 s``, ``8 h 12 min``."""
    if value < 59.95:
        return seconds(float(f"{value:.3g}"))
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def clock(value: float) -> str:
    """Format seconds that pass: ``12 s``, ``3:47``, ``1:02:03``."""
    whole = int(value)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_cell(value: float) -> str:
    """Format seconds for a table, in five columns as long as they are below a day."""
    if 0 < value < 0.0005:
        return "<.001"
    if value < 9.9995:
        return f"{value:.3f}"
    if value < 99.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 999.95 else f"{value:.0f}"


def rate_text(value: float) -> str:
    """Format a number per unit of time, with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def job_rate(value: float) -> str:
    """Format jobs per second in words: ``412 jobs a second``; slow ones a minute or an hour."""
    number, unit = _unit_of(value)
    return f"{rate_text(number)} jobs {'an' if unit == 'hour' else 'a'} {unit}"


def short_rate(value: float) -> str:
    """Format a number per second: ``41.3/s``; a slow one per minute (``/min``) or hour (``/h``)."""
    number, unit = _unit_of(value)
    return f"{rate_text(number)}/{_UNITS[unit][1]}"


_UNITS: Final = {"second": (1, "s"), "minute": (60, "min"), "hour": (3600, "h")}


def _unit_of(value: float) -> tuple[float, str]:
    """Return a rate per second in the shortest unit in which it is at least 1, else per hour."""
    for unit, (factor, _) in _UNITS.items():
        found = value * factor, unit
        if found[0] >= 1:
            break
    return found
