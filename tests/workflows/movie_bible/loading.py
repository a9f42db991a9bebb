"""Loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Barrier, BrokenBarrierError

import pytest
from sqlalchemy.engine import Connection

from tasks.movie_bible import loading
from tasks.movie_bible.bible import (
    BibleUnavailableError,
    LoadCounts,
    MovieBible,
)
from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import CORPUS, FIELDS, text_digest
from tests.workflows.movie_bible.common import at_once, documents


class LoadingContract:
    """Documents come in once, however often they are loaded."""

    def test_a_document_comes_out_as_it_went_in(self, bible: MovieBible) -> None:
        """Text, digest, kind and film, whatever the language."""
        film = FilmFacts("rashomon", "羅生門", 1950, "黒澤明", ("三船敏郎", "京マチ子"))
        document = Document("rashomon/plot", "Ein Mörder?\n🎬", "plot", film)
        assert bible.load([document]) == LoadCounts(inserted=1)
        found = bible.passages(["rashomon/plot", "nowhere"])
        assert list(found) == ["rashomon/plot"]
        passage = found["rashomon/plot"]
        assert (passage.text, passage.kind, passage.film) == (document.text, "plot", film)
        assert passage.text_digest == document.digest == text_digest("Ein Mörder?\n🎬")

    def test_loading_again_changes_nothing(self, bible: MovieBible) -> None:
        """Neither a passage nor the revision of what people wrote; over several batches."""
        film = FilmFacts("f", "T", 1990, cast=("A",))
        loaded = [
            Document(f"f/{n}", f"text {n}", film=film, given={"themes": ["a"]}) for n in range(1200)
        ]
        assert bible.load(loaded) == LoadCounts(inserted=1200)
        before = list(bible.scan("v1"))
        assert bible.load(iter(loaded)) == LoadCounts(unchanged=1200)
        assert list(bible.scan("v1")) == before
        assert {one.corpus.revision for one in before if one.corpus} == {1}

    def test_what_is_not_known_overwrites_nothing(self, bible: MovieBible) -> None:
        """Facts of a film are merged, from several documents and several loads."""
        bible.load(
            [
                Document("f/1", "one", film=FilmFacts("f", title="T", cast=("A", "B"))),
                Document("f/2", "two", film=FilmFacts("f", year=1990)),
            ]
        )
        counts = bible.load([Document("f/1", "one", film=FilmFacts("f", director="D", year=1991))])
        assert counts == LoadCounts(updated=1)
        found = bible.passages(["f/1", "f/2"])
        assert found["f/1"].film == FilmFacts("f", "T", 1991, "D", ("A", "B")) == found["f/2"].film
        assert bible.load([Document("f/1", "one")]) == LoadCounts(unchanged=1)
        assert bible.passages(["f/1"])["f/1"].film == found["f/1"].film

    def test_documents_that_disagree_settle(self, bible: MovieBible) -> None:
        """The later one of a batch has its way; loading both again changes nothing."""
        both = [
            Document("f/1", "one", film=FilmFacts("f", year=1990)),
            Document("f/2", "two", film=FilmFacts("f", year=1991)),
        ]
        assert bible.load(both) == LoadCounts(inserted=2)
        assert bible.load(both) == LoadCounts(unchanged=2)
        assert bible.passages(["f/1"])["f/1"].film == FilmFacts("f", year=1991)

    def test_a_changed_text_is_an_update(self, bible: MovieBible) -> None:
        """Text and digest follow the corpus; kind too."""
        bible.load([Document("f/1", "one"), Document("f/2", "two")])
        counts = bible.load([Document("f/1", "ONE", "scene"), Document("f/2", "two")])
        assert counts == LoadCounts(updated=1, unchanged=1)
        passage = bible.passages(["f/1"])["f/1"]
        assert (passage.text, passage.kind) == ("ONE", "scene")
        assert passage.text_digest == text_digest("ONE")

    def test_what_people_wrote_is_a_row_of_its_own(self, bible: MovieBible) -> None:
        """Of prompt version ``corpus``; fields come together from several loads."""
        bible.load([Document("f/1", "one", given={"mood": "eerie", "themes": []})])
        row = bible.annotations(["f/1"], CORPUS)["f/1"]
        assert row.values == {"summary": None, "themes": [], "characters": None, "mood": "eerie"}
        assert (row.revision, row.model, row.text_digest) == (1, None, text_digest("one"))
        bible.load([Document("f/1", "one", given={"summary": "S"})])
        row = bible.annotations(["f/1"], CORPUS)["f/1"]
        assert row.values == {"summary": "S", "themes": [], "characters": None, "mood": "eerie"}
        assert row.revision == 2
        assert bible.load([Document("f/1", "one", given={"summary": "S"})]).unchanged == 1
        assert bible.annotations(["f/1"], CORPUS)["f/1"].revision == 2
        assert bible.annotations(["f/1"], "v1") == {}

    def test_the_later_of_two_documents_wins(self, bible: MovieBible) -> None:
        """Also within one batch, which a corpus' reader would refuse."""
        given = {"mood": "comic"}
        counts = bible.load([Document("f/1", "one"), Document("f/1", "two", given=given)])
        assert counts == LoadCounts(inserted=1, updated=1)
        assert bible.passages(["f/1"])["f/1"].text == "two"
        assert bible.annotations(["f/1"], CORPUS)["f/1"].mood == "comic"

    def test_a_corpus_that_breaks_off_leaves_whole_batches(self, bible: MovieBible) -> None:
        """The batch in which it breaks off is not begun; what was told is there."""

        def broken() -> Iterator[Document]:
            yield from documents(700)
            raise RuntimeError("as if the line after were bad")

        told: list[LoadCounts] = []
        with pytest.raises(RuntimeError):
            bible.load(broken(), progress=told.append)
        assert told == [LoadCounts(inserted=500)]
        assert bible.count_passages() == 500
        assert bible.load(documents(700)) == LoadCounts(inserted=200, unchanged=500)

    def test_a_batch_that_fails_leaves_nothing(
        self, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the last of three tables cannot be written, the others are not either."""
        monkeypatch.setattr("tasks.movie_bible.loading.CORPUS", None)  # breaks annotations alone
        film = FilmFacts("f", "T")
        with pytest.raises(BibleUnavailableError):
            bible.add_documents([Document("f/1", "one", film=film, given={"mood": "epic"})])
        assert bible.count_passages() == 0
        assert bible.statistics().films == 0

    def test_several_load_the_same_at_once(self, bible: MovieBible) -> None:
        """No film, passage or row is lost, or there twice, and each was new for one alone."""

        def load(number: int) -> Callable[[], LoadCounts]:
            facts = [FilmFacts("f", "T"), FilmFacts("f", year=1990), FilmFacts("f", cast=("A",))]
            some = [
                Document(f"f/{n}", "x", film=facts[number], given={FIELDS[3]: "epic"})
                for n in range(50)
            ]
            return lambda: bible.load(some[::-1] if number else some)

        counts = at_once([load(number) for number in range(3)])
        assert sum(one.inserted for one in counts) == 50
        assert bible.passages(["f/0"])["f/0"].film == FilmFacts("f", "T", 1990, cast=("A",))
        assert {row.revision for row in bible.annotations(["f/0", "f/49"], CORPUS).values()} == {1}
        assert bible.count_annotations(None, CORPUS) == 50

    def test_loads_take_turns(self, bible: MovieBible, monkeypatch: pytest.MonkeyPatch) -> None:
        """What one compares, nobody changes before it writes: else one of the facts were lost."""
        gate, apply = Barrier(2), loading._Changes.apply

        def late(changes: loading._Changes, connection: Connection) -> None:
            with suppress(BrokenBarrierError):  # as it should be: the other is not let in
                gate.wait(timeout=0.2)
            apply(changes, connection)

        bible.load([Document("f/1", "x", film=FilmFacts("f"))])
        monkeypatch.setattr(loading._Changes, "apply", late)
        facts = [FilmFacts("f", title="T"), FilmFacts("f", year=1990)]
        at_once([partial(bible.load, [Document("f/1", "x", film=film)]) for film in facts])
        assert bible.passages(["f/1"])["f/1"].film == FilmFacts("f", "T", 1990)
