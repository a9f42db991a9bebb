"""Count words as the offline judges do: ordinary English ones, names, and what texts share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Final

from pydantic import BaseModel, ConfigDict

from tasks.text_model.offline import CAPITAL, LEXICON, POSSESSIVE, SENTENCE_END, WORD

STEM: Final = 5
"""Letters by which words are compared: ``murder`` and ``murders``, ``begin`` and ``beginning``."""
NAME_WORD: Final = re.compile(rf"^{CAPITAL}")


class _Lexicon(BaseModel):
    model_config = ConfigDict(extra="ignore")

    stop: frozenset[str]
    names: frozenset[str]
    titles: frozenset[str]


@cache
def _lexicon() -> _Lexicon:
    return _Lexicon.model_validate_json(LEXICON.read_bytes())


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are written, without ``'s``."""
    return [POSSESSIVE.sub("", one) for one in WORD.findall(text)]


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, each on one line."""
    return [" ".join(one.split()) for one in SENTENCE_END.split(text) if one.strip()]


def content_stems(text: str) -> set[str]:
    """Return the beginnings of the words that say something, without case and accents."""
    stop = _lexicon().stop
    found = (folded(word) for word in words_of(text))
    return {word[:STEM] for word in found if word not in stop and len(word) > 2}


def folded(text: str) -> str:
    """Return the text without case and accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in parts if not unicodedata.combining(one))


def english_share(text: str) -> float:
    """Return the share of a text's words that are ordinary English ones, from 0 to 1."""
    words = [word.lower() for word in words_of(text)]
    return sum(word in _lexicon().stop for word in words) / len(words) if words else 0.0


def foreign_letters(text: str) -> float:
    """Return the share of a text's letters that are not of the Latin script, from 0 to 1."""
    letters = [one for one in text if one.isalpha()]
    latin = sum(unicodedata.name(one, "").startswith("LATIN") for one in letters)
    return 1 - latin / len(letters) if letters else 0.0


def names_in(text: str) -> list[str]:
    """Return the words within sentences that begin with a capital, each once.

    The first word of a sentence tells nothing, as it always has one.
    """
    found: dict[str, None] = {}
    for sentence in sentences_of(text):
        for word in words_of(sentence)[1:]:
            if NAME_WORD.match(word) and len(word) > 1 and not _is_ordinary(word):
                found.setdefault(word)
    return list(found)


def _is_ordinary(word: str) -> bool:
    lexicon = _lexicon()
    return word.lower() in lexicon.stop or word in lexicon.names | lexicon.titles


def share_found(words: Iterable[str], among: set[str]) -> float:
    """Return the share of the words that are among the others; 1 where there are none."""
    wanted = set(words)
    return len(wanted & among) / len(wanted) if wanted else 1.0
