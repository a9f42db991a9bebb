"""A model that needs no network and no key: it extracts, by counting words, and writes nothing new.

The same request has the same answer on every machine. It reads English best; in a language without
its words it still picks sentences and frequent words.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter

from tasks.movie_bible.fields import FIELDS, MOODS, UNSTORABLE
from tasks.text_model.base import TextAnswer, TextRequest, estimate_tokens
from tasks.text_model.failures import BadRequest
from tasks.text_model.settings import DEFAULT_OFFLINE, OFFLINE

LEXICON: Final = Path(__file__).with_name("lexicon.json")
MOST_THEMES: Final = 5
MOST_CHARACTERS: Final = 12
LONGEST_SUMMARY: Final = 400
LONGEST_SENTENCE: Final = 300
LONGEST_WORD: Final = 40
LONGEST_NAME: Final = 80
READ_FOR_NAMES: Final = 100_000
MOST_NAMES: Final = 200
NO_MOOD: Final = "serene"
"""The mood of a text none of whose words tells a mood."""

APOSTROPHE: Final = "['\u2019]"
CLOSING: Final = "[\"'\u201d\u2019)]"
FULL_WIDTH: Final = "[\u3002\uff01\uff1f]"
"""The ends of sentences in Chinese and Japanese, which no space follows."""

WORD: Final = re.compile(rf"[^\W\d_]+(?:{APOSTROPHE}[^\W\d_]+)*")
SENTENCE_END: Final = re.compile(rf"(?<=[.!?\u2026]){CLOSING}*\s+|\n\s*\n|(?<={FULL_WIDTH})")
CAPITAL: Final = f"[{''.join(filter(str.isupper, map(chr, range(0x530))))}]"
"""A capital letter of the Latin, Greek or Cyrillic script."""

NAME_WORD: Final = rf"{CAPITAL}[\w'\u2019-]*\w"
NAME: Final = re.compile(
    rf"{NAME_WORD}(?:\s+(?:(?:de|da|di|la|le|van|von|der|of|the)\s+)?{NAME_WORD}){{0,4}}"
)
POSSESSIVE: Final = re.compile(rf"{APOSTROPHE}s\b")


class ExtractiveModel:
    """Fills the fields of the movie bible from a passage's own words.

    ``latency`` is how many seconds each call takes, for demonstrations.
    """

    def __init__(self, *, name: str = DEFAULT_OFFLINE, latency: float = 0.0) -> None:
        self.provider = OFFLINE
        self.name = name
        self._latency = latency

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def generate(self, request: TextRequest) -> TextAnswer:
        """Fill the wanted fields of each text. Raises BadRequest for a field it does not know."""
        unknown = [name for name in request.fields if name not in FIELDS]
        if unknown:
            raise BadRequest(
                f"{self.name} cannot fill {', '.join(unknown)}; ask for some of {', '.join(FIELDS)}"
            )
        time.sleep(self._latency)
        items: list[JsonValue] = [
            {"key": one.key, **{name: _fill(name, one.text) for name in request.fields}}
            for one in request.texts
        ]
        text = json.dumps({"items": items}, ensure_ascii=False)
        return TextAnswer(text, request.estimated_tokens, estimate_tokens(text), self.name)

    def close(self) -> None:
        """Do nothing: no connection is held."""


def _fill(name: str, text: str) -> JsonValue:
    text = UNSTORABLE.sub(" ", text)
    if name == "summary":
        return summary(text)
    if name == "mood":
        return mood(text)
    found = themes(text) if name == "themes" else characters(text)
    return list(found)


@dataclass(frozen=True, slots=True)
class _Lexicon:
    stop: frozenset[str]
    names: frozenset[str]
    titles: frozenset[str]
    themes: dict[str, list[str]]
    moods: dict[str, list[str]]


@cache
def _lexicon() -> _Lexicon:
    return TypeAdapter(_Lexicon).validate_json(LEXICON.read_bytes())


def summary(text: str) -> str:
    """Return the one or two sentences with the most frequent words, in the text's order."""
    sentences = [" ".join(one.split()) for one in SENTENCE_END.split(text) if one.strip()]
    if not sentences:
        return text.strip()[:LONGEST_SENTENCE] or "-"
    weights = Counter(_content_words(text))

    def weight(sentence: str) -> float:
        words = _content_words(sentence)
        # The sum would favour the longest sentence, the mean the shortest.
        return sum(weights[word] for word in set(words)) / (4 + len(words))

    order = sorted(range(len(sentences)), key=lambda place: (-weight(sentences[place]), place))
    chosen = [_shortened(sentences[place]) for place in sorted(order[:2])]
    if len(" ".join(chosen)) > LONGEST_SUMMARY:
        chosen = [_shortened(sentences[order[0]])]
    return " ".join(chosen)


