"""``python -m workflows.gap_fill.corpus``: check, load, stats and migrate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.movie_bible.bible import BibleSettings, MovieBible
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.fields import CORPUS
from tasks.movie_bible.migrating import upgrade
from tests.support import eventually
from tests.workflows.crud_load import ROOT, python_path
from workflows.gap_fill.corpus.cli import main

GOOD = '{{"slug": "f/{0:05d}", "text": "text {0}", "mood": "epic"}}\n'


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of this test's own, set in the environment."""
    address = f"sqlite:///{tmp_path}/bible.sqlite3"
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", address)
    return address


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """1200 documents, whose id has another name."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(map(GOOD.format, range(1200))))
    return path


def load(path: Path, *more: str) -> int:
    """Run the command."""
    return main(["load", str(path), "--fields", "id=slug", *more])


def test_loading_twice(url: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second time nothing changes; both say what they did, and nothing else."""
    assert load(corpus) == 0
    assert load(corpus) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "1,200 documents: 1,200 new, 0 changed, 0 as they were",
        "1,200 documents: 0 new, 0 changed, 1,200 as they were",
    ]
    assert said.err == ""
    with MovieBible.open() as bible:
        assert bible.count_annotations(None, CORPUS) == 1200


def test_stats(url: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passages, films, rows by prompt version, and for each field what is filled and what not."""
    load(corpus)
    capsys.readouterr()
    assert main(["stats"]) == 0
    assert capsys.readouterr().out.split("\n") == [
        "1,200 passages of 0 films",
        "1,200 rows of prompt version corpus",
        "field           filled      gaps",
        "summary              0     1,200",
        "themes               0     1,200",
        "characters           0     1,200",
        "mood             1,200         0",
        "",
    ]


def test_a_check_changes_nothing(
    url: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads all of it, and needs no database."""
    assert main(["check", str(corpus), "--fields=id=slug"]) == 0
    assert capsys.readouterr().out.startswith("1,200 documents, all of them good\nfield  ")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_a_bad_line_leaves_whole_batches(
    url: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is said, and loading again after the correction brings the rest."""
    with corpus.open("a") as file:
        file.write("{}\n")
    assert load(corpus) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"corpus: {corpus}:1201: the document has no id; write one, or say by a mapping such as "
        "id=COLUMN where it stands (before it, 1,000 documents were loaded, and loading again is "
        "harmless)\n"
    )
    with MovieBible.open() as bible:
        assert bible.count_passages() == 1000
    corpus.write_text("".join(map(GOOD.format, range(1200))))
    assert load(corpus) == 0
    assert "200 new, 0 changed, 1,000 as they were" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["load", "nowhere.csv"], "nowhere.csv: there is no such file or folder"),
        (["check", "nowhere.csv"], "nowhere.csv: there is no such file or folder"),
        (["check", "x", "--fields=plot=x"], "the mapping names a column 'plot'"),
        (["stats", "--database=mysql://us:hunter2@host/x"], "the database URL names 'mysql'"),
        (["migrate", "--database=hunter2"], "the database URL cannot be understood"),
    ],
)
def test_a_users_error_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with exit code 2; no password is in it."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"corpus: {sentence}")
    assert said.err.count("\n") == 1
    assert "hunter2" not in said.err
    assert "documents were" not in said.err


def test_an_older_database(url: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loading names the very command that helps; after it loading works."""
    store = Store(BibleSettings())
    with store.writing() as connection:
        upgrade(connection, "0001")
    store.close()
    assert load(corpus) == 2
    said = capsys.readouterr().err
    assert said.endswith("run: python -m workflows.gap_fill.corpus migrate\n")
    assert main(said.split()[-1:]) == 0
    assert capsys.readouterr().out == "the tables are of version 0007\n"
    assert load(corpus, "--database", url) == 0


class Terminal:
    """A standard error that somebody watches."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Keep what is shown."""
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def test_progress_is_for_terminals(url: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that is written over, and wiped in the end."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert load(corpus) == 0
    assert terminal.text == (
        "\rloaded 500 documents\rloaded 1,000 documents\rloaded 1,200 documents\r\x1b[K"
    )


@pytest.fixture
def loading(url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, waiting for more of a corpus that comes by a pipe."""
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.gap_fill.corpus", "load", pipe, "--fields=id=slug"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with pipe.open("w") as corpus:
            corpus.write("".join(map(GOOD.format, range(700))))
            corpus.flush()
            yield process
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_is_one_sentence(loading: subprocess.Popen[str], url: str) -> None:
    """Exit code 130; what was loaded stays, and is said."""
    with MovieBible.open() as bible:
        eventually(lambda: bible.count_passages() == 500, within=60, what="a batch is loaded")
    process = psutil.Process(loading.pid)
    # It takes note of what is committed, and then waits for more.
    eventually(lambda: process.status() == psutil.STATUS_SLEEPING, within=60, what="it waits")
    loading.send_signal(signal.SIGINT)
    _, said = loading.communicate(timeout=30)
    assert loading.returncode == 130
    assert said == (
        "corpus: interrupted (before it, 500 documents were loaded, and loading again is "
        "harmless)\n"
    )


def test_a_reader_that_has_seen_enough(url: str, corpus: Path) -> None:
    """``... stats | head -0`` is no error."""
    load(corpus)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "workflows.gap_fill.corpus", "stats"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """By ``--help``, and where one is missing."""
    with pytest.raises(SystemExit) as left:
        main(["load", "--help"])
    assert left.value.code == 0
    assert "GAP_FILL_DATABASE_URL" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
