"""Writing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from tasks.movie_bible.bible import (
    BibleUnavailableError,
    MovieBible,
    NewAnnotation,
)
from tasks.movie_bible.fields import FIELDS, values_digest
from tests.workflows.movie_bible.common import VALUES, at_once, new


class WritingContract:
    """One row per passage and prompt version, and its history in one number."""

    def test_a_row_comes_out_as_it_went_in(self, bible: MovieBible) -> None:
        """Values and provenance; the moment is now, in UTC."""
        row = NewAnnotation(
            "f/1",
            "v1",
            VALUES,
            prompt_digest="p" * 64,
            text_digest="t" * 64,
            provider="offline",
            model="extractive-1",
            answered_by="extractive-1",
            service_tier="flex",
            run="run-1",
            entry="gap-0001",
            attempt=2,
            tokens_in=2_000_000,
            tokens_out=7,
            tokens_cached=1_000_000,
            cost_nanos=5_000_000_000,
        )
        written = bible.write([row])
        assert (written["f/1"].action, written["f/1"].revision) == ("inserted", 1)
        assert written["f/1"].digest == values_digest(VALUES)
        stored = bible.annotations(["f/1"], "v1")["f/1"]
        for name in NewAnnotation.__dataclass_fields__:
            assert getattr(stored, name) == getattr(row, name), name
        assert stored.written_at.utcoffset() == timedelta(0)
        assert abs(datetime.now(timezone.utc) - stored.written_at) < timedelta(minutes=5)

    def test_an_update_keeps_the_other_fields(self, bible: MovieBible) -> None:
        """It sets its own, and all provenance; the digest is of everything stored."""
        bible.write([NewAnnotation("f/1", "v1", {"summary": "S", "themes": []}, run="one")])
        change = NewAnnotation("f/1", "v1", {"mood": "epic", "summary": None}, entry="e")
        written = bible.write([change])["f/1"]
        stored = bible.annotations(["f/1"], "v1")["f/1"]
        assert stored.values == {
            "summary": None,
            "themes": [],
            "characters": None,
            "mood": "epic",
        }
        assert (stored.run, stored.entry, stored.revision) == (None, "e", 2)
        assert (written.action, written.revision) == ("updated", 2)
        assert written.digest == values_digest(stored.values)

    def test_the_history_tells_who_has_set_which_field_and_at_what_price(
        self, bible: MovieBible
    ) -> None:
        """Also where several have filled one row, and when the row is gone."""
        first = NewAnnotation("f/1", "v1", {"summary": "S"}, model="a", run="one", cost_nanos=5)
        second = NewAnnotation("f/1", "v1", {"mood": "epic", "themes": None}, model="b")
        bible.write([first])
        bible.write([second])
        bible.write([new("f/1", "v2", mood="comic")])
        told = [
            (one.revision, one.fields, one.model, one.run, one.cost_nanos)
            for one in bible.writings(["f/1", "f/2"], "v1")["f/1"]
        ]
        assert told == [(1, ["summary"], "a", "one", 5), (2, ["mood"], "b", None, 0)]
        bible.remove_annotations(["f/1"])
        assert len(bible.writings(["f/1"], "v1")["f/1"]) == 2

    def test_prompt_versions_do_not_meet(self, bible: MovieBible) -> None:
        """Each has a row of its own."""
        bible.write([new("f/1", mood="epic")])
        bible.write([new("f/1", "v2", mood="comic")])
        assert bible.annotations(["f/1"], "v1")["f/1"].mood == "epic"
        assert bible.annotations(["f/1"], "v2")["f/1"].mood == "comic"

    def test_rows_with_different_fields_in_one_writing(self, bible: MovieBible) -> None:
        """A batch of which each passage lacks something else; more than one query's worth."""
        rows = [new(f"f/{n:05d}", **{FIELDS[n % 2 * 3]: f"value {n}"}) for n in range(1100)]
        written = bible.write(rows)
        assert len(written) == 1100
        stored = bible.annotations([row.passage_id for row in rows], "v1")
        for row in rows:
            assert stored[row.passage_id].values == dict.fromkeys(FIELDS) | dict(row.values)

    def test_a_writing_is_done_whole_or_not_at_all(self, bible: MovieBible) -> None:
        """A row that the database refuses takes the others back with it."""
        bad = NewAnnotation("f/2", "v1", {"mood": "epic"}, cost_nanos=None)  # type: ignore[arg-type]  # what no caller may give
        with pytest.raises(BibleUnavailableError, match="the movie bible in"):
            bible.write([new("f/1", summary="S"), bad])
        assert bible.count_annotations(None, "v1") == 0

    @pytest.mark.parametrize(
        ("rows", "sentence"),
        [
            ([new("f/1", mood="epic"), new("f/1", themes=[])], "'f/1' comes twice"),
            ([new("f/1", themes="x")], "themes must be a list of texts, not text"),
            ([new("f/1", summary="a\0b")], "summary holds a NUL character"),
            ([new("f/1", themes=["\ud800"])], "item 1 that holds half of a surrogate pair"),
            ([new("f/1", plot="x")], "plot is no field"),
        ],
    )
    def test_what_cannot_be_stored_is_refused(
        self, bible: MovieBible, rows: list[NewAnnotation], sentence: str
    ) -> None:
        """Alike on every database, with a sentence, before anything is written."""
        with pytest.raises(ValueError, match=sentence):
            bible.write([new("a", mood="epic"), *rows])
        assert bible.count_annotations(None, "v1") == 0

    def test_nothing_to_write(self, bible: MovieBible) -> None:
        """Is written at once."""
        assert bible.write([]) == {}

    def test_several_write_the_same_rows_at_once(self, bible: MovieBible) -> None:
        """In opposite orders: nobody waits for ever, no row is doubled, no field is lost."""
        ids = [f"f/{number}" for number in range(60)]

        def write(name: str) -> Callable[[], set[int]]:
            # Other fields for every second row: a statement for each row, so that they meet.
            names = [{name}, {name, "mood"}]
            rows = [
                new(one, **{field: VALUES[field] for field in names[number % 2]})
                for number, one in enumerate(ids)
            ]
            if name in {"themes", "mood"}:
                rows.reverse()
            return lambda: {written.revision for written in bible.write(rows).values()}

        revisions = at_once([write(name) for name in FIELDS])
        assert sorted(map(sorted, revisions)) == [[1], [2], [3], [4]]
        stored = bible.annotations(ids, "v1")
        assert all(row.values == VALUES and row.revision == 4 for row in stored.values())
        assert bible.count_annotations(ids, "v1") == 60
        assert bible.count_duplicates("v1") == []
