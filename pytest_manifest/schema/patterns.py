"""Search a manifest's regular expressions in time linear in the text.

A manifest may come from anywhere, and the text that it searches from any worker. Python's engine
tries every way in which a pattern may match, which for some patterns practically never ends, and
only SIGKILL stops it. The engine of jsonschema-rs runs in linear time: it refuses what it cannot do
so (look-around, back-references), and the refusal is reported when the manifest is read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pytest_manifest.text import whole_text

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, RegexOptions

MAX_LENGTH: Final = 10_000
"""Characters of a pattern: what is longer was not written by hand, and costs as much to compile."""
MAX_SIZE: Final = 20_000
"""Steps of a pattern, of which many are kept: ``(...){1000}`` is short and large."""
_MEMORY: Final = 1 << 20
"""Bytes that a compiled pattern may take."""
_WIDE: Final = 20
"""Steps of a class that many characters are of, at a guess."""

_TOKENS: Final = re.compile(
    r"(?P<wide>\\[pP](?:\{\w*\}|.)|\[\^(?:\\.|[^\]\\])*\]|\.)|\[(?:\\.|[^\]\\])*\]|\\."
    r"|(?P<open>\()|(?P<close>\))|\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\}|.",
    re.DOTALL,
)
_OTHERWISE: Final = (
    (re.compile(r"\\[<>]"), "'\\<' and '\\>' do not stand for themselves; leave the backslash out"),
    (re.compile(r"\(\?[a-zA-Z]*s"), "'(?s)' does nothing here; write [\\s\\S] for any character"),
    (re.compile(r"\[\[:"), "classes like [:alpha:] are not known; write a-z, or \\p{L}"),
)
"""What the engine takes for something else than most people who write it."""
_REPEATS: Final = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}").fullmatch
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def options() -> RegexOptions:
    """Return what has the engine search in linear time, with patterns of limited size."""
    from jsonschema_rs import RegexOptions

    return RegexOptions(size_limit=_MEMORY)


@lru_cache(maxsize=256)  # a planner gives the same pattern to thousands of entries
def _compiled(pattern: str) -> Draft202012Validator:
    from jsonschema_rs import Draft202012Validator, ValidationError

    written = _ESCAPE.sub(lambda escape: r"\z" if escape[1] == "Z" else escape[0], pattern)
    try:
        return Draft202012Validator({"pattern": written}, pattern_options=options(), offline=True)
    except ValidationError:
        raise ValueError("it cannot be read, or needs look-around or back-references") from None


def pattern_problem(pattern: str) -> str:
    """Say why this pattern cannot be searched for; "" if it can."""
    if why := _odd(pattern):
        return why
    try:
        _compiled(pattern)
    except ValueError as error:  # halves of surrogate pairs are one, too
        return str(error)
    return ""


def _odd(pattern: str) -> str:
    """Say why this pattern is too large to be compiled, or means something else; "" if neither."""
    if len(pattern) > MAX_LENGTH:
        return f"it has {len(pattern)} characters, more than {MAX_LENGTH}"
    if (size := pattern_size(pattern)) > MAX_SIZE:
        return f"it comes to some {size} steps, more than {MAX_SIZE}; have it repeat less"
    tokens = (token[0] for token in _TOKENS.finditer(pattern))
    if any(later == "+" and _REPEATS(before) for before, later in pairwise(tokens)):
        return "possessive quantifiers like 'a++' are not known; leave the second sign out"
    return next((why for form, why in _OTHERWISE if form.search(pattern)), "")


def pattern_size(pattern: str) -> int:
    """Return of about how many steps a pattern consists: what it repeats counts as often."""
    outer: list[int] = []
    size = last = 0
    for token in _TOKENS.finditer(pattern):
        if token["open"]:
            outer.append(size)
            size = last = 0
        elif token["close"]:
            last = size
            size += outer.pop() if outer else 0
        elif token["least"]:
            times = max(int(token["least"]), int(token["most"] or 0), 1)
            size += last * (times - 1)
            last *= times
        else:
            last = _WIDE if token["wide"] else 1
            size += last
    return size + sum(outer)


def found_in(pattern: str, text: str) -> bool:
    """Return whether the pattern matches somewhere in the text.

    Raises ValueError for a pattern that ``pattern_problem`` reports.
    """
    return _compiled(pattern).is_valid(whole_text(text))
