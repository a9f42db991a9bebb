"""The pictures of the documents: each can be made anew, and a terminal's looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import screenshots

pytestmark = pytest.mark.ring(1)


def test_each_picture_can_be_made_anew() -> None:
    """`make screenshots` knows every picture of a page or terminal that documents show."""
    assert {path.stem for path in screenshots.IMAGES.glob("*.png")} == set(screenshots.PICTURES)


def test_the_screen_is_shown_as_it_is_in_the_end() -> None:
    """Colours stay, what was written over is gone, and nothing that was printed is HTML."""
    page = screenshots.as_html("pytest -v", "50 %\r\x1b[K\x1b[31mred <b>\x1b[0m\r\nend\r\n")
    screen = page.partition("<pre>")[2].partition("</pre>")[0]
    assert screen.splitlines() == [
        (
            '<span style="color:#56d364;font-weight:bold">$</span> '
            '<span style="font-weight:bold">pytest -v</span>'
        ),
        '<span style="color:#ff7b72;">red &lt;b&gt;</span>',
        "end",
    ]


def test_a_command_finds_a_terminal(tmp_path: Path) -> None:
    """So it prints what it prints for people, in the width of the picture."""
    command = "test -t 1 && stty size </dev/stdout && pwd"
    printed = screenshots.in_terminal(command, tmp_path).split()
    assert printed == [str(screenshots.LINES), str(screenshots.COLUMNS), str(tmp_path)]


def test_the_first_picture_is_of_readme_s_first_command(tmp_path: Path) -> None:
    """With the files that README has its reader write."""
    assert screenshots.first_batch(tmp_path) in (screenshots.ROOT / "README.md").read_text("utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.py", "sale.jsonl"}
