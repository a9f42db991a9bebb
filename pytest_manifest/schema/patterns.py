"""Search a manifest's regular expressions in time linear in the text.

A manifest may come from anywhere, and the text that it searches from any worker. Python's engine
tries every way in which a pattern may match, which for some patterns practically never ends, and
only SIGKILL stops it. RE2 runs in linear time: it refuses what it cannot do so (look-around,
back-references), and the refusal is reported when the manifest is read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

MAX_LENGTH: Final = 10_000
"""Characters of a pattern: what is longer was not written by hand, and costs as much to compile."""
MAX_SIZE: Final = 20_000
"""Instructions of a compiled pattern, hundreds of which are kept: ``(...){1000}`` is short and
large."""
_MEMORY: Final = 1 << 20
"""Bytes that RE2 may take for a pattern."""

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


@lru_cache(maxsize=256)  # a planner gives the same pattern to thousands of entries
def _compiled(pattern: str) -> object:
    import re2  # type: ignore[import-untyped]  # has no types

    options = re2.Options()
    options.log_errors = False  # RE2 would also print them to standard error
    options.max_mem = _MEMORY
    try:
        return re2.compile(_ESCAPE.sub(_in_re2, pattern), options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        why = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(why) from None


def _in_re2(escape: re.Match[str]) -> str:
    """Translate an escape to RE2's spelling: two differ from Python's and JavaScript's."""
    if escape[1]:
        return rf"\x{{{escape[1]}}}"
    return r"\z" if escape[2] == "Z" else escape[0]


def pattern_problem(pattern: str) -> str:
    """Say why this pattern cannot be searched for; "" if it can."""
    if len(pattern) > MAX_LENGTH:
        return f"it has {len(pattern)} characters, more than {MAX_LENGTH}"
    try:
        size = pattern_size(pattern)
    except (ValueError, UnicodeEncodeError) as error:
        return f"{error}; patterns are RE2's, which have no look-around and no back-references"
    if size > MAX_SIZE:
        return f"it comes to {size} instructions, more than {MAX_SIZE}; have it repeat less"
    return ""


def pattern_size(pattern: str) -> int:
    """Return of how many instructions a pattern consists once it is compiled.

    RE2 compiles some millions of them a second. Raises ValueError for what is no pattern.
    """
    size: int = _compiled(pattern).programsize  # type: ignore[attr-defined]  # RE2's own
    return size


def found_in(pattern: str, text: str) -> bool:
    """Return whether the pattern matches somewhere in the text.

    Raises ValueError for a pattern that ``pattern_problem`` reports.
    """
    # Lone surrogates are replaced: they have no UTF-8 form to search in.
    whole = text if text.isascii() else text.encode("utf-8", "replace").decode()
    matched: object = _compiled(pattern).search(whole)  # type: ignore[attr-defined]  # RE2's own
    return matched is not None
