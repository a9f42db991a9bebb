"""Text of a run page: everything in it can be seen, and none of it leaves its place."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.reporting.run_page.text import first_line, script_json, visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800 half", "\\ud800 half"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
        ("\u2028\ufeff\u200b", "\\u2028\\ufeff\\u200b"),
        ("\u2066a\u2069\u061c", "\\u2066a\\u2069\\u061c"),
        ("řeka 川 🙂", "řeka 川 🙂"),
    ],
)
def test_what_does_not_show_is_shown(text: str, shown: str) -> None:
    """Controls have their pictures, what turns or hides text has its number."""
    assert visible(text) == shown


@given(ANY_TEXT)
def test_nothing_invisible_is_left(text: str) -> None:
    """No control but tab and line feed, nothing bidirectional, no half of a pair."""
    shown = visible(text)
    shown.encode()
    assert all(unicodedata.category(char) != "Cc" or char in "\t\n" for char in shown)
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not any(unicodedata.bidirectional(char) in bidi for char in shown)


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_json_in_a_script_comes_back_and_ends_nothing(values: dict[str, str]) -> None:
    """Whatever is in it, there is no way out of the script element."""
    text = script_json(values)
    assert json.loads(text) == values
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_a_first_line_is_short() -> None:
    """The rest is left out, and it shows."""
    assert first_line("one\ntwo", 10) == "one"
    assert first_line("x" * 20, 5) == "xxxx…"
