"""Fixtures and helpers of what the movie bible promises; a ``settings`` fixture is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from pydantic import JsonValue

from tasks.movie_bible.bible import (
    BibleSettings,
    MovieBible,
    NewAnnotation,
)
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.documents import Document

T = TypeVar("T")

VALUES: dict[str, JsonValue] = {
    "summary": "A crew meets a stranger.",
    "themes": ["isolation", "motherhood"],
    "characters": ["Ripley", "Ash"],
    "mood": "tense",
}


@pytest.fixture
def bible(settings: BibleSettings) -> Iterator[MovieBible]:
    """An empty movie bible of this test's own."""
    with MovieBible.open(settings) as opened:
        yield opened


@pytest.fixture
def store(settings: BibleSettings) -> Iterator[Store]:
    """Another way into the same database, past the movie bible."""
    opened = Store(settings)
    yield opened
    opened.close()


def documents(count: int) -> list[Document]:
    """Documents with ids of one width."""
    return [Document(f"f/{number:05d}", f"text {number}") for number in range(count)]


def new(passage: str, version: str = "v1", /, **values: JsonValue) -> NewAnnotation:
    """An annotation without provenance."""
    return NewAnnotation(passage, version, values)


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run all of them in threads that begin together; their results, or the first error."""
    gate = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        gate.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
