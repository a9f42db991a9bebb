"""Sections that projects add to a page: text alone, bounded, and refused where they are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_manifest import PageSection
from pytest_manifest.redaction import texts
from pytest_manifest.redaction.texts import manifest_secret
from pytest_manifest.reporting.run_page import sections
from tests.run_page_sample import HOSTILE, sample_records
from tests.unit.test_run_page import written


def test_a_section_is_a_title_sentences_and_a_table() -> None:
    section = PageSection(
        "Grades",
        "Of two rows.",
        ["entry", "grade", "why"],
        [["a", 4, None], ["b", 2.5, "bad"]],
        "entry",
    )
    assert sections.section_documents([section, PageSection("Empty")]) == [
        {
            "title": "Grades",
            "text": "Of two rows.",
            "columns": ["entry", "grade", "why"],
            "entries": 0,
            "rows": [["a", 4, None], ["b", 2.5, "bad"]],
            "more": 0,
        },
        {"title": "Empty", "text": "", "columns": [], "entries": -1, "rows": [], "more": 0},
    ]


def test_numbers_that_json_lacks_are_words() -> None:
    rows = [[True, float("nan"), float("-inf")]]
    [found] = sections.section_documents([PageSection("S", columns=["a", "b", "c"], rows=rows)])
    assert found["rows"] == [["True", "nan", "-inf"]]


def test_long_texts_are_cut_and_rows_beyond_the_room_are_counted() -> None:
    """All sections share the room, so that a page stays one that can be mailed."""
    rows = [["x" * 10 * sections.LONGEST] for _ in range(1000)]
    first, second = sections.section_documents(
        [PageSection(f"S{n}", columns=["a"], rows=rows) for n in range(2)]
    )
    shown = first["rows"]
    assert isinstance(shown, list)
    assert len(shown[0][0]) == sections.LONGEST
    assert (
        sections.BUDGET // sections.LONGEST <= len(shown) <= sections.BUDGET // sections.LONGEST + 1
    )
    assert first["more"] == 1000 - len(shown)
    assert (second["rows"], second["more"]) == ([], 1000)


def test_secrets_are_hidden_and_control_characters_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(texts.hidden_values, "now", texts.Hidden())
    manifest_secret("hunter2-hunter2")
    [found] = sections.section_documents(
        [PageSection("\x1b[31m", "hunter2-hunter2", ["a"], [["postgresql://u:pass-4711@h/d"]])]
    )
    text = json.dumps(found, ensure_ascii=False)
    assert "hunter2" not in text
    assert "pass-4711" not in text
    assert "\x1b" not in text
    assert "␛[31m" in text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"title": "S"}, "returned {'title': 'S'} of type dict"),
        (PageSection(" "), "has no title"),
        (PageSection("S", columns=["a"], entries="b"), "'b' is none of its columns"),
        (PageSection("S", columns=["a"], rows=[["x"], ["x", "y"]]), "row 2 has 2 cells"),
        (PageSection("S", columns=["a"], rows=[[b"x"]]), "a cell of type bytes"),  # type: ignore[list-item]  # refused
    ],
)
def test_what_is_no_section_is_refused(section: object, message: str) -> None:
    """With the section's title, and what to do."""
    with pytest.raises(sections.SectionError, match=message):
        sections.section_documents([section])


def test_sections_are_in_the_page_as_text(tmp_path: Path) -> None:
    """Whatever stands in them, the page has the same elements."""
    hostile = [PageSection(text, text, [text], [[text]]) for text in HOSTILE if text.strip()]
    page = written(tmp_path, list(sample_records(3)), sections=sections.section_documents(hostile))
    plain = written(tmp_path, list(sample_records(3)))
    assert page.names == plain.names
    assert len(page.data["sections"]) == len(hostile)
    assert plain.data["sections"] == []
