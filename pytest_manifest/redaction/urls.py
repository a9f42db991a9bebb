"""Hide the passwords of URLs, also of those that are not percent-encoded as they have to be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from pytest_manifest.redaction.texts import HIDDEN, redact, without

_SHORTEST_PIECE: Final = 3
"""Characters that a piece of a password must have to be hidden outside quotes."""
_NEXT_URL: Final = re.compile(r";(?=[\w+.-]+://)")
_ENDS: Final = re.compile(r"[/?#@:]")
"""What ends a part of a well-formed URL."""
_MOST_ENDS: Final = 30
"""Of more of them only neighbours are taken for the ends of a piece."""


def redact_url(url: str) -> str:
    """Replace a URL's password with ``***``, whatever characters it has.

    A password may hold what ends it in a well-formed URL (``/``, ``?``, ``#``, ``@``), so all up to
    the last ``@`` counts as user and password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return redact(url)
    userinfo, at, location = rest.rpartition("@")
    if not at:
        return redact(url)
    user, colon, _ = userinfo.partition(":")
    shown = f"{user}:{HIDDEN}" if colon else user
    return redact(f"{scheme}://{shown}@{location}")


def passwords_of(url: str) -> Iterator[str]:
    """Yield a URL's passwords as they are written and decoded; one text may hold several URLs."""
    for part in _NEXT_URL.split(url):
        _, separator, rest = part.partition("://")
        userinfo, at, _ = rest.rpartition("@")
        _, colon, password = userinfo.partition(":")
        if separator and at and colon and password:
            yield password
            if (decoded := unquote(password)) != password:
                yield decoded


def redact_error(error: BaseException, *urls: str) -> str:
    """Return type and message of an error as :func:`redact_about` has it."""
    return redact_about(f"{type(error).__name__}: {error}", *urls)


def redact_about(text: str, *urls: str) -> str:
    """Hide in a text what :func:`redact` does, and the passwords of these URLs and parts of them.

    A library that takes a URL apart where its password is not encoded, repeats pieces of it, as in
    "Port could not be cast to integer value as ...".
    """
    pieces = {
        piece
        for url in urls
        for password in passwords_of(url)
        for piece in _pieces(password)
        if piece
    }
    long = sorted((one for one in pieces if len(one) >= _SHORTEST_PIECE), key=len, reverse=True)
    text = without(text, long)
    for piece in pieces.difference(long):
        for mark in "'\"":
            text = text.replace(f"{mark}{piece}{mark}", f"{mark}{HIDDEN}{mark}")
    return redact(text)


def _pieces(password: str) -> Iterator[str]:
    """Yield all that may be taken for a part of the URL: what is between any two of its ends."""
    ends = [-1, *(found.start() for found in _ENDS.finditer(password)), len(password)]
    for number, begin in enumerate(ends):
        following = ends[number + 1 :]
        for end in following if len(ends) <= _MOST_ENDS else following[:1]:
            yield password[begin + 1 : end]
    yield password
