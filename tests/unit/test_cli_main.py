"""The command ``manifest`` itself: how it starts, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_manifest.cli import output
from pytest_manifest.cli.main import app
from tests.unit.cli_support import make_run, write_manifest

COMMAND = (sys.executable, "-m", "pytest_manifest")
HEAVY = {
    "celery",
    "kombu",
    "redis",
    "pytest",
    "_pytest",
    "rich",
    "sqlalchemy",
    "loguru",
}
"""What typer itself imports, such as pydantic, is its own."""
if tuple(map(int, version("typer").split("."))) < (0, 21, 2):
    HEAVY.remove("rich")  # such as rich, where it renders a help


@pytest.mark.parametrize("arguments", [["--help"], ["stack", "--help"], ["new", "--help"]])
def test_help_imports_nothing_that_is_slow(arguments: list[str]) -> None:
    """It comes at once, as does completion, which imports the same."""
    command = [sys.executable, "-X", "importtime", "-m", "pytest_manifest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: manifest")
    imported = set(re.findall(r"\| +(\w+)[.\n]", done.stderr))
    assert "typer" in imported
    assert imported & HEAVY == set()


def test_the_version_is_that_of_the_package() -> None:
    """As a report of a fault has it."""
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"manifest {version('pytest-celery-manifest')}\n")


def test_a_reader_may_leave_early(tmp_path: Path) -> None:
    """As ``head`` does; that is no error."""
    entries = [{"id": f"e{number}", "task": "t"} for number in range(20_000)]
    write_manifest(tmp_path / "m.jsonl", *entries)
    with subprocess.Popen(
        [*COMMAND, "show", "m.jsonl", "--limit=0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    ) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        assert shown.stdout.readline() == b"m.jsonl: 20000 entries\n"
        shown.stdout.close()
        assert shown.stderr.read() == b""
    assert shown.returncode == 0


@pytest.mark.parametrize("arguments", [["lint", "m.jsonl"], ["show", "m.jsonl"], ["--help"]])
@pytest.mark.parametrize(
    ("stdout", "status", "told"),
    [
        ("/dev/full", 2, "manifest: its output: No space left on device; check the place and"),
        ("&-", 0, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_crash(
    arguments: list[str], stdout: str, status: int, told: str, tmp_path: Path
) -> None:
    """Nor a fault that ``lint`` has found. A closed stdout is nobody who reads."""
    write_manifest(tmp_path / "m.jsonl", {"id": "e", "task": "t"})
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" >{stdout}', "sh", *COMMAND, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stderr[: len(told) or None]) == (status, told)


@pytest.mark.parametrize(
    ("reader", "status", "told"),
    [("| head -1", 0, ""), (">/dev/full", 2, "manifest: its output: No space left on device")],
)
def test_what_fails_in_writing_entries_is_no_fault_of_their_table(
    reader: str, status: int, told: str, tmp_path: Path
) -> None:
    """It is read at the same time."""
    (tmp_path / "k.csv").write_text("x\n" + "1\n" * 20_000, "utf-8")
    (tmp_path / "app.py").write_text(
        "from celery import Celery\napp = Celery()\n@app.task\ndef t(x): ...\n", "utf-8"
    )
    arguments = ["new", "--from-task=app.t", "--app=app:app", "--csv=k.csv"]
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {reader}', "bash", *COMMAND, *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stderr[: len(told) or None]) == (status, told)


def test_ctrl_c_ends_it_with_130(tmp_path: Path) -> None:
    """Without a traceback."""
    os.mkfifo(tmp_path / "rows.csv")  # whose rows never come
    (tmp_path / "app.py").write_text(
        "from celery import Celery\napp = Celery()\n@app.task\ndef t(x): ...\n", "utf-8"
    )
    arguments = ["new", "--from-task=app.t", "--app=app:app", "--csv=rows.csv"]
    with (
        subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        ) as waiting,
        (tmp_path / "rows.csv").open("w") as rows,
    ):  # opens when the command does
        rows.write("x\n")
        rows.flush()
        waiting.send_signal(signal.SIGINT)
        assert waiting.stderr is not None
        told = waiting.stderr.read()
    assert waiting.returncode == 130
    assert "Traceback" not in told


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_is_written_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    """Wide characters keep columns straight; what cannot be written is escaped."""
    file = write_manifest(
        tmp_path / "m.jsonl", {"id": "茶", "task": "t"}, {"id": "tea", "task": "t"}
    )
    make_run(file, 1, ["passed", "failed"])
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*COMMAND, "show", "last"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        env=os.environ | environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    lines = done.stdout.decode(encoding).splitlines()
    expected = "passed  茶   t" if encoding == "utf-8" else "passed  \\u8336  t"
    assert lines[2].startswith(expected)


def test_long_tables_are_aligned_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    """However long they are, few rows are kept."""
    rows = (("x" * (1 + number // output.AT_ONCE), "y") for number in range(output.AT_ONCE + 1))
    output.write_table(("a", "#b"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == output.AT_ONCE + 2
    assert (lines[0], lines[1], lines[-1]) == ("a  b", "x  y", "xx  y")


@pytest.mark.parametrize("columns", ["0", "1", "20", "40", "100"])
def test_no_terminal_is_too_narrow_for_what_is_shown(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table as narrow as that would leave cells out."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cells = ("passed", "hedy", "shop.task", "1.5 s", "1", "as expected")
    output.write_table(("status", "id", "task", "#runtime", "#attempts", "what happened"), [cells])
    shown = capsys.readouterr().out
    assert all(shown.count(letter) >= "".join(cells).count(letter) for letter in "phy5x")


@pytest.mark.parametrize(("columns", "beside"), [("60", False), ("99", False), ("100", True)])
def test_a_row_is_a_block_where_a_table_has_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, beside: bool
) -> None:
    """Its sentence in lines as wide as the terminal, and not in a column of twenty letters."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    sentence = "The task raised ValueError; start from its traceback."
    rows = [("failed", "a" * 20, "t" * 9, "1.5 s", sentence), ("passed", "b", "t", "", "")]
    output.write_table(("status", "id", "task", "#runtime", "what happened"), rows)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    at = next(n for n, line in enumerate(lines) if "a" * 20 in line)
    if beside:
        assert "The task" in lines[at]
    else:
        assert lines[at : at + 3] == [
            f"failed  {'a' * 20}",
            f"    task: {'t' * 9}   runtime: 1.5 s",
            f"    {sentence}",
        ]
        assert lines[at + 3 :] == ["passed  b", "    task: t"]
