"""Hide secrets in text: after their names, by their form, and values that were registered.

Keep the values that this process hides wherever they appear.

Hide the passwords of URLs, also of those that are not percent-encoded as they have to be.

Take the values that this process hides: from its environment, and from whoever registers one.

All of it is for one process: what is hidden there is hidden in what that process writes.

Tell how a value is written by others: in URLs, JSON, Python, base64, and line by line.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction.names import Names, is_secret_name, names_in_force


@dataclass(slots=True)
class Hidden:
    """Values that are hidden. A session goes on to hide what its process has hidden before."""

    literals: tuple[str, ...] = ()
    registered: frozenset[str] = frozenset()


hidden_values: Final = ProcessState(Hidden, inherit=replace)


def literals() -> tuple[str, ...]:
    """Return the hidden values, the longest first: one may be a part of another."""
    return hidden_values.now.literals


def add_literals(values: Iterable[str]) -> None:
    now = hidden_values.now
    # Replaced, not changed in place: other threads iterate over it.
    now.literals = tuple(_longest_first({*now.literals, *values}))


def _longest_first(values: Iterable[str]) -> list[str]:
    return sorted(values, key=lambda one: (-len(one), one))


def register(secret: str) -> None:
    """Note that somebody has registered this value."""
    now = hidden_values.now
    now.registered |= {secret}  # not changed in place: other threads may be reading it


def registered_secrets() -> list[str]:
    """Return what was registered in this process, for other processes of the same run."""
    return sorted(hidden_values.now.registered)


HIDDEN: Final = "***"

# No pattern here starts with an open repetition: each runs over every line that is logged. After a
# user's name no port follows, but a password of any characters, which may be @ and / themselves.
_URL: Final = r"(://[^\s/:\"']*):(?!\d{1,5}(?:[/?#,\s]|\Z))(?:(?!://)[^\s\"']){0,1000}@"
_BEARER: Final = r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}"
_ELLIPSIS: Final = "..."
_SHORTEST_CUT: Final = 4
"""Characters of a part of a secret that are hidden beside an ellipsis."""
_LONGEST_CUT: Final = 300
_FOLDED: Final = re.compile("[\u0130\u0131\u017f\u212a]")
"""Letters that a pattern which ignores case takes for i, s and k."""

_TOKENS: Final = {
    "A3T,ABIA,ACCA,AKIA,ASIA": r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}",  # AWS
    "eyJ": r"eyJ[\w-]{8,}(?:\.[\w=-]*){1,4}",  # JSON Web Token, signed or encrypted
    "ghp_,gho_,ghu_,ghs_,ghr_": r"gh[pousr]_[A-Za-z0-9]{20,}",
    "github_pat_": r"github_pat_\w{20,}",
    "glpat-,gldt-,glft-,glsoat-,glrt-,glcbt-,glptt-,glimt-,glagent-,gloas-": (
        r"gl(?:pat|dt|ft|soat|rt|cbt|ptt|imt|agent|oas)-[\w-]{20,}"
    ),
    "GR1348941": r"GR1348941[\w-]{20,}",  # GitLab, too
    "xox,xapp-": r"xox[a-z](?:\.xox[a-z])?-[\w-]{10,}|xapp-[\w-]{10,}",  # Slack
    "hooks.slack": r"hooks\.slack\.com/(?:services|workflows)/[\w/+-]{10,}",
    "AIza,GOCSPX-,ya29.": r"AIza[\w-]{30,}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}",  # Google
    "k_live_,k_test_": r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    "sk-": r"\bsk-[\w-]{20,}",  # OpenAI, Anthropic and others that follow them
    "SG.": r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    "npm_": r"npm_[A-Za-z0-9]{30,}",
    "pypi-": r"pypi-AgE[\w-]{50,}",
    "sq0": r"sq0[a-z]{3}-[\w-]{20,}",  # Square
    "AKC": r"\bAKC[A-Za-z0-9]{10,}",  # Artifactory
    # The body of a key up to its end, whatever is put before its lines, or, where the text is cut,
    # as long as it looks like one, with line ends as they are or escaped.
    "PRIVATE KEY": (
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:(?!-----)[\s\S]){0,20000}-----END [A-Z0-9 ]{0,50}-----"
        r"|(?:(?!-----END)(?:[A-Za-z0-9+/=:,.\s-]|\\+[nr]))*)"
    ),
    "PuTTY-": r"PuTTY-User-Key-File-\d[^\0]*",
}
"""Forms of tokens by their signs: each text with a token has one of these in it."""
_TOKEN_SIGNS: Final = tuple(",".join(_TOKENS).split(","))


@lru_cache(maxsize=1)
def _by_form() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Compile the patterns of URLs, of bearers and of tokens, where they are first needed."""
    return (
        re.compile(_URL),
        re.compile(_BEARER, re.IGNORECASE),
        re.compile("|".join(_TOKENS.values())),
    )


