"""Bounded log lines, and the spool that outlives a killed process."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from loguru import logger

from pytest_manifest.worker.spool import (
    MAX_BYTES,
    MAX_LINE_CHARS,
    MAX_LINES,
    REWRITE_BYTES,
    Lines,
    Spool,
    TaskOutput,
    spool_directory,
    spool_path,
    take_output,
)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "made" / "when needed"
    monkeypatch.setenv("MANIFEST_SPOOL", str(directory))
    return directory


def test_all_lines_while_they_are_few() -> None:
    """A few lines are all kept, in their order."""
    lines = Lines()
    for number in range(3):
        lines.add(str(number))
    assert lines.as_list() == ["0", "1", "2"]
    assert lines.dropped == 0


def test_last_lines_only() -> None:
    """Of too many lines the last ones are kept and the others counted."""
    lines = Lines()
    for number in range(MAX_LINES + 5):
        lines.add(str(number))
    assert lines.as_list()[0] == "5"
    assert len(lines.as_list()) == MAX_LINES
    assert lines.dropped == 5


def test_bytes_are_counted_not_characters() -> None:
    """The bound is one of UTF-8 bytes."""
    lines = Lines()
    for _ in range(50):
        lines.add("é" * 1000)
    kept = lines.as_list()
    assert len("".join(kept).encode()) <= MAX_BYTES
    assert len(kept) == MAX_BYTES // 2000
    assert lines.dropped == 50 - len(kept)


def test_a_very_long_line_is_cut() -> None:
    """One line cannot push all others out."""
    lines = Lines()
    lines.add("before")
    lines.add("x" * 10 * MAX_BYTES)
    assert lines.as_list()[0] == "before"
    assert lines.as_list()[1].startswith("x" * MAX_LINE_CHARS)
    assert lines.as_list()[1].endswith("[...]")


def test_half_surrogates_do_no_harm(spool: Path) -> None:
    """A line that is no UTF-8 is kept all the same."""
    lines = Lines()
    lines.add("half \ud800")
    one = Spool("t", "e")
    one.add_line("half \ud800", lines)
    assert take_output("t", "e").lines == lines.as_list()
    one.close()


def test_nothing_on_disk_before_the_first_line(spool: Path) -> None:
    """A task that says nothing makes no file."""
    quiet = Spool("quiet", "e")
    quiet.close()
    assert not spool.exists()


def test_spooled_lines_and_evidence_come_back(spool: Path) -> None:
    """Who takes a killed task's file gets what it said; the file is gone afterwards."""
    killed = Spool("task", "execution")
    killed.add_line("one", Lines())
    killed.add_evidence({"rows": 1})
    killed.add_evidence({"rows": 2, "more": [None]})
    assert take_output("task", "execution") == TaskOutput(["one"], 0, {"rows": 2, "more": [None]})
    assert list(spool.iterdir()) == []
    assert take_output("task", "execution") == TaskOutput()


def test_another_deliverys_file_is_not_taken_for_this_one(spool: Path) -> None:
    """What an earlier execution of the same task said is not told of a later one."""
    Spool("task", "first").add_line("old", Lines())
    assert take_output("task", "second") == TaskOutput()


def test_a_retry_that_begins_before_its_predecessor_is_through_keeps_what_it_says(
    spool: Path,
) -> None:
    """Neither who ends late nor the worker that reports it dead takes the file of the next."""
    first, second = Spool("task", "first"), Spool("task", "second")
    for one in (first, second):
        one.add_evidence({"cost": 1})
    first.close()
    assert take_output("task", "first") == TaskOutput()
    assert take_output("task", "second").evidence == {"cost": 1}


