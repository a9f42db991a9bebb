"""What reaches a log, and what never does."""

from __future__ import annotations

import io
import json
import logging
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from loguru import logger

from pytest_manifest import log
from pytest_manifest.redaction import texts
from pytest_manifest.redaction.texts import hide


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave loguru, the root logger and the hidden values as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(texts.hidden_values, "now", texts.Hidden())
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.remove()
    logger.configure(patcher=lambda record: None)
    logger.add(sys.__stderr__ or sys.stderr)


def rename(record: object) -> None:
    record["name"] = "pytest_manifest.broker"  # type: ignore[index]  # loguru's own Record


def as_package() -> object:
    """A logger whose records are of this package."""

    return logger.patch(rename)


def failing(error: Exception, *values: object) -> None:
    """Raise, from a frame that has values to show."""
    raise error


def test_values_of_secret_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of a secret variable, and a URL's password, are hidden wherever they appear."""
    monkeypatch.setenv("GEMINI_API_KEY", "AIza-very-secret")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter%2F2hunter@h/0")
    monkeypatch.setenv("MANIFEST_SIGNING_KEY", __file__)  # where a secret is, is none
    sink = io.StringIO()
    log.configure(sink=sink)

    logger.info(__file__)
    assert __file__ in sink.getvalue()
    logger.info("key AIza-very-secret, hunter/2hunter and hunter%2F2hunter")

    assert "key ***, *** and ***" in sink.getvalue()


def test_text_shows_message_and_context() -> None:
    """A line for people holds level, message and what was bound; braces and tags are only text."""
    sink = io.StringIO()
    log.configure(sink=sink)

    logger.bind(entry="crud-1{x}<red>", attempt=2).info("sent {} <b>", "{y}")

    line = sink.getvalue()
    assert "INFO" in line
    assert "sent {y} <b> [entry=crud-1{x}<red> attempt=2]" in line
    assert "\x1b" not in line


HOSTILE = (
    "done\n2026-11-28 21:00:00.000 INFO     celery.app.trace Task pay[7] succeeded\r"
    "\x1b[2K\x1b]0;title\x07\x9b31m\u202egnp.exe\u2066\u2028\x85\x00\ud800"
)
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


@pytest.mark.parametrize("place", ["message", "context", "key", "name", "traceback"])
@pytest.mark.parametrize("where", ["worker", "run"])
def test_no_line_of_text_can_be_forged(tmp_path: Path, place: str, where: str) -> None:
    """Line ends, terminal sequences and bidirectional controls are text, wherever they stand.

    Only what was logged begins with a time; the lines of a traceback are indented.
    """
    path, sink = tmp_path / "run.log", io.StringIO()
    if where == "run":
        log.add_run_log(path)
    else:
        log.configure(sink=sink)
    if place == "message":
        as_package().warning(HOSTILE)  # type: ignore[attr-defined]  # a loguru Logger
    elif place == "context":
        as_package().bind(entry=HOSTILE).warning("x")  # type: ignore[attr-defined]  # the same
    elif place == "key":
        as_package().bind(**{HOSTILE: 1}).warning("x")  # type: ignore[attr-defined]  # the same
    elif place == "name":

        def rename(record: object) -> None:
            record["name"] = f"pytest_manifest.{HOSTILE}"  # type: ignore[index]  # the same

        logger.patch(rename).warning("x")
    else:
        try:
            failing(ValueError(HOSTILE))
        except ValueError:
            as_package().exception("x")  # type: ignore[attr-defined]  # the same

    text = path.read_text("utf-8") if where == "run" else sink.getvalue()
    assert text.endswith("\n")
    assert not OBEYED.search(text)
    lines = text.split("\n")[:-1]
    assert [line for line in lines[1:] if not line.startswith("  ")] == []
    assert len(lines) == 1 or place == "traceback"
    assert r"\x1b[2K" in text
    assert r"\u202egnp.exe" in text
    if place != "traceback":
        assert r"\n2026-11-28 21:00:00.000 INFO" in text


def test_colours_are_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line has the colours of its level, and what is logged has none."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    sink = io.StringIO()
    log.configure(sink=sink)
    logger.error("\x1b[32mfine\x1b[0m")
    assert r"\x1b[32mfine\x1b[0m" in sink.getvalue()
    assert set(re.findall("\x1b[^m]*m", sink.getvalue())) == {
        *("\x1b[0m", "\x1b[32m", "\x1b[31;1m", "\x1b[36m")
    }


