"""The reader of documents notices what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks, missing_line, steps
from tests.docs.runner import Reader

pytestmark = pytest.mark.ring(1)


def document(tmp_path: Path, text: str) -> Path:
    """A Markdown file; ~~~ stands for a fence."""
    path = tmp_path / "page.md"
    path.write_text(text.replace("~~~", "```"), "utf-8")
    return path


def follow(tmp_path: Path, text: str) -> int:
    """Follow a document in an empty folder."""
    folder = tmp_path / "reader"
    folder.mkdir()
    with Reader(folder) as reader:
        return reader.follow(document(tmp_path, text))


def test_blocks_have_place_language_and_options(tmp_path: Path) -> None:
    """An info string is split as a shell would; the body keeps its lines."""
    path = document(tmp_path, 'Hello\n\n~~~python title=a.py skip="not now"\nx = 1\n~~~\n')
    (block,) = blocks(path)
    assert (block.line, block.language, block.body) == (3, "python", "x = 1\n")
    assert block.options == {"title": "a.py", "skip": "not now"}


def test_files_are_written_and_used_by_what_follows(tmp_path: Path) -> None:
    """A titled block is a file, also in a folder; later blocks see it, skipped ones do not run."""
    text = (
        "~~~python title=deep/a.py\nprint(1 + 1)\n~~~\n"
        "~~~console\n$ python deep/a.py\n2\n~~~\n"
        "~~~python\nassert open('deep/a.py').read()\n~~~\n"
        '~~~console skip="never"\n$ false\n~~~\n'
    )
    assert follow(tmp_path, text) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("~~~console\n$ echo one\ntwo\n~~~\n", "did not print\n    two"),
        ("~~~console\n$ false\n~~~\n", "ended with 1, not 0"),
        ("~~~console exit=1\n$ true\n~~~\n", "ended with 0, not 1"),
        ("~~~console exit=1\n$ false\n$ false\n~~~\n", "ended with 1, not 0"),
        ("~~~console\nno command\n~~~\n", "starts with a command"),
        ("~~~python\nassert False\n~~~\n", "AssertionError"),
        ("~~~text\nhello\n~~~\n", "cannot be run"),
        ("~~~\nhello\n~~~\n", "cannot be run"),
    ],
)
def test_what_does_not_hold_is_reported_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """Wrong output, wrong status, a script that fails, a block that nothing can be done with."""
    with pytest.raises(AssertionError) as caught:
        follow(tmp_path, text)
    assert "page.md:1" in str(caught.value)
    assert complaint in str(caught.value)


def test_broken_json_is_found(tmp_path: Path) -> None:
    """A JSON example that no parser takes is a fault."""
    with pytest.raises(ValueError, match="Expecting"):
        follow(tmp_path, "~~~json\n{'id': 1}\n~~~\n")


def test_commands_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    """A backslash at the end joins lines, and exported variables last."""
    text = "~~~console\n$ export WORD=two\n$ echo one \\\n  $WORD\none two\n~~~\n"
    assert follow(tmp_path, text) == 1
    (block,) = blocks(document(tmp_path, text))
    assert [step.command for step in steps(block)] == ["export WORD=two", "echo one \\\n  $WORD"]


@pytest.mark.parametrize(
    ("expected", "actual", "missing"),
    [
        (["a", "b"], "a\nx\nb\n", None),
        (["b", "a"], "a\nb\n", "a"),
        (["run ..., 2 passed"], "run 20260101T000000-00000000, 2 passed", None),
        (["=== 2 passed in 1.00s ==="], "====== 2 passed in 12.3s ======", None),
        (["=== 2 passed in 1.00s ==="], "=== 2 passed in 60.67s (0:01:00) ===", None),
        (
            ["=== 2 passed in 1.00s ==="],
            "====== 3 passed in 1.00s ======",
            "=== 2 passed in 1.00s ===",
        ),
        (["...", "", "a"], "a", None),
        (["a PASSED [ 5%]"], "a PASSED          [ 5%]", None),
        (["a"], "ab", "a"),
    ],
)
def test_output_is_compared_line_by_line(
    expected: list[str], actual: str, missing: str | None
) -> None:
    """In order, with gaps; three dots stand for anything, times and rules are not compared."""
    assert missing_line(expected, actual) == missing


def test_lines_may_come_in_any_order_where_that_is_said() -> None:
    """`order=any`: every line must be there, wherever it is."""
    assert missing_line(["b", "a"], "a\nb\n", ordered=False) is None
    assert missing_line(["b", "c"], "a\nb\n", ordered=False) == "c"


def test_an_activated_environment_lasts_and_installations_are_done_on_request(
    tmp_path: Path,
) -> None:
    """As in a reader's shell; who tests without a package index leaves installations out."""
    install = '~~~console skip="needs a package index"\n$ touch installed\n~~~\n'
    text = (
        "~~~console\n$ python -m venv --without-pip there\n$ . there/bin/activate\n~~~\n"
        f"~~~python\nimport sys\nassert sys.prefix != sys.base_prefix\n~~~\n{install}"
        "~~~console\n$ python -c 'import sys; print(sys.prefix)'\n.../reader/there\n~~~\n"
    )
    for installs in (False, True):
        folder = tmp_path / str(installs) / "reader"
        folder.mkdir(parents=True)
        with Reader(folder, installs=installs) as reader:
            assert reader.follow(document(tmp_path, text)) == 3 + installs
        assert (folder / "installed").exists() == installs


def test_a_part_of_a_document_can_be_followed(tmp_path: Path) -> None:
    """By the title of its section; what stands above all sections has none."""
    path = document(tmp_path, "~~~console\n$ false\n~~~\n## Here\n~~~console\n$ true\n~~~\n")
    with Reader(tmp_path) as reader:
        assert reader.follow(path, sections={"Here"}) == 1
    assert [block.section for block in blocks(path)] == ["", "Here"]


def test_what_was_started_ends_with_the_reader(tmp_path: Path) -> None:
    """A command in the background is ended at the end of the document."""
    folder = tmp_path / "reader"
    folder.mkdir()
    with Reader(folder) as reader:
        reader.follow(document(tmp_path, "~~~console\n$ sleep 600 &\n~~~\n"))
        (process,) = reader.background
        assert process.poll() is None
    assert process.poll() is not None
