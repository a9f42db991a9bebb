"""``manifest status``: how far a run is, in a terminal of any width, in a pipe, and as JSON."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_manifest.cli import status as command
from pytest_manifest.cli.status import NARROWEST, WIDEST, log_line, picture
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.text import cells
from tests.unit.cli_support import as_json, manifest, refusal
from tests.unit.following_support import MadeRun, Make

Steps = Iterator[Callable[[], None]]
NUMBER = re.compile(r"\d[\d,.:]*")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def busy(make: Make) -> MadeRun:
    """A run in which much happens."""
    run = make(
        entries=1200,
        tasks=("billing.charge_" + "a" * 60, "ops.slow"),
        max_failed="50%",
        budget=9.0,
        limits={"tenant": 5},
    )
    for n in range(300):
        run.after(2)
        run.send(f"e{n}")
        run.start(f"e{n}", worker="render-with-a-long-name@host")
        error = f"the bank said {n % 3}"
        status = "failed" if n % 10 == 0 else "passed"
        more: dict[str, object] = {"error": error} if status == "failed" else {}
        run.judge(f"e{n}", status, worker="render-with-a-long-name@host", runtime=1.5, **more)  # type: ignore[arg-type]  # options as the callee names them
    run.send(*(f"e{n}" for n in range(300, 400)))
    run.start("e300", "e301", worker="second@host")
    run.die("e300", worker="second@host")
    run.fact(Kind.STEERED, command=1, action="pause", by="ann", reason="the database moves")
    run.after(130)
    return run


def seen(run: MadeRun) -> RunStatus:
    with run.reader() as reader:
        return reader.look()


def lines(found: RunStatus, width: int, encoding: str = "utf-8") -> list[str]:
    return ["".join(text for text, _ in line) for line in picture(found, width, encoding)]


def test_at_each_width_nothing_wraps_and_no_number_is_cut(busy: MadeRun) -> None:
    """From 40 columns to 200: what has no room is left out whole."""
    found = seen(busy)
    whole = " ".join(lines(found, WIDEST))
    known = {*NUMBER.findall(whole), *NUMBER.findall(found.run)}
    for width in range(NARROWEST, WIDEST + 1):
        shown = lines(found, width)
        assert [line for line in shown if cells(line) > width] == [], width
        assert {*NUMBER.findall(" ".join(shown))} <= known, width
        text = " ".join(" ".join(shown).split())
        for wanted in ("300 of 1,200", "passed 270", "failed 30", "not sent 800", "paused"):
            assert wanted in text, width


@pytest.mark.parametrize("is_left", [False, True])
def test_a_runs_id_can_be_copied_of_each_line_that_has_it(busy: MadeRun, is_left: bool) -> None:
    """It is whole in the head and in the commands, also that of a run whose pytest is gone."""
    if is_left:
        busy.lock.release()
    found = seen(busy)
    named = " ".join(lines(found, WIDEST)).count(busy.run)
    assert named > 1
    for width in range(NARROWEST, WIDEST + 1):
        assert sum(line.count(busy.run) for line in lines(found, width)) == named, width


def test_the_picture_of_a_wide_terminal(busy: MadeRun) -> None:
    """All of it, as the how-to shows it."""
    text = "\n".join(lines(seen(busy), 120))
    for wanted in (
        "m.jsonl  run 20261124T150001-00000001  began 15:00 UTC  ‖ paused 12 min 10 s",
        "! Paused since 15:10 UTC by ann: the database moves",
        "  Go on: manifest ctl 20261124T150001-00000001 resume",
        "! A process of second@host ended at 15:10 UTC while it ran e300",
        "RATE  usually 30/min",
        "WHAT GOES WRONG",
        "WORKERS",
        "RUN LONGEST",
        "TASKS",
        "LIMITS  max-failed=50%  budget=9  kills=2  limit.tenant=5",
        "15:10 pause by ann: the database moves",
    ):
        assert wanted in text, wanted
    assert "▁" in text or "█" in text


def test_a_terminal_without_unicode_gets_ascii(busy: MadeRun) -> None:
    assert all(line.isascii() for line in lines(seen(busy), 100, "ascii"))


def test_foreign_text_is_escaped(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a worker says of itself cannot move the cursor."""
    run = make()
    run.do("e0", status="failed", error="no\x1b[2Jthing", worker="w\x1b[31m@h")
    run.fact(Kind.STEERED, command=1, action="pause", by="a\x1b[5mnn", reason="\x07bell\u202e")
    monkeypatch.setenv("COLUMNS", "100")
    command.status("last")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out


def test_json_is_the_document(busy: MadeRun) -> None:
    document = as_json("status", "last")
    found = RunStatus.model_validate_json(json.dumps(document))
    assert (found.run, found.done, found.state) == (busy.run, 300, "paused")


def test_a_run_that_is_over_shows_its_verdict(make: Make) -> None:
    run = make(entries=2)
    run.do("e0")
    run.do("e1", status="failed")
    run.stop()
    run.lock.release()
    for arguments in (["status"], ["status", run.run], ["status", "last", "--follow"]):
        assert "2 of 2  · 1 of 2 entries failed, 1 passed" in manifest(*arguments)
    (line,) = manifest("status", "--follow", "--json").splitlines()
    assert json.loads(line)["verdict"] == "1 of 2 entries failed, 1 passed"


def test_a_run_is_followed_until_it_is_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe a line for each look; with --json a document a line; then what it came to."""
    run = make(entries=3)
    steps: Steps = iter([lambda: run.do("e0"), lambda: run.do("e1", "e2"), run.stop])
    monkeypatch.setattr("time.sleep", lambda _seconds: next(steps)())
    command.status("last", follow=True)
    out = capsys.readouterr().out.splitlines()
    assert ["0 of 3" in out[0], "1 of 3" in out[1], "3 of 3" in out[2]] == [True, True, True]
    assert any("3 of 3 entries passed" in line for line in out[3:])


def test_a_terminal_is_redrawn_in_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many lines are gone back as were drawn; a low window gets the first ones alone."""
    run = make(entries=3)
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_a: os.terminal_size((60, 4)))
    steps: Steps = iter([lambda: run.do("e0"), run.stop])
    monkeypatch.setattr("time.sleep", lambda _seconds: next(steps)())
    command.status("last", follow=True)
    first, second, third = screen.getvalue().split("\x1b[3A\r\x1b[J")
    assert [first.count("\n"), second.count("\n")] == [3, 3]
    assert "1 of 3" in second
    assert "· 2 of 3 entries pending, 1 passed" in third
    assert "\x1b[3" not in third  # no colour


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "nothing"], "no run of that name in"),
        (["status", "gone.sqlite"], "gone.sqlite: there is no such ledger; check the path"),
        (["status", "text.sqlite"], "text.sqlite: this is not a ledger that can be read"),
        (["status", "--in", "empty"], "there is no run in empty; dispatch a manifest first"),
    ],
)
def test_what_is_no_run_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.sqlite").write_text("no ledger")
    assert said in refusal(*arguments)


def test_a_log_has_a_line_of_ascii(busy: MadeRun) -> None:
    line = log_line(seen(busy))
    assert line.isascii()
    assert line.startswith("15:12:11 paused, 300 of 1,200, passed 270, failed 30, running 1,")


def test_it_is_a_process_of_its_own(busy: MadeRun, tmp_path: Path) -> None:
    """Which reads while another one writes, and whose reader may close the pipe."""
    shown = subprocess.run(
        [sys.executable, "-m", "pytest_manifest", "status", str(busy.path), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(shown.stdout)["done"] == 300
