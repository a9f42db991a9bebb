"""Reading."""

from __future__ import annotations

import json

import pytest
from pydantic import JsonValue
from sqlalchemy import func, select, update

from tasks.movie_bible import reading
from tasks.movie_bible.bible import (
    BibleError,
    BibleSettings,
    BibleUnavailableError,
    MovieBible,
    StoredAnnotation,
)
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import FIELDS, text_digest, values_digest
from tasks.movie_bible.models import Annotation, Film, Passage
from tests.workflows.movie_bible.common import VALUES, documents, new


class ReadingContract:
    """What the planner and the verification ask."""

    def test_a_scan_sees_every_kind_of_gap(self, bible: MovieBible) -> None:
        """No row, people's row, the current row, and one of another prompt version."""
        film = FilmFacts("f", "T")
        bible.load(
            [
                Document("f/1", "one", film=film),
                Document("f/2", "two", given={"mood": "epic"}),
                Document("f/3", "three", "scene"),
                Document("f/4", "four", given={"mood": "comic"}),
                Document("f/5", "five", given={"mood": "comic"}),
            ]
        )
        bible.write([new("f/3", "v2", summary="S"), new("f/4", "v2", summary="S")])
        bible.write([new("f/4", "v1", summary="old"), new("f/2", "v1", summary="old")])
        bible.write([new("f/9", "v2", summary="orphan")])
        found = list(bible.scan("v2"))
        assert [(one.id, bool(one.corpus), bool(one.current), one.stale) for one in found] == [
            ("f/1", False, False, False),
            ("f/2", True, False, True),
            ("f/3", False, True, False),
            ("f/4", True, True, True),
            ("f/5", True, False, False),
        ]
        assert (found[0].film, found[1].film) == (film, None)
        assert (found[2].text, found[2].kind) == ("three", "scene")
        assert found[2].text_digest == text_digest("three")
        assert found[3].current is not None
        assert found[3].current.summary == "S"
        some = ["f/4", "f/1", "f/9", "nowhere"]
        assert bible.scan_ids(some, "v2") == {"f/1": found[0], "f/4": found[3]}

    def test_ids_sort_as_in_python(
        self, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By code point, over the borders of pages."""
        monkeypatch.setattr(reading, "PAGE", 3)
        ids = ["a", "B", "Z", "ä", "é", "f/10", "f/9", "f-1", "F 1", "_", "羅", "🎬", "~", "zz"]
        bible.load([Document(one, "x") for one in ids])
        bible.write([new(one, mood="epic") for one in ids])
        bible.write([new(one, "v0", mood="epic") for one in ids])
        assert [one.id for one in bible.scan("v1")] == sorted(ids)
        assert all(one.current and one.stale for one in bible.scan("v1"))
        assert list(bible.annotated_ids()) == sorted(ids)

    def test_a_scan_that_is_left_holds_nothing(
        self, bible: MovieBible, settings: BibleSettings
    ) -> None:
        """Between its pages others may write, and no connection is kept."""
        bible.load(documents(3))
        for left in [bible.scan("v1") for _ in range(settings.pool_size * 3)]:
            next(left)
            bible.write([new("f/00000", mood="epic")])
        assert bible.annotations(["f/00000"], "v1")["f/00000"].revision == settings.pool_size * 3

    def test_more_ids_than_a_query_takes(self, bible: MovieBible) -> None:
        """They are asked for in parts, each id once."""
        bible.load(documents(1201))
        ids = [f"f/{number:05d}" for number in range(1201)]
        bible.write([new(one, mood="epic") for one in ids])
        assert len(bible.passages(ids + ids)) == 1201
        assert len(bible.annotations(ids, "v1")) == len(bible.scan_ids(ids, "v1")) == 1201
        assert bible.count_annotations(ids + ids, "v1") == 1201
        assert bible.count_annotations([], "v1") == 0
        assert bible.remove_annotations(ids + ids) == 1201

    def test_orphans_are_found_and_removed(
        self, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows whose passage is gone, each id once; nobody else's row is touched."""
        monkeypatch.setattr(reading, "PAGE", 2)
        bible.load(documents(3))
        bible.write([new(f"f/{number:05d}", mood="epic") for number in range(8)])
        bible.write([new("f/00005", "v2", mood="epic")])
        assert list(bible.orphans()) == [f"f/{number:05d}" for number in range(3, 8)]
        assert bible.remove_annotations(list(bible.orphans())) == 6
        assert list(bible.orphans()) == []
        assert list(bible.annotated_ids()) == ["f/00000", "f/00001", "f/00002"]

    def test_duplicates_show_where_the_constraint_is_gone(
        self, bible: MovieBible, store: Store
    ) -> None:
        """Somebody made the table anew without it, and doubled a row."""
        bible.write([new("f/1", mood="epic"), new("f/2", mood="epic")])
        assert bible.count_duplicates("v1") == []
        with store.writing() as connection:
            for line in (
                "ALTER TABLE annotation RENAME TO earlier",
                "CREATE TABLE annotation AS SELECT * FROM earlier",
                "INSERT INTO annotation SELECT * FROM earlier WHERE passage_id = 'f/2'",
            ):
                connection.exec_driver_sql(line)
        assert bible.count_duplicates("v1") == [("f/2", 2)]
        assert bible.count_annotations(None, "v1") == 3

    def test_a_gap_is_null_and_an_empty_list_is_none(self, bible: MovieBible, store: Store) -> None:
        """In the tables, too: JSON's null would be no NULL."""
        bible.write([new("f/1", themes=[], characters=None)])
        with store.reading() as connection:
            row = select(Annotation.themes.is_(None), func.count(Annotation.characters)).group_by(
                Annotation.id
            )
            assert connection.execute(row).one() == (False, 0)

    def test_statistics_count_what_is_filled(self, bible: MovieBible) -> None:
        """A passage counts once a field, whoever filled it; orphans do not count."""
        film = FilmFacts("f", "T")
        given: dict[str, JsonValue] = {"mood": "epic"}
        bible.load([*documents(3), Document("g/1", "x", film=film, given=given)])
        bible.write([new("g/1", mood="comic", themes=[]), new("orphan", mood="comic")])
        bible.write([new("f/00000", "v2", summary="S")])
        found = bible.statistics()
        assert (found.passages, found.films) == (4, 1)
        assert found.rows == {"corpus": 1, "v1": 2, "v2": 1}
        assert found.filled == {"summary": 1, "themes": 1, "characters": 0, "mood": 1}
        assert [found.gaps(name) for name in FIELDS] == [3, 3, 4, 3]
        assert bible.statistics("v1").filled["summary"] == 0
        assert bible.count_passages() == 4

    def test_a_row_changed_behind_our_back_shows(self, bible: MovieBible, store: Store) -> None:
        """Its values are those of the table, and no longer those of the digest."""
        written = bible.write([new("f/1", **VALUES)])["f/1"]
        with store.writing() as connection:
            connection.execute(update(Annotation).values(mood="comic"))
        changed = bible.annotations(["f/1"], "v1")["f/1"]
        assert isinstance(changed, StoredAnnotation)
        assert values_digest(changed.values) != written.digest

    def test_a_film_that_somebody_spoilt_is_a_sentence(
        self, bible: MovieBible, store: Store
    ) -> None:
        """It names the film."""
        bible.load([Document("f/1", "x", film=FilmFacts("f", "T"))])
        with store.writing() as connection:
            connection.execute(update(Film).values(year=-5))
        with pytest.raises(BibleError, match="film 'f' cannot be used, for year must be from 1"):
            list(bible.scan("v1"))

    def test_a_table_that_is_gone_is_a_sentence(self, bible: MovieBible, store: Store) -> None:
        """Not a traceback of the driver's."""
        with store.writing() as connection:
            connection.exec_driver_sql(f"DROP TABLE {Passage.__tablename__}")
        with pytest.raises(BibleUnavailableError, match=r"passage.*; see to it that the database"):
            bible.count_passages()

    def test_values_are_json(self, bible: MovieBible) -> None:
        """They go into receipts as they are."""
        bible.write([new("f/1", **VALUES)])
        values = bible.annotations(["f/1"], "v1")["f/1"].values
        assert json.loads(json.dumps(values)) == VALUES
