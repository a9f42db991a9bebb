"""GitHub: the step's summary, annotations at the manifest's lines, and nobody else's commands."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.plugin.conftest import Project
from tests.plugin.ways import BOTH

MEMORY = "--manifest-broker=memory://"
HOSTILE = (
    "|`</code><script>alert(1)</script>[x](http://a.example) @me ##[error]c\n\n::error::boo\r::x::"
)


@pytest.fixture
def runner(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project on GitHub's runner, in a folder of its repository; gives the step's file."""
    for name, value in {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(project.path.parent),
        "GITHUB_SERVER_URL": "https://forge.example.com",
        "GITHUB_REPOSITORY": "me/films",
        "GITHUB_SHA": "abc123",
        "GITHUB_RUN_ID": "77",
        "GITHUB_STEP_SUMMARY": str(project.path / "step.md"),
    }.items():
        monkeypatch.setenv(name, value)
    project.write("step.md", "what was there\n")
    return project.path / "step.md"


def commands(lines: list[str]) -> list[str]:
    """The workflow commands that a runner would carry out, as it reads what is printed."""
    found, stopped = [], None
    for line in "\n".join(lines).replace("\r", "\n").split("\n"):
        told = re.match(r"\s*::(?P<name>[\w-]+)(?P<rest>[^:]*)::(?P<data>.*)", line)
        if stopped is not None:
            stopped = None if told and told["name"] == stopped else stopped
        elif told and told["name"] == "stop-commands":
            stopped = told["data"]
        elif told or "##[" in line:
            found.append(line)
    assert stopped is None
    return found


def cells(text: str, head: str) -> list[list[str]]:
    """The rows below a table's head, split as GitHub's Markdown does."""
    rows = text.split(f"| {head}", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] for row in rows
    ]


def shown(markdown: str) -> str:
    """What a reader sees of a cell."""
    text = re.sub(r"</?code>", "", markdown)
    return re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), text)


@pytest.mark.parametrize("workers", BOTH)
def test_the_steps_summary_and_annotations(
    project: Project, runner: Path, workers: tuple[str, ...]
) -> None:
    """Counts, tasks, causes with links to lines, files; each failing entry at its line."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1}},
            {"id": "a,b: 100%", "task": "jobs.fail", "args": ["no luck"]},
            {"id": "lost", "task": "jobs.nobody"},
        ],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, *workers)

    text = runner.read_text("utf-8")
    assert text.startswith("what was there\n### ❌ ")
    assert "2 of 3 entries failed" in text
    assert ["passed", "1"] in cells(text, "Verdict")
    tasks = {shown(row[0]): row[1:5] for row in cells(text, "Task")}
    assert tasks["jobs.double"] == ["1", "1", "0", "0"]
    causes = cells(text, "Entries | Cause")
    assert sorted(row[0] for row in causes) == ["1", "1"]
    place = f"{project.path.name}/m.jsonl"
    blob = f"https://forge.example.com/me/films/blob/abc123/{place}"
    assert f"({blob}#L2)" in text
    assert "actions/runs/77#artifacts" in text
    assert commands(result.outlines) == [
        f"::error file={place},line=2,title=a%2Cb%3A 100%25%3A failed::{_sentence(result, 2)}",
        f"::error file={place},line=3,title=lost%3A unknown_task::{_sentence(result, 3)}",
    ]


def _sentence(result: pytest.RunResult, line: int) -> str:
    found = [text for text in result.outlines if f",line={line}," in text]
    (sentence,) = (text.rpartition("::")[2] for text in found)
    assert len(sentence) > 10
    return sentence


TALK = """
import sys
from jobs import app
from celery.utils.log import get_task_logger

@app.task(name="jobs.talk")
def talk(what):
    for stream in (sys.stdout, sys.stderr):
        print("::add-mask::secret", file=stream)
        print("x ##[error]x", file=stream)
        print("::stop-commands::mine\\n::mine::\\n::error::after", file=stream, flush=True)
    get_task_logger(__name__).warning("::set-output name=a::b")
    raise ValueError(what)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((MEMORY,), id="memory"),
        pytest.param((MEMORY, "-s"), id="-s"),
        pytest.param((MEMORY, "-q", "-o", "log_cli=1"), id="-q", marks=pytest.mark.ring(2)),
        pytest.param((MEMORY, "-vv"), id="-vv", marks=pytest.mark.ring(2)),
        pytest.param(("-n", "2"), id="xdist", marks=[pytest.mark.live, pytest.mark.ring(2)]),
    ],
)
def test_nothing_that_a_job_says_is_carried_out(
    project: Project, runner: Path, arguments: tuple[str, ...]
) -> None:
    """Whatever it prints, logs or raises is text in all that the runner reads, and in Markdown."""
    project.write("talk.py", TALK)
    project.write("pytest.ini", "[pytest]\nmanifest_app = talk:app\n")
    name = "::warning::x | <b>`[d](e)*_"
    project.manifest("m.jsonl", [{"id": name, "task": "jobs.talk", "args": [HOSTILE]}])
    result = project.run("--manifest=m.jsonl", *arguments)

    (command,) = commands(result.outlines)
    assert command.startswith("::error file=")
    assert "%0A" not in command.partition("title=")[2].partition("::")[0]
    assert "\n  ::error::boo" in result.stdout.str()  # as it was said
    # Both are one stream to the runner, in which the second comes while the first is stopped.
    assert commands([*result.outlines[:1], *result.errlines, *result.outlines[1:]]) == [command]
    text = runner.read_text("utf-8")
    assert "<script" not in text
    assert "http://a.example" not in text
    (row,) = cells(text, "Entries | Cause")
    assert len(row) == 5
    assert name in shown(row[2])
    assert "</code><script>alert(1)</script>[x](http://a.example) @me" in shown(row[3])


