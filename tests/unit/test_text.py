"""Text for people: foreign text shows as text, and lengths, counts and times in few words."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.text import (
    JOINERS,
    beginning,
    cells,
    clock,
    cut,
    duration,
    escape_hidden,
    job_rate,
    number_unprintable,
    one_line,
    pictured,
    plural,
    printable,
    seconds,
    seconds_cell,
    short,
    short_rate,
    terminal_line,
    visible,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))
HOSTILE = "<script>\x1b[2J\x1b]0;title\x07\r\n\x00\u202egnp\u2069\ud800\u200d\u2028"
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
WORD = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
"""I want, in Persian: a word with a non-joiner within it."""
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("half \ud800", "half \\ud800"),
        ("\x1b]8;;http://x.invalid\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\rb\x00\x9b", "a\\x0db\\x00\\x9b"),
        ("\x1b", ""),
    ],
)
def test_plain(text: str, expected: str) -> None:
    """Terminal sequences vanish, other control characters are shown."""
    assert printable(text) == expected


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
        (f"{FAMILY} {WORD} a\u200db \u200c", f"{FAMILY} {WORD} a\\u200db \\u200c"),
    ],
)
def test_what_does_not_show_is_shown(text: str, shown: str) -> None:
    """Controls have their pictures, what turns or hides text has its number."""
    assert pictured(text) == shown


@given(ANY_TEXT)
def test_nothing_that_acts_is_left(text: str) -> None:
    """No control but tab and line feed, nothing bidirectional, no half of a pair."""
    for shown in (printable(text), visible(text), pictured(text)):
        shown.encode()
        assert all(unicodedata.category(char) != "Cc" or char in "\t\n" for char in shown)
        assert not any(unicodedata.bidirectional(char) in TURNING for char in shown)


@given(ANY_TEXT)
def test_escaped_text_stays_as_it_is(text: str) -> None:
    """What is escaped twice, by two reports, is the same text."""
    for escape in (printable, visible, pictured, one_line, terminal_line, escape_hidden):
        assert escape(escape(text)) == escape(text)


@given(ANY_TEXT)
def test_a_line_is_a_line(text: str) -> None:
    """Whatever is in a text, only characters that are drawn are left of it."""
    for shown in (one_line(text), terminal_line(text)):
        assert shown.translate(dict.fromkeys(map(ord, JOINERS))).isprintable()
    assert terminal_line(text, "ascii").isascii()
    assert number_unprintable(text).isprintable()


@pytest.mark.parametrize("text", [FAMILY, WORD])
def test_what_joiners_make_is_drawn(text: str) -> None:
    """They are invisible only where they do nothing, as between letters of ASCII."""
    for escape in (printable, visible, pictured, one_line, terminal_line, escape_hidden):
        assert escape(text) == text


def test_hostile_text_is_escaped() -> None:
    """Escapes, marks of direction, surrogates and ends of lines are there to be read."""
    shown = terminal_line(HOSTILE)
    for words in ("<script>", r"\x1b[2J", r"\r\n\x00", r"\u202egnp\u2069", r"\ud800", r"\u2028"):
        assert words in shown
    assert one_line(HOSTILE) == r"<script> \x00\u202egnp\u2069\ud800\u200d"
    assert visible("a\u200bb\x1b[1m") == r"a\u200bb"
    assert escape_hidden('{"a": "\u200b\u202e"}') == r'{"a": "\u200b\u202e"}'
    assert number_unprintable("a\x1b\n") == r"a\u001b\u000a"


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("abc", 3),
        ("映画", 4),
        ("e\u0301", 1),
        ("\u1100\u1161\u11a8", 2),
        ("\uff41", 2),
    ],
)
def test_text_is_as_wide_as_it_is_drawn(text: str, width: int) -> None:
    """Wide characters take two columns, marks upon others none."""
    assert cells(text) == width


def test_widths_are_loaded_with_the_first_that_needs_them() -> None:
    """ASCII is measured without the tables of all other scripts."""
    code = "import sys; from pytest_manifest.text import cut; cut('a' * 9, 5); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pytest_manifest.text" in done.stdout.split()
    assert "rich.cells" not in done.stdout.split()


@given(st.text(st.characters(codec="utf-8")), st.integers(-1, 60))
def test_a_cut_text_fits(text: str, width: int) -> None:
    """Cut text takes no more columns than it may, and is left alone where it fits."""
    shown = terminal_line(text)
    assert cells(cut(shown, width)) <= max(width, 0)
    assert cut(shown, cells(shown)) == shown


def test_a_cut_text_keeps_both_ends() -> None:
    """Ids often differ at their ends."""
    assert cut("charge-0001-of-march", 11) == "char...arch"
    assert cut("charge-0001-of-march", 11, "…") == "charg…march"


def test_a_cut_text_keeps_words_whole() -> None:
    """An option that is cut would be copied so."""
    advice = "look at the worker's log, then send it again with --manifest-resume=unsafe"
    assert cut(advice, 55) == "look at the worker's log,...--manifest-resume=unsafe"


def test_short_keeps_both_ends() -> None:
    """A value is shortened in the middle, and large ones are not written out first."""
    assert short("abc") == "'abc'"
    text = short("a" * 100 + "z" * 100, 40)
    assert (len(text), text[:3], text[-3:]) == (40, "'aa", "zz'")
    assert len(short({str(i): [i] * 1000 for i in range(10**5)})) == 80
    assert len(short(10**4000)) <= 80


def test_a_beginning_has_its_ellipsis_within_the_limit() -> None:
    assert [beginning("abcdef", n) for n in (6, 5)] == ["abcdef", "ab..."]
    assert beginning("abcdef", 5, "…") == "abcd…"


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "line", "1 line"),
        (2, "line", "2 lines"),
        (0, "entry", "0 entries"),
        (1, "entry", "1 entry"),
        (2, "way", "2 ways"),
        (2, "process", "2 processes"),
    ],
)
def test_a_count_has_its_noun(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text


@pytest.mark.parametrize(
    ("value", "exact", "cell"),
    [
        (0.0, "0 s", "0.000"),
        (0.00012, "0.0001 s", "<.001"),
        (0.03124, "0.0312 s", "0.031"),
        (12.44, "12.4 s", "12.44"),
        (300.0, "300 s", "300.0"),
        (86399.4, "86399 s", "86399"),
    ],
)
def test_seconds_have_three_digits(value: float, exact: str, cell: str) -> None:
    """A cell of a table has as many columns for all of a day."""
    assert (seconds(value), seconds_cell(value)) == (exact, cell)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (0.01234, "0.0123 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185.4, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (8 * 3600 + 12 * 60 + 40, "8 h 12 min"),
        (60 * 3600, "60 h 00 min"),
    ],
)
def test_a_duration_is_told_in_words(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0 s"), (99.9, "99 s"), (227, "3:47"), (3723, "1:02:03")]
)
def test_a_clock_goes_by_the_second(value: float, text: str) -> None:
    """Short times in seconds, longer ones as on a clock."""
    assert clock(value) == text


@pytest.mark.parametrize(
    ("rate", "words", "brief"),
    [
        (412.4, "412 jobs a second", "412/s"),
        (41.32, "41.3 jobs a second", "41.3/s"),
        (1.0, "1 jobs a second", "1/s"),
        (0.5, "30 jobs a minute", "30/min"),
        (0.01, "36 jobs an hour", "36/h"),
        (0.00001, "0.036 jobs an hour", "0.036/h"),
    ],
)
def test_a_slow_rate_is_told_of_a_longer_time(rate: float, words: str, brief: str) -> None:
    assert (job_rate(rate), short_rate(rate)) == (words, brief)