def test_a_secret_of_several_lines_is_hidden_in_text(tmp_path: Path) -> None:
    """It is looked for before its line ends become text."""
    secret = "first half of it\nsecond half of it"
    hide(secret)
    path = tmp_path / "run.log"
    log.add_run_log(path)
    as_package().warning("it is {}", secret)  # type: ignore[attr-defined]  # a loguru Logger
    assert "it is ***" in path.read_text("utf-8")
    assert "half" not in path.read_text("utf-8")


def test_json_means_what_was_logged_and_shows_nothing_that_is_obeyed() -> None:
    """Whatever cannot be drawn is escaped, in pairs beyond the first plane."""
    sink = io.StringIO()
    log.configure(format="json", sink=sink)
    text = HOSTILE.replace("\ud800", "") + "\U000e0041 é 漢"
    logger.bind(entry=text).info("{}", text)
    line = sink.getvalue()
    assert not OBEYED.search(line.removesuffix("\n"))
    assert "\U000e0041" not in line
    assert "é 漢" in line
    assert json.loads(line)["message"] == text
    assert json.loads(line)["extra"]["entry"] == text


def test_text_is_coloured_only_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR gives colours where there is no terminal, NO_COLOR takes them away."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured, plain = io.StringIO(), io.StringIO()
    log.configure(sink=coloured)
    logger.info("hello")
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure(sink=plain)
    logger.info("hello")

    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[" not in plain.getvalue()


def test_json_is_one_object_a_line() -> None:
    """Every record, one with line breaks and an exception too, is one JSON object on one line."""
    sink = io.StringIO()
    log.configure(format="json", sink=sink)

    logger.bind(
        run="r1",
        entry="é",
        attempt=1,
        token="s3cret",
        when=datetime(2026, 1, 1, tzinfo=timezone.utc),
    ).info("a\nb")
    try:
        failing(ValueError("redis://:s3cret@h/0"))
    except ValueError:
        logger.exception("bad")

    first, second = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert first["message"] == "a\nb"
    assert first["level"] == "INFO"
    assert first["logger"] == __name__
    assert datetime.fromisoformat(first["time"]).utcoffset() == timezone.utc.utcoffset(None)
    extra = first["extra"]
    assert (extra["run"], extra["entry"], extra["attempt"]) == ("r1", "é", 1)
    assert extra["token"] == "***"
    assert extra["when"] == "2026-01-01 00:00:00+00:00"
    assert "ValueError: redis://:***@h/0" in second["exception"]
    assert "s3cret" not in sink.getvalue()


def test_nested_secrets_are_hidden_in_json() -> None:
    """A secret inside a bound mapping is hidden by its key."""
    sink = io.StringIO()
    log.configure(format="json", sink=sink)

    logger.bind(settings={"db": {"password": "s3cret"}, "urls": ["redis://:s3cret@h"]}).info("x")

    extra = json.loads(sink.getvalue())["extra"]
    assert extra["settings"] == {"db": {"password": "***"}, "urls": ["redis://:***@h"]}


def test_tracebacks_show_no_values() -> None:
    """An exception is shown without the values of variables, and without passwords."""
    sink = io.StringIO()
    log.configure(sink=sink)
    hidden = "-".join(["s3cret", "in", "a", "variable"])
    try:
        failing(ValueError("boom"), hidden)
    except ValueError:
        logger.exception("bad")

    assert "ValueError: boom" in sink.getvalue()
    assert hidden not in sink.getvalue()


def test_levels_are_respected() -> None:
    """What is below the level is not written."""
    sink = io.StringIO()
    log.configure(level="WARNING", sink=sink)

    logger.info("quiet")
    logger.warning("loud")

    assert "quiet" not in sink.getvalue()
    assert "loud" in sink.getvalue()


def test_a_run_log_holds_only_ours(tmp_path: Path) -> None:
    """The file holds this package's records alone, for its owner only, and can be closed."""
    path = tmp_path / "runs" / "r1.log"
    handler = log.add_run_log(path, format="json")

    logger.info("theirs")
    as_package().debug("ours redis://:s3cret@h/0")  # type: ignore[attr-defined]  # a loguru Logger
    logger.remove(handler)
    as_package().debug("late")  # type: ignore[attr-defined]  # a loguru Logger

    (line,) = path.read_text().splitlines()
    assert json.loads(line)["message"] == "ours redis://:***@h/0"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_log_leaves_other_handlers_alone(tmp_path: Path) -> None:
    """A project's own loguru handlers go on as before."""
    theirs = io.StringIO()
    logger.add(theirs, format="{message}")
    handler = log.add_run_log(tmp_path / "r.log")

    logger.info("hello")
    logger.remove(handler)

    assert theirs.getvalue() == "hello\n"


def test_a_run_log_appends(tmp_path: Path) -> None:
    """A second process, or a resumed run, adds to the file."""
    path = tmp_path / "r.log"
    path.write_text("before\n")
    handler = log.add_run_log(path)
    as_package().info("after")  # type: ignore[attr-defined]  # a loguru Logger
    logger.remove(handler)

    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert "after" in lines[1]


def test_a_run_log_on_a_full_disk_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """No record is a traceback on the terminal, and the log can be closed."""
    handler = log.add_run_log(Path("/dev/full"))
    as_package().info("into the void")  # type: ignore[attr-defined]  # a loguru Logger
    logger.remove(handler)
    told = capfd.readouterr().err
    assert "Logging error" not in told
    assert "Traceback" not in told


def test_a_fault_of_ours_is_a_sentence_with_its_traceback_in_the_log(
    tmp_path: Path,
) -> None:
    """The user's own handler, which shows variables, gets no traceback; the run's log gets it,
    without values and without secrets."""
    theirs = io.StringIO()
    logger.add(theirs, backtrace=True, diagnose=True)
    text = log.add_run_log(tmp_path / "r.log")
    lines = log.add_run_log(tmp_path / "r.jsonl", format="json")
    logger.configure(patcher=rename)
    try:
        failing(ValueError("no such redis://:s3cret@h/0"), "value-of-a-variable")
    except ValueError as error:
        log.log_failure("the run failed", error, run="r1")
    logger.remove(text)
    logger.remove(lines)

    said = "the run failed: ValueError: no such redis://:***@h/0"
    assert theirs.getvalue().rstrip().endswith(said)
    assert len(theirs.getvalue().splitlines()) == 1
    kept = (tmp_path / "r.log").read_text()
    assert f"{said} [run=r1]" in kept
    record = json.loads((tmp_path / "r.jsonl").read_text())
    assert record["message"] == said
    assert record["extra"] == {"run": "r1"}
    for shown in (kept, record["exception"]):
        assert "Traceback (most recent call last)" in shown
        assert "in failing" in shown
        assert "s3cret" not in shown
        assert "value-of-a-variable" not in shown.replace('"value-of-a-variable")', "")


def test_standard_records_are_routed() -> None:
    """Records of the standard library keep their name and level, and get no braces expanded."""
    sink = io.StringIO()
    log.configure(format="json", sink=sink)
    log.intercept_stdlib("INFO")

    logging.getLogger("celery.app.trace").warning("Task %s {odd}", "tasks.x")
    logging.getLogger("kombu").debug("quiet")
    logging.getLogger("custom").log(33, "between levels")

    first, second = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert (first["logger"], first["level"]) == ("celery.app.trace", "WARNING")
    assert first["message"] == "Task tasks.x {odd}"
    assert second["level"] == "Level 33"


def test_standard_exceptions_are_routed() -> None:
    """An exception logged through the standard library arrives with its traceback."""
    sink = io.StringIO()
    log.configure(format="json", sink=sink)
    log.intercept_stdlib()
    try:
        failing(ValueError("boom"))
    except ValueError:
        logging.getLogger("celery").exception("failed")
    logging.getLogger("celery").error("no exception", exc_info=True)

    first, second = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert "ValueError: boom" in first["exception"]
    assert "exception" not in second


FORKING = """
import logging, os
before = lambda: logging.getLogger("eventlet").warning("a fork is a bad idea")
os.register_at_fork(before=before)  # as an app does that was imported first
from pytest_manifest import log
log.configure()
log.intercept_stdlib()
if os.fork():
    os.wait()
    logging.getLogger("parent").warning("goes on")
else:
    logging.getLogger("child").warning("goes on")
"""


def test_what_is_logged_while_a_process_forks_is_logged_afterwards() -> None:
    """Once, by the parent: loguru holds its locks meanwhile, and would wait for itself."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    told = sorted(line.split(maxsplit=3)[3] for line in done.stderr.splitlines())
    assert told == ["child goes on", "eventlet a fork is a bad idea", "parent goes on"]