def hidden(_secret: str) -> str:
    """Return what is shown instead of a secret."""
    return HIDDEN


def redact(text: str, mark: Callable[[str], str] = hidden) -> str:
    """Hide secrets in a text: passwords in URLs, ``password=...`` and the like, known tokens, and
    values that were registered.

    ``mark`` returns what is shown instead of a token or a registered value.
    """
    if "://" in text and "@" in text:
        text = _by_form()[0].sub(rf"\1:{HIDDEN}@", text)
    names = names_in_force()
    if _names_a_secret(text, names):
        text = _after_names(text, names)
    if _has_any(text, _TOKEN_SIGNS):
        text = _by_form()[2].sub(lambda match: mark(match[0]), text)
    return without(text, literals(), mark)


def without(text: str, secrets: Iterable[str], mark: Callable[[str], str] = hidden) -> str:
    """Replace each of these values in the text; longer ones come first."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, mark(secret))
    return text


def without_cut(text: str, secrets: Iterable[str]) -> str:
    """Hide the beginnings and ends of these values beside an ellipsis: somebody has cut them."""
    if _ELLIPSIS not in text:
        return text
    for secret in secrets:
        for size in range(min(len(text), len(secret), _LONGEST_CUT), _SHORTEST_CUT - 1, -1):
            if len(secret) > _SHORTEST_CUT:
                text = text.replace(_ELLIPSIS + secret[-size:], _ELLIPSIS + HIDDEN)
                text = text.replace(secret[:size] + _ELLIPSIS, HIDDEN + _ELLIPSIS)
    return text


def may_hold_secret(text: str) -> bool:
    """Return whether :func:`redact` has to look at a text, or at any part of it.

    The text may be a document: JSON in which letters of a name are escaped counts as one.
    """
    if ("://" in text and "@" in text) or "\\u" in text:
        return True
    named = _names_a_secret(text, names_in_force())
    return named or _has_any(text, _TOKEN_SIGNS) or _has_any(text, literals())


def secret_signs() -> str:
    """Return a pattern that is found in each text for which :func:`may_hold_secret` is true.

    For engines that search for many words at once: that takes a twentieth of the time, but one has
    to be loaded first.
    """
    return _signs_of(names_in_force().signs, literals())


@lru_cache(maxsize=2)
def _signs_of(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    words = [*_TOKEN_SIGNS, *values]
    return (
        rf"://[\s\S]*@|@[\s\S]*://|\\u|{_FOLDED.pattern}"
        rf"|(?i:{'|'.join(map(re.escape, names))})|{'|'.join(map(re.escape, words))}"
    )


def _names_a_secret(text: str, names: Names) -> bool:
    if not text.isascii() and _FOLDED.search(text) is not None:
        return True
    return _has_any(text.lower(), names.signs)


def _has_any(text: str, signs: Iterable[str]) -> bool:
    for sign in signs:  # noqa: SIM110 - a generator would be a call for each of them
        if sign in text:
            return True
    return False


def _after_names(text: str, names: Names) -> str:
    text = names.header.sub(_hide_header, text)
    text = names.pair.sub(_hide_pair, text)
    text = names.argument.sub(lambda match: f"{match[1] or match['tag']}{HIDDEN}", text)
    return _by_form()[1].sub(rf"\1{HIDDEN}", text)


def _hide_pair(match: re.Match[str]) -> str:
    """Keep name and quotes of a pair, and hide its value."""
    if match["escape"] is not None:
        escaped = match["escape"] + match["quote"]
        return f"{match[1]}{escaped}{HIDDEN}{escaped}"
    value = match[2].lstrip("bu") if match[2][:2] in ("b'", 'b"', "u'", 'u"') else match[2]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match[1]}{quote}{HIDDEN}{quote}"


def _hide_header(match: re.Match[str]) -> str:
    if match["scheme"] is not None:
        return f"{match[1]}{match['scheme']}{HIDDEN}"
    return _hide_pair(match)


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
    passwords = [one for url in urls for one in passwords_of(url)]
    for piece in _longest_first({piece for one in passwords for piece in _pieces(one) if piece}):
        for mark in ("",) if len(piece) >= _SHORTEST_PIECE else ("'", '"'):
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


_SHORTEST_PART: Final = 8
"""Characters of a line that is hidden by itself, and of a value that is looked for in base64."""
_URL_SAFE: Final = str.maketrans("+/", "-_")
_ESCAPES: Final[Sequence[Callable[[str], str]]] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
)


def spellings(secret: str) -> Iterator[str]:
    """Yield how a value is written: as it is, and within URLs, JSON, Python's repr and base64.

    JSON may be in JSON, or in Python's repr, as in the text of a KeyError. A value of several lines
    is hidden line by line, too: who prints it may put something before each.
    """
    escaped = {secret}
    for _ in range(2):
        escaped |= {escape(one) for one in escaped for escape in _ESCAPES}
    yield from escaped
    yield quote(secret, errors="replace")
    yield quote(secret, safe="", errors="replace")
    yield quote_plus(secret, errors="replace")
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in map(str.strip, lines) if len(line) >= _SHORTEST_PART)
    if len(secret) >= _SHORTEST_PART:
        yield from _in_base64(secret.encode("utf-8", "replace"))


def spelled(secrets: Iterable[str]) -> list[str]:
    """Return all spellings of these values, the longest first: one may be a part of another."""
    return _longest_first({spelling for secret in secrets for spelling in spellings(secret)})


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of it in any place of a longer text, as in ``user:password``."""
    for before in range(3):
        whole = b64encode(bytes(before) + data).decode()
        text = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield text
        yield text.translate(_URL_SAFE)


