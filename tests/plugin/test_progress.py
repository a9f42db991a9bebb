"""Live progress on a real terminal: what stands there in the middle of a run, and at its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.conftest import Project
from tests.plugin.terminal import Terminal, terminal

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
BROKER = "--manifest-broker=memory://"
MANIFEST = "--manifest=m.jsonl"
QUICK = ("-p", "no:cacheprovider", "-p", "no:sugar", BROKER)
RENEWED = r"slowest held ([2-9]|\d\d+) s"
"""The line once it has been written again; on a slow machine the 2nd second may go unseen."""

PRINTING = """
import pytest

pytestmark = pytest.mark.manifest("m.jsonl")


def test_prints(entry, receipt, capsys):
    print(f"one line of {entry.id}")
    print("and the beginning of another", end=" ")
    print("which ends here")
    with capsys.disabled():
        print("past all capturing")
        print("in two lines")
"""


def held_in_the_middle(project: Project, count: int = 6, hold: str = "h") -> Path:
    """A manifest in which the job in the middle runs on until the returned file is removed."""
    rows: list[dict[str, object]] = [
        {"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(count)
    ]
    rows.insert(count // 2, {"id": "held", "task": "jobs.hold", "kwargs": {"key": hold}})
    project.manifest("m.jsonl", rows)
    return project.hold(hold)


def see_footer(shown: Terminal, pattern: str) -> str:
    """Wait until the line below the cursor, the last one on the screen, is like this."""
    shown.until(
        lambda: len(below := shown.below_cursor()) == 1 and re.search(pattern, below[0]),
        what=f"a line like {pattern!r} below the cursor",
    )
    return shown.below_cursor()[0]


def told(shown: Terminal) -> list[str]:
    """The lines that pytest has written between its header and the runs, without times and order.

    Jobs may end in another order each time.
    """
    text = "\n".join(shown.transcript)
    text = text[text.index("collected ") :]
    text = text[: text.index(" manifest runs ")] if " manifest runs " in text else text
    text = re.sub(r"\d+\.\d+ ?s|\d{8}T\d{6}-[0-9a-f]{8}|\[ *\d+%\]", "T", text)
    return sorted(text.rstrip("= ").split("\n"))


def transcript(
    project: Project, held: Path, *arguments: str, size: tuple[int, int], see: str | None
) -> list[str]:
    """What a whole run leaves; with ``see`` the held job goes on once that is seen below."""
    held.touch()
    with terminal(project.path, *QUICK, "--manifest-rerun", *arguments, size=size) as shown:
        if see is not None:
            see_footer(shown, see)
        else:
            shown.until(lambda: project.ran()["h"], what="the held job has begun")
        held.unlink()
        shown.finish()
        (project.path / "ran.txt").unlink()
        return told(shown)


BOTTOM, NARROW, TALL = (80, 9), (40, 60), (80, 100)


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((MANIFEST,), NARROW),
        (("test_it.py", "-s"), BOTTOM),
        pytest.param((MANIFEST,), TALL, marks=LATER),
        pytest.param((MANIFEST, "-v"), BOTTOM, marks=LATER),
        pytest.param((MANIFEST, "--color=no"), BOTTOM, marks=LATER),
        pytest.param(("test_it.py", "-v", "-s"), NARROW, marks=LATER),
        pytest.param(("test_it.py", "--capture=sys"), BOTTOM, marks=LATER),
        pytest.param(("test_it.py", "--capture=tee-sys"), BOTTOM, marks=LATER),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_leaves_everything_as_it_is_without(
    project: Project, arguments: tuple[str, ...], size: tuple[int, int]
) -> None:
    """With the line or without it the same is read at the end, also of what has scrolled away."""
    held = held_in_the_middle(project)
    project.write("test_it.py", PRINTING)
    with_it = transcript(project, held, *arguments, size=size, see=r"3/7 .*running 1")
    off = "--manifest-progress=off"
    without = transcript(project, held, *arguments, off, size=size, see=None)
    assert with_it == without


@pytest.mark.parametrize(
    "columns", [pytest.param(40, marks=LATER), 80, pytest.param(120, marks=LATER)]
)
def test_shows_the_figures_below_the_dots(project: Project, columns: int) -> None:
    """In the middle of a run the line stands below pytest's own, in whatever room there is."""
    held = held_in_the_middle(project)
    with terminal(project.path, *QUICK, MANIFEST, size=(columns, 40)) as shown:
        line = see_footer(shown, r"^(manifest . )?3/7 .*running 1")
        assert "failed 0" in line or columns == 40
        # at 80 columns a rate and an estimate, once there are any, leave no room for the lost
        assert columns == 80 or ("lost 0" in line) == (columns == 120)
        shown.until(
            lambda: shown.lines[shown.screen.cursor.y] == "m.jsonl ...",
            what="three dots and no end",
        )
        assert shown.screen.cursor.x == len("m.jsonl ...")
        see_footer(shown, "3/7 .*running 1")
        held.unlink()
        assert shown.finish() == 0
        assert not any("running 1" in row for row in shown.transcript)