def test_an_execution_that_its_pool_has_given_to_a_second_process(spool: Path) -> None:
    """The first one's evidence is kept; where both say the same, the second's; both cost."""
    first, second, third = (Spool("task", "one") for _ in range(3))
    first.add_evidence({"cost": 0.5, "rows": 1, "seen": True})
    first.add_line("killed after this", Lines())
    lines = Lines()
    for spool_of in (second, third):
        spool_of.add_line("anew", lines)
        spool_of.add_evidence({"cost": 0})
        spool_of.add_evidence({"cost": 0.25, "rows": 2})
    assert third.earlier == {"cost": 0.75, "rows": 2, "seen": True}
    assert take_output("task", "one") == TaskOutput(
        ["anew"], 0, {"cost": 1.0, "rows": 2, "seen": True}
    )


def test_what_a_dead_worker_left_goes_with_the_execution_that_follows(spool: Path) -> None:
    """A message that comes again has files of other executions removed: older ones of its task."""
    first, second, third = (letter * 16 for letter in "abc")
    Spool("task", first).add_line("old", Lines())
    os.utime(spool_path("task", first), (0, 0))
    Spool("task.more", first).add_line("another's", Lines())
    os.utime(spool_path("task.more", first), (0, 0))
    redelivered = Spool("task", second)
    Spool("task", third).add_line("its retry, which runs", Lines())
    redelivered.close(stale=True)
    assert {*spool.iterdir()} == {spool_path("task", third), spool_path("task.more", first)}


def test_line_cut_by_the_kill_is_passed_over(spool: Path) -> None:
    """A last line that was written half does not spoil the others."""
    Spool("task", "execution").add_line("whole", Lines())
    with spool_path("task", "execution").open("a") as file:
        file.write('{"line": "hal')
    assert take_output("task", "execution").lines == ["whole"]


def test_chatty_task_does_not_fill_the_disk(spool: Path) -> None:
    """The file stays bounded, and still holds the last lines, the count, and the evidence."""
    lines, chatty = Lines(), Spool("task", "execution")
    chatty.add_evidence({"kept": True})
    total = 20_000
    for number in range(total):
        line = f"{number:06d} " + "x" * 100
        lines.add(line)
        chatty.add_line(line, lines)
    assert spool_path("task", "execution").stat().st_size < REWRITE_BYTES + 2 * MAX_BYTES
    spooled = take_output("task", "execution")
    assert spooled.lines == lines.as_list()
    assert spooled.dropped == lines.dropped == total - MAX_LINES
    assert spooled.evidence == {"kept": True}
    chatty.close()
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    "task_id", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "x" * 500, "x" * 120, ""]
)
def test_ids_are_no_paths(spool: Path, task_id: str) -> None:
    """An id from outside cannot point anywhere else."""
    for path in (spool_path(task_id, "e"), spool_path("t", task_id), spool_path(task_id, task_id)):
        assert path.parent == spool
        assert len(path.name) < 255


def test_own_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MANIFEST_SPOOL the directory is this user's, and nobody else reads in it."""
    monkeypatch.delenv("MANIFEST_SPOOL", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Spool("task", "execution").add_line("secret", Lines())
    assert spool_directory().parent == tmp_path
    assert stat.S_IMODE(spool_directory().stat().st_mode) == 0o700
    assert stat.S_IMODE(spool_path("task", "execution").stat().st_mode) == 0o600


def test_link_in_its_place_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody laid where our directory goes is not used, and the task goes on."""
    monkeypatch.delenv("MANIFEST_SPOOL", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / "trap"
    trap.mkdir()
    spool_directory().symlink_to(trap)
    said: list[str] = []
    handler = logger.add(lambda message: said.append(str(message)))
    try:
        spool = Spool("task", "execution")
        spool.add_line("a", Lines())
        spool.add_line("b", Lines())
    finally:
        logger.remove(handler)
    assert list(trap.iterdir()) == []
    assert len(said) == 1
    assert "MANIFEST_SPOOL" in said[0]


def test_documents_are_one_a_line(spool: Path) -> None:
    """A line break in what was logged does not break the file's lines."""
    Spool("task", "execution").add_line("a\nb", Lines())
    rows = spool_path("task", "execution").read_text().splitlines()
    assert [json.loads(row) for row in rows] == [{"line": "a\nb"}]
