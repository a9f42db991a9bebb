"""Folders and files for their owner alone, whatever the umask is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest import files
from pytest_manifest.manifest.writer import atomic_file


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="{:03o}".format, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Three umasks: all may write, the usual, and nobody else may read."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> str:
    """A file's or folder's mode in octal digits."""
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"


def test_a_folder_and_its_parents_are_private(tmp_path: Path) -> None:
    """Each that had to be made; what was there stays as it is."""
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    files.private_folder(there / "a" / "b" / "c")
    files.private_folder(there / "a" / "b" / "c")
    assert [mode(path) for path in (there, *(there / one for one in ("a", "a/b", "a/b/c")))] == [
        *("755", "700", "700", "700")
    ]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """As for ``Path.mkdir``; a link to a folder is one."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        files.private_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        files.private_folder(tmp_path / "file" / "below")
    files.private_folder(tmp_path / "link")


@pytest.mark.parametrize(("asked", "folder"), [(0o600, "700"), (0o640, "750"), (0o644, "755")])
def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path, asked: int, folder: str) -> None:
    """Whatever the umask says, new or written over; its folder can be entered by its readers."""
    path = tmp_path / "reports" / "file"
    files.folder_of(path, asked)
    assert mode(path.parent) == folder
    with files.new_file(path, asked) as file:
        file.write(b"new")
    assert mode(path) == f"{asked:03o}"
    path.chmod(0o666)
    files.write_whole(path, b"over", asked)
    files.append(path, b"more", asked)
    assert (mode(path), path.read_bytes()) == (f"{asked:03o}", b"overmore")
    with atomic_file(path, asked) as file:
        assert mode(Path(str(file.name))) == f"{asked:03o}"
    assert mode(path) == f"{asked:03o}"


def test_nobody_else_can_open_a_file_before_it_has_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made for its owner alone: a ``chmod`` that follows would come too late."""
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    files.write_whole(tmp_path / "one", b"", 0o644)
    files.copy_privately(tmp_path / "one", tmp_path / "two")
    files.new_file(tmp_path / "three", 0o644).close()
    assert {mode(path) for path in tmp_path.iterdir()} == {"600"}


def test_a_copy_is_private(tmp_path: Path) -> None:
    """Also over a file that was not."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"secret")
    target.touch()
    target.chmod(0o644)
    files.copy_privately(source, target)
    assert (mode(target), target.read_bytes()) == ("600", b"secret")


def test_a_source_has_what_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    """A manifest is committed and reviewed like other sources."""
    with atomic_file(tmp_path / "m.jsonl"):
        pass
    assert mode(tmp_path / "m.jsonl") == f"{0o666 & ~umask:03o}"


def test_a_device_keeps_its_mode() -> None:
    """A report may be sent to one."""
    before = mode(Path(os.devnull))
    files.write_whole(os.devnull, b"report")
    assert mode(Path(os.devnull)) == before


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("600", 0o600), ("0640", 0o640), ("644", 0o644), ("666", 0o666)]
    + [(text, None) for text in ("", "400", "700", "755", "0o640", "6440", "u=rw", "-600", "689")],
)
def test_modes_that_a_report_can_have(text: str, parsed: int | None) -> None:
    """Octal digits; its owner reads and writes it, and nobody executes it."""
    assert files.parsed_mode(text) == parsed
