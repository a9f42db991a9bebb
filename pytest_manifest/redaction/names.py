"""Know the names under which secrets stand, in keys of documents and in text.

Hold what this process hides: names, whether reports are redacted at all, and the salt.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from pytest_manifest.process_state import ProcessState

DEFAULT_NAMES: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "access_key",
    "account_key",
    "private_key",
    "secret_key",
    "signing_key",
    "encryption_key",
    "credential",
    "authorization",
    "cookie",
)
"""Endings of names, in any case; an underscore matches a hyphen or nothing, too."""

HEADERS: Final = ("authorization", "cookie")
"""Names of HTTP headers, whose value in text goes on to the end of the line."""

_COUNTED: Final = "token"
"""A name whose plural is a number, as in ``max_tokens``."""

# Every text in which a pattern below finds a pair contains one of these. Searching for them takes
# a hundredth of the time, and nearly no line has one.
_SIGNS: Final = (
    *("pass", "secret", "token", "key", "credential", "authorization", "cookie"),
    *("bearer", "basic"),  # of the pattern of bearers, which is searched with these
)

_QUOTED: Final = (
    # An escaped quote, as in JSON within JSON, up to the same one or the end of the line.
    r"(?P<escape>\\+)(?P<quote>[\"'])(?:.*?(?<!\\)(?P=escape)(?P=quote)|.*)"
    # Up to the closing quote or, where the text was cut, its end.
    r"|[bu]?\"(?:[^\"\\]|\\.)*(?:\"|\\?\Z)|[bu]?'(?:[^'\\]|\\.)*(?:'|\\?\Z)"
)
_CONTAINER: Final = (
    r"[\w.]*[\[({](?:[^\[\](){}]|[\[({][^\[\](){}]*[\])}])*[\])}]?"  # one within it, too
)
_BARE: Final = r"[^\s,;&\"'}\])]+"
_ARGUMENT: Final = r"(?:\\*[\"'],\s*|\s+)(?:\\*[\"'])?"
"""What is between an option and its value: ``--password x``, ``['--password', 'x']``."""
_SCHEMES: Final = r"(?:bearer|basic|digest|token|negotiate|apikey)\s+"
_LINE: Final = rf"(?P<scheme>{_SCHEMES})?[^\s\"'\\][^\r\n\"'\\]*"


@dataclass(frozen=True, slots=True)
class Names:
    """The names in force, as patterns.

    ``ending`` matches a whole name; ``pair`` and ``header`` match in text a name with its value,
    which is their second group; ``argument`` an option of a command, or an element of XML, as its
    first group, with its value. ``signs``: lower-case texts, one of which is in each text in which
    they match.
    """

    ending: re.Pattern[str]
    pair: re.Pattern[str]
    header: re.Pattern[str]
    argument: re.Pattern[str]
    signs: tuple[str, ...]


def compile_names(added: Iterable[str] = (), removed: Iterable[str] = ()) -> Names:
    """Compile the default names, with more or less of them."""
    gone = {_plain(name) for name in removed}
    every = [name for name in DEFAULT_NAMES if _plain(name) not in gone]
    extra = [name for name in added if name not in every]
    headers = _any(_form(name) for name in every if name in HEADERS)
    forms = _any([*(_form(name) for name in every if name not in HEADERS), *map(_exact, extra)])
    name, flags = rf"(?:{forms}|{headers})", re.IGNORECASE
    return Names(
        ending=re.compile(rf"{name}\Z", flags),
        pair=re.compile(
            rf"((?:{forms})(?:\\*[\"'])?\s*[:=]\s*)({_QUOTED}|{_CONTAINER}|{_BARE})", flags
        ),
        header=re.compile(
            rf"((?:{headers})(?:\\*[\"']\s*[:=,]|\s*[:=])\s*)({_QUOTED}|{_LINE})", flags
        ),
        argument=re.compile(
            rf"(--[\w-]{{0,40}}?{name}{_ARGUMENT})(?![-\"'<>]){_BARE}"
            rf"|(?P<tag><[\w:.-]{{0,40}}?{name}(?:\s[^<>]{{0,200}})?>)[^<>]+",
            flags,
        ),
        # Of a name the longest part that is in each text that has the name.
        signs=(*_SIGNS, *(max(re.split("[_-]", name.lower()), key=len) for name in extra)),
    )


def _any(forms: Iterable[str]) -> str:
    """Return a pattern of any of these; of none, one that never matches."""
    return "|".join(forms) or r"(?!)"


def _form(name: str) -> str:
    """Return the pattern of a default name, and of its plural, where that is no number."""
    return _exact(name) + ("" if name == _COUNTED else "s?")


def _exact(name: str) -> str:
    return "[_-]?".join(map(re.escape, re.split("[_-]", name)))


def _plain(name: str) -> str:
    return re.sub("[_-]", "", name).lower()


def parse_names(words: Sequence[str]) -> Names:
    """Compile names as a user writes them: more names, and ``!name`` for one that is none.

    Raises ValueError for a word that is no name.
    """
    for word in words:
        if not re.fullmatch(r"!?[^\W_][\w-]*", word):
            raise ValueError(
                f"{word!r} is no name: write letters, digits, - and _, or !NAME for one of "
                "the defaults that is not to be hidden"
            )
    removed = [word[1:] for word in words if word.startswith("!")]
    known = {_plain(name) for name in DEFAULT_NAMES}
    for name in removed:
        if _plain(name) not in known:
            raise ValueError(f"!{name} takes away no name; there are: {', '.join(DEFAULT_NAMES)}")
    return compile_names([word for word in words if not word.startswith("!")], removed)


_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Settings:
    names: Names | None = None
    is_on: bool = True
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(_SALT_BYTES))


settings: Final = ProcessState(_Settings)


def configure(*, names: Sequence[str] = (), is_on: bool = True) -> None:
    """Take more names, or ``!name`` for one less, and whether documents are redacted at all.

    Raises ValueError for a word that is no name.
    """
    compiled = parse_names(names) if names else None
    settings.now = replace(settings.now, names=compiled, is_on=is_on)


def names_in_force() -> Names:
    return settings.now.names or _defaults()


@lru_cache(maxsize=1)
def _defaults() -> Names:
    return compile_names()


def is_secret_name(name: str) -> bool:
    """Return whether what stands under this name is hidden."""
    return names_in_force().ending.search(name) is not None


def is_on() -> bool:
    """Return whether documents are redacted before they are shown."""
    return settings.now.is_on


def current_salt() -> bytes:
    """Return the session's salt: random, and in no file."""
    return settings.now.salt


def use_salt(salt: bytes) -> None:
    """Take the salt of the session that this process is part of."""
    settings.now = replace(settings.now, salt=salt)