SHORTEST_LITERAL: Final = 8
"""Characters below which a value of the environment ("1", "guest") is not hidden: it would be
blanked out of innocent text."""
SHORTEST_SECRET: Final = 4
"""Characters that a secret must have that somebody registers."""


def manifest_secret(secret: str) -> str:
    """Hide this value in all that this process shows from now on, and return it.

    Raises ValueError for one of less than four characters, TypeError for one that is no text.
    """
    if not isinstance(secret, str):
        raise TypeError(f"a secret must be a str, not {type(secret).__name__}; give its text")
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"a secret of {len(secret)} characters cannot be hidden without blanking out other "
            f"text; it must have {SHORTEST_SECRET} or more"
        )
    add_literals(spellings(secret))
    register(secret)
    return secret


def hide(secret: str) -> None:
    """Hide this value, unless it is too short to be told from words."""
    if len(secret) >= SHORTEST_LITERAL:
        add_literals(spellings(secret))


def hide_environment() -> None:
    """Hide the values of secret-looking variables, and the passwords of URLs in variables.

    The path of a file, in which a secret is, is none.
    """
    for name, value in os.environ.items():
        if is_secret_name(name) and not _is_path(value):
            hide(value)
        if "://" in value:
            for password in passwords_of(value):
                hide(password)


def _is_path(value: str) -> bool:
    return os.sep in value and os.path.exists(value)  # noqa: PTH110 - a Path raises for long texts