@LATER
def test_names_what_runs_longest(project: Project) -> None:
    """The entry that runs longest is named, in a line that wide characters do not break."""
    name = "映画" * 30
    project.manifest("m.jsonl", [{"id": name, "task": "jobs.hold", "kwargs": {"key": "h"}}])
    held = project.hold("h")
    with terminal(project.path, *QUICK, MANIFEST, size=(80, 40)) as shown:
        line = see_footer(shown, r"slowest 映画.*\.\.\..*画 \d+ s$")
        assert 60 < len(line) + sum(c in name for c in line) < 80
        held.unlink()
        shown.finish()
        assert not any("slowest 映" in row for row in shown.transcript)


@pytest.mark.ring(2)
def test_follows_the_size_of_the_window(project: Project) -> None:
    """A window made narrower or wider in the middle gets a line of its own width."""
    held = held_in_the_middle(project)
    with terminal(project.path, *QUICK, MANIFEST, size=(100, 40)) as shown:
        see_footer(shown, "3/7 .{50}")
        shown.resize(40, 40)
        see_footer(shown, "^3/7  running 1.{0,24}$")
        shown.resize(100, 40)
        see_footer(shown, "3/7 .{50}")
        held.unlink()
        assert shown.finish() == 0


@pytest.mark.ring(2)
@pytest.mark.parametrize("verbose", [(), pytest.param(("-v",), marks=LATER)], ids=["dots", "-v"])
def test_goes_on_in_the_controller_of_xdist(project: Project, verbose: tuple[str, ...]) -> None:
    """Under -n the line stands below xdist's own lines, is renewed, and leaves nothing behind."""
    held = held_in_the_middle(project)
    with terminal(project.path, *QUICK, MANIFEST, "-n", "2", *verbose, size=(100, 60)) as shown:
        see_footer(shown, r"3/7 .* running 1 . passed 3")
        see_footer(shown, RENEWED)
        held.unlink()
        assert shown.finish() == 0
        text = shown.transcript
    assert not any("running 1" in line for line in text)
    if verbose:
        lines = [line for line in text if line.startswith("[gw")]
        assert len(lines) == 7
        assert all(re.fullmatch(r"\[gw\d\] \[ *\d+%\] PASSED m.jsonl::\S+", x) for x in lines)
    else:
        assert re.fullmatch(r"\.{7} +\[100%\]", text[text.index("2 workers [7 items]") + 1])


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=LATER)], ids=["plain", "xdist"]
)
def test_ctrl_c_takes_the_line_away(project: Project, xdist: tuple[str, ...]) -> None:
    """After Ctrl-C only pytest's own words are there."""
    held = held_in_the_middle(project)
    arguments = (*QUICK, MANIFEST, "--override-ini=manifest_grace=0", *xdist)
    with terminal(project.path, *arguments, size=(100, 60)) as shown:
        see_footer(shown, "running 1")
        shown.type(b"\x03")
        shown.until(
            lambda: any("interrupted: nothing more" in line for line in shown.lines),
            what="pytest says that it was interrupted",
        )
        held.unlink()
        assert shown.finish() == pytest.ExitCode.INTERRUPTED
        text = shown.transcript
    assert not any("running 1" in line for line in text)
    said = "interrupted: nothing more is sent"  # the terminal itself shows the key before it
    assert any(line.removeprefix("^C").startswith(said) for line in text)