def _shortened(sentence: str) -> str:
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    cut = sentence[:LONGEST_SENTENCE]
    return (cut.rsplit(" ", 1)[0] or cut) + "…"


def themes(text: str) -> list[str]:
    """Return up to five themes: the lexicon's by frequency of their words, then frequent words."""
    counts = Counter(_words(text))
    scores = {
        theme: sum(counts[word] for word in words) for theme, words in _lexicon().themes.items()
    }
    known = sorted((theme for theme in scores if scores[theme]), key=lambda t: (-scores[t], t))
    names = {word for name in characters(text) for word in _words(name)}
    told = {word for theme in known for word in _lexicon().themes[theme]}
    frequent = Counter(_content_words(text))
    others = sorted(
        (word for word in frequent if word not in names | told and len(word) > 3),
        key=lambda word: (-frequent[word], word),
    )
    found = (known + [word for word in others if word not in known])[:MOST_THEMES]
    return found or [(_words(text) or ["untold"])[0]]


def characters(text: str) -> list[str]:
    """Return the names in the text, in order of first appearance, each once.

    A capital at the head of a sentence makes no name, unless the word stands elsewhere with one.
    Of a long text only the beginning is read.
    """
    return list(_characters(text[:READ_FOR_NAMES]))


@lru_cache(maxsize=8)  # themes ask for the same text's names
def _characters(text: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    known: dict[tuple[str, bool], str] = {}
    for sentence in SENTENCE_END.split(text):
        head = len(sentence) - len(sentence.lstrip(" \"'\u201c\u2018("))
        for match in NAME.finditer(sentence):
            seen = match.group(), match.start() == head
            if seen not in known:
                known[seen] = _without_stop_words(seen[0], at_head=seen[1], text=text)
            if known[seen] and len(known[seen]) <= LONGEST_NAME:
                found.setdefault(known[seen])
        if len(found) > MOST_NAMES:
            break
    full = [name for name in found if not any(_is_part(name, other) for other in found)]
    return tuple(full[:MOST_CHARACTERS])


def _without_stop_words(name: str, *, at_head: bool, text: str) -> str:
    """Strip leading ordinary words from a name; return "" where nothing of a name is left."""
    lexicon = _lexicon()
    words = POSSESSIVE.sub("", name).split(" ")
    while words and (words[0].lower() in lexicon.stop or words[0] in lexicon.names):
        words, at_head = words[1:], False
    whole = " ".join(words)
    if not words or whole in lexicon.titles or words[-1] in lexicon.names:
        return ""
    if at_head and len(words) == 1 and not _stands_elsewhere(whole, text):
        return ""
    return whole if whole in text else ""


def _stands_elsewhere(word: str, text: str) -> bool:
    """Return whether the word is capitalised within a sentence and nowhere in lower case."""
    within = re.search(rf"[\w,;:]\s+{re.escape(word)}\b", text)
    small = re.search(rf"\b{re.escape(word.lower())}\b", text)
    return within is not None and small is None


def _is_part(name: str, other: str) -> bool:
    """Return whether ``other`` is a longer name that holds all words of ``name``, side by side."""
    return name != other and f" {name} " in f" {other} "


def mood(text: str) -> str:
    """Return the mood whose words occur most often; of several, the first of MOODS."""
    counts = Counter(_words(text))
    lexicon = _lexicon().moods
    scores = {one: sum(counts[word] for word in lexicon.get(one, ())) for one in MOODS}
    best = max(MOODS, key=lambda one: scores[one])
    return best if scores[best] else NO_MOOD


def _words(text: str) -> list[str]:
    return [match.group().lower()[:LONGEST_WORD] for match in WORD.finditer(text)]


def _content_words(text: str) -> list[str]:
    return [word for word in _words(text) if word not in _lexicon().stop and len(word) > 2]
