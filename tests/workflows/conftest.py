"""Keep tests of the example in one process apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.movie_bible.per_process import close_movie_bible


@pytest.fixture(autouse=True)
def _own_movie_bible() -> Iterator[None]:
    """Have each test open the movie bible that its environment names, not one left by another."""
    close_movie_bible()
    yield
    close_movie_bible()
