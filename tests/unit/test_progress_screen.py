"""The line below everything, and who has it wiped."""

from __future__ import annotations

import io
import re
import threading

import pytest

from pytest_manifest.reporting.progress import CLEAR, SAVE, Footer


def stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True, newline="")


def written(file: io.TextIOWrapper) -> str:
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode()


@pytest.mark.parametrize("text", ["end\n", "\rcollecting", "\b", "\x1b[A", "a\x1b7", "\f"])
def test_whoever_leaves_the_line_has_it_wiped_first(text: str) -> None:
    """A write that ends pytest's line, or moves the cursor, comes after the wiping."""
    out, err = stream(), stream()
    footer = Footer([out, err])
    footer.draw("far")
    err.write(text)
    assert not footer.shown
    assert written(out).endswith(CLEAR)
    assert written(err) == text


@pytest.mark.parametrize("text", [".", "\x1b[32m.\x1b[0m", "\x1b]9;4;1;50\x1b\\\\", "映"])
def test_a_dot_leaves_it_alone(text: str) -> None:
    """Dots, colours and signals to a tab leave the cursor's line alone, and the one below."""
    out = stream()
    footer = Footer([out])
    footer.draw("far")
    before = written(out)
    out.write(text)
    assert footer.shown
    assert written(out) == before + text


def test_nothing_is_wiped_that_is_not_there() -> None:
    """Without the line, files are written to as ever; and so they are in the end."""
    out = stream()
    plain = out.write
    footer = Footer([out, out])
    out.write("a\n")
    footer.draw("far")
    footer.wipe()
    footer.wipe()
    assert written(out).count(CLEAR) == 2
    footer.draw("far")
    footer.close()
    assert written(out).endswith(CLEAR)
    assert out.write == plain


def test_prints_of_other_threads_never_get_into_the_middle() -> None:
    """Threads that print while the line is redrawn: each write is whole, wiping comes first."""
    out = stream()
    footer = Footer([out])

    def shout() -> None:
        for _ in range(300):
            out.write("shout\n")

    threads = [threading.Thread(target=shout) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        footer.draw("far")
    for thread in threads:
        thread.join()
    footer.close()
    drawn = re.compile(r"\x1b\[J\x1bD\x1b\[A\x1b7[^\n]*?far\x1b\[0m\x1b\[\?7h\x1b8")
    pieces = [piece for piece in drawn.split(written(out)) if piece]
    assert all(re.fullmatch(r"(\x1b\[J)?(shout\n)*(\x1b\[J)?", piece) for piece in pieces)
    assert written(out).count("shout") == 1200
    # What is drawn once more clears what was there: nobody else may have written before.
    assert all(piece.startswith(CLEAR) for piece in pieces[1:])


def test_a_file_that_cannot_be_watched_is_told_of() -> None:
    """Then nothing is drawn; and what was watched by then is left alone."""

    class Closed:
        __slots__ = ()

        def write(self, text: str) -> int:
            return len(text)

    out = stream()
    plain = out.write
    with pytest.raises(AttributeError):
        Footer([out, Closed()])  # type: ignore[list-item]  # what it is about
    assert out.write == plain
    assert SAVE not in written(out)