@LATER
def test_writes_no_colours_where_none_are_wanted(project: Project) -> None:
    """--color=no: the line is drawn, without any colour."""
    held = held_in_the_middle(project)
    with terminal(project.path, *QUICK, MANIFEST, "--color=no") as shown:
        see_footer(shown, "running 1")
        held.unlink()
        shown.finish()
        assert not re.search(rb"\x1b\[[1-9][0-9;]*m", shown.written)


@LATER  # which way suits a terminal is held by unit/test_progress_modes.py
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("-q",), {}),
        (("--manifest-progress=off",), {}),
        (("-p", "another_reporter"), {}),
        ((), {"CI": "true"}),
        ((), {"TERM": "dumb"}),
        (("-n", "1", "-s"), {}),
    ],
    ids=lambda value: " ".join(value) or "-",
)
def test_moves_no_cursor_where_that_would_disturb(
    project: Project, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    """-q, off, another reporter, CI, a dumb terminal, -s under -n: nothing is rewritten."""
    project.write("another_reporter.py", ANOTHER_REPORTER)
    held = held_in_the_middle(project)
    with terminal(project.path, *QUICK, MANIFEST, *arguments, environment=environment) as shown:
        shown.until(lambda: project.ran()["h"], what="the held job has begun")
        held.unlink()
        assert shown.finish() == 0
        assert b"\x1b7" not in shown.written
        if not environment and "-s" not in arguments:  # those get lines of a log, some time
            assert b"running 1" not in shown.written


ANOTHER_REPORTER = """
import sys
import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    kind = type(config.pluginmanager.unregister(name="terminalreporter"))
    other = type("Reporter", (kind,), {})
    config.pluginmanager.register(other(config, sys.stdout), "terminalreporter")
"""


@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=LATER)], ids=["plain", "xdist"]
)
def test_writes_sparse_lines_into_a_log(project: Project, xdist: tuple[str, ...]) -> None:
    """Not a terminal: whole lines of ASCII; here the first is not waited for as long as usual."""
    project.write(
        "conftest.py",
        "import pytest_manifest.reporting.progress as p\np.FIRST = p.LOG_PERIOD = 0\n",
    )
    project.manifest("m.jsonl", [{"id": "映画", "task": "jobs.nap", "kwargs": {"sec": 0.3}}])
    result = project.run(*QUICK, MANIFEST, *xdist)
    assert result.ret == 0
    lines = [line for line in result.outlines if line.startswith("manifest after ")]
    assert lines
    assert all(line.isascii() for line in lines)
    assert "/1, sent" in lines[0]
    assert "\x1b" not in result.stdout.str()


@LATER
def test_a_line_that_is_asked_for_is_drawn_for_another_reporter(project: Project) -> None:
    """--manifest-progress=line: the user knows better."""
    project.write("another_reporter.py", ANOTHER_REPORTER)
    held = held_in_the_middle(project)
    arguments = (*QUICK, MANIFEST, "-p", "another_reporter", "--manifest-progress=line")
    with terminal(project.path, *arguments) as shown:
        see_footer(shown, "running 1")
        held.unlink()
        assert shown.finish() == 0


@pytest.mark.ring(2)
def test_goes_on_in_the_files_own_order(project: Project) -> None:
    """--stepwise runs pytest's own loop, which waits within each test: the line is there, too."""
    held = held_in_the_middle(project)
    with terminal(project.path, "-p", "no:sugar", BROKER, MANIFEST, "--stepwise") as shown:
        see_footer(shown, "3/7 .* running 1")
        see_footer(shown, RENEWED)  # nothing has come since
        held.unlink()
        assert shown.finish() == 0
        assert not any("running 1" in line for line in shown.transcript)
