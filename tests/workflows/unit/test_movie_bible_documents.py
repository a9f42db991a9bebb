"""Documents and fields: what can be stored, and the digests by which it is compared."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import (
    FIELDS,
    LIST_FIELDS,
    MOODS,
    field_fault,
    text_digest,
    values_digest,
)

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


def test_a_text_digest_is_that_of_its_utf_8() -> None:
    """So that other programs can check it."""
    assert text_digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text_digest("ä") == text_digest("\u00e4") != text_digest("a\u0308")


def test_a_values_digest_is_that_of_canonical_json() -> None:
    """The four fields alone, in one order; absent is null."""
    canonical = '{"characters":null,"mood":"ä","summary":null,"themes":[]}'
    assert values_digest({"themes": [], "mood": "ä", "other": 1}) == text_digest(canonical)
    assert values_digest({}) == values_digest(dict.fromkeys(FIELDS))
    assert values_digest({"themes": []}) != values_digest({"themes": None})
    assert values_digest({"themes": ["a", "b"]}) != values_digest({"themes": ["b", "a"]})


def test_moods_are_sorted_and_unlike() -> None:
    """A model chooses from them."""
    assert list(MOODS) == sorted(set(MOODS))
    assert set(FIELDS) > LIST_FIELDS


@given(st.dictionaries(st.sampled_from(FIELDS), TEXTS), TEXTS)
def test_a_document_goes_through_json(words: dict[str, str], text: str) -> None:
    """An equal one comes back, whatever the text."""
    values: dict[str, JsonValue] = {
        name: [word] if name in LIST_FIELDS else word for name, word in words.items()
    }
    document = Document("a/b", text, "plot", FilmFacts("a", text, 1, None, (text,)), values)
    data = json.loads(json.dumps(document.as_json()))
    assert Document.from_json(data) == document
    assert Document.from_json(data).digest == text_digest(text)


def test_plain_json_says_only_what_is_known() -> None:
    """It goes into manifests, one for each document."""
    assert Document("a", "t").as_json() == {"id": "a", "text": "t", "kind": "note"}
    assert FilmFacts("a", year=1).as_json() == {"id": "a", "year": 1}
    assert Document.from_json({"id": "a", "text": "t"}) == Document("a", "t")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": ""}, "id is blank"),
        ({"id": 5}, "id must be text, not a number"),
        ({"id": "x" * 151}, r"id has 151 characters \('xxx.*150 is the most"),
        ({"id": "a\tb"}, r"id holds a character that cannot be printed \('a\\tb'\)"),
        ({"id": " a"}, "id begins or ends with a space"),
        ({"id": "a\0"}, "id holds a NUL character"),
        ({"text": " \n"}, "text is blank"),
        ({"text": "a\0b"}, "text holds a NUL character, which PostgreSQL cannot store"),
        ({"text": "a\ud800"}, r"text holds half of a surrogate pair \(\\ud800\)"),
        ({"text": None}, "text must be text, not null"),
        ({"kind": "k" * 51}, "kind has 51 characters"),
        ({"kind": ["a"]}, "kind must be text, not a list"),
        ({"film": "alien"}, "film must be an object, not text"),
        ({"film": {}}, "film needs an id"),
        ({"film": {"id": "a", "year": True}}, "year must be a whole number, not a truth value"),
        ({"film": {"id": "a", "year": 10_000}}, "year must be from 1 to 9999, not 10000"),
        ({"film": {"id": "a", "title": ""}}, "title is blank"),
        ({"film": {"id": "a", "cast": "A"}}, "cast must be a list of texts, not text"),
        ({"film": {"id": "a", "cast": ["A", 1]}}, "cast has an item 2 that must be text"),
        ({"film": {"id": "a", "actor": "A"}}, "film has no 'actor'; it may have id, title"),
        ({"given": {"plot": "x"}}, "plot is no field; the fields are summary, themes"),
        ({"given": {"mood": ["x"]}}, "mood must be text, not a list"),
        ({"given": {"themes": "x"}}, "themes must be a list of texts, not text"),
        ({"given": {"themes": [""]}}, "themes has an item 1 that is blank"),
        ({"given": {"summary": None}}, "summary must be text, not null"),
        ({"given": []}, "given must be an object, not a list"),
        ({"txt": "x"}, "a document has no 'txt'; it may have id, text"),
    ],
)
def test_what_cannot_be_stored_is_refused(change: dict[str, object], sentence: str) -> None:
    """With a sentence that says what it is and what it must be."""
    with pytest.raises(ValueError, match=f"^{sentence}"):
        Document.from_json({"id": "a", "text": "t", **change})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "a document must be an object, not a list"),
        ({"id": "a"}, "a document needs 'text'; it has id"),
        ({}, "a document needs 'id'; it has none"),
    ],
)
def test_what_is_no_document_is_refused(data: object, sentence: str) -> None:
    """A manifest may come from anywhere."""
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Document.from_json(data)


def test_a_list_is_a_list() -> None:
    """A tuple would come back from JSON as something else."""
    assert field_fault("themes", ["a"]) is None
    assert field_fault("themes", ("a",)) == "must be a list"
    assert field_fault("themes", []) is None
    assert field_fault("mood", "sombre") is None