def test_a_manifest_that_a_test_asks_for_stops_commands_too(project: Project, runner: Path) -> None:
    project.manifest("m.jsonl", [{"id": "x", "task": "jobs.fail", "args": ["\n::error::boo"]}])
    project.write(
        "test_it.py",
        "import pytest\n"
        "@pytest.mark.manifest('m.jsonl')\n"
        "def test_it(entry, receipt): print('::error::mine')\n",
    )
    result = project.run("test_it.py", MEMORY)
    (command,) = commands(result.outlines)
    assert command.startswith("::error file=")


@pytest.mark.parametrize("fault", ["dispatch", "hook"])
def test_commands_are_resumed_however_pytest_ends(
    project: Project, runner: Path, fault: str
) -> None:
    """What follows pytest in the same step may have commands of its own."""
    project.doubles(count=1)
    if fault == "dispatch":
        expect = {"result": None}
        project.manifest("m.jsonl", [{"id": "x", "task": "jobs.nobody", "expect": expect}])
    else:
        project.write("conftest.py", "def pytest_runtest_logfinish(): raise OSError('x')")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-strict")
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert result.outlines[0].startswith("::stop-commands::")
    commands(result.outlines)  # asserts that they are not stopped at the end


def test_no_more_is_annotated_than_github_shows(project: Project, runner: Path) -> None:
    """Three of each cause, ten at most; the others are counted."""
    rows: list[dict[str, object]] = [
        {"id": f"f-{n}", "task": "jobs.fail", "args": [str(n)]} for n in range(25)
    ]
    rows.append({"id": "odd", "task": "jobs.double", "args": [1], "expect": {"result": {"n": 9}}})
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", MEMORY, "-q", "--tb=no")

    found = commands(result.outlines)
    assert sum(line.startswith("::error ") for line in found) == 4
    assert any("title=odd%3A failed" in line for line in found)
    assert found[-1].startswith("::notice ")
    assert "22 more entries fail, their causes are in the step's summary" in found[-1]
    assert "summary.json has every one of them" in found[-1]
    (cause, _) = cells(runner.read_text("utf-8"), "Entries | Cause")
    assert cause[0] == "25"


def test_several_runs_share_page_and_annotations(project: Project, runner: Path) -> None:
    """Each run has its part of the page, and its lines among the ten."""
    for name in ("a", "b"):
        rows = [{"id": f"{name}{n}", "task": "jobs.fail", "args": ["x"]} for n in range(9)]
        project.manifest(f"{name}.jsonl", rows)
    result = project.run("--manifest=a.jsonl", "--manifest=b.jsonl", MEMORY, "--tb=no")

    found = [line for line in commands(result.outlines) if line.startswith("::error ")]
    assert len(found) == 6
    assert sum("/a.jsonl," in line for line in found) == 3
    assert runner.read_text("utf-8").count("9 of 9 entries failed") == 2


def test_elsewhere_nothing_is_printed(project: Project) -> None:
    """Without GitHub's runner there are neither commands nor changes to what failures say."""
    project.manifest("m.jsonl", [{"id": "x", "task": "jobs.fail", "args": ["a\n::error::b"]}])
    result = project.run("--manifest=m.jsonl", MEMORY)
    text = result.stdout.str()
    assert "::stop-commands::" not in text
    assert "::error file" not in text
    assert "\n  ::error::b" in text


def test_an_idle_session_prints_nothing_on_github(project: Project, runner: Path) -> None:
    """Where no manifest is run, the runner reads pytest's own words alone."""
    project.write("test_one.py", "def test_one(): pass")
    result = project.run("test_one.py")
    result.stdout.no_fnmatch_line("*::stop-commands::*")
    assert runner.read_text("utf-8") == "what was there\n"


def test_a_file_of_ones_own(project: Project) -> None:
    """``--manifest-report=FILE.md`` writes it anew each time, with links to the files beside it."""
    project.doubles("a b.jsonl", count=2)
    for _ in range(2):
        project.run("--manifest=a b.jsonl", MEMORY, "--manifest-report=out/run.md")
    text = (project.path / "out" / "run.md").read_text("utf-8")
    assert text.count("### ✅") == 1
    assert "2 entries passed" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links[0] == "../a%20b.jsonl"
    for link in links:
        assert (project.path / "out" / unquote(link)).is_file()
    result = project.run("--manifest=a b.jsonl", MEMORY, "--manifest-report=out/run.md")
    result.stdout.fnmatch_lines(["*markdown  out/run.md"])


def test_a_page_that_cannot_be_written_is_said(
    project: Project, runner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's outcome stays what it is, and the other papers are written."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "no" / "step.md"))
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=run.md")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*the step's summary was not written:*"])
    assert (project.path / "run.md").is_file()
