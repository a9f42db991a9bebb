"""``manifest ctl``: what it asks of a run, whom it finds there, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.cli import ctl
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.commands import Answer, Command
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.kept_commands import asked_of
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.resume_rules import DEADLY
from pytest_manifest.schema.facts import HandedOn, Started
from tests.unit.cli_support import as_json, make_run, manifest, refusal, write_manifest

NAMES = ("crm.a", "crm.b", "mail.c")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three entries: passed, failed, and one that waits for a worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ctl, "WAIT", 30.0)
    entries: list[Mapping[str, JsonValue]] = [
        {"id": name, "task": name, "idempotent": name != "crm.b"} for name in NAMES
    ]
    file = write_manifest(tmp_path / "m.jsonl", *entries)
    return make_run(file, 1, ["passed", "failed", None])


def done(command: Command) -> Answer:
    return Answer(True, True, f"{command.action} is done", {"given": dict(command.data)})


@contextmanager
def followed(path: Path, answer: Callable[[Command], Answer] = done) -> Iterator[list[Command]]:
    """Follow the run as a pytest does: hold its lock, and answer what comes."""
    seen: list[Command] = []
    over = threading.Event()

    def follow() -> None:
        with Ledger.open(path, write=True) as ledger:
            while not over.is_set():
                for command in ledger.commands.open():
                    ledger.commands.answer(command.number, answer(command))
                    seen.append(command)
                over.wait(0.01)

    lock = RunLock(RunFiles(path).lock)
    lock.acquire("r")
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        lock.release()


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        (("pause",), {}),
        (("resume",), {}),
        (("drain",), {}),
        (("stop",), {}),
        (("stop", "--leave"), {"how": "leave"}),
        (("stop", "--take-back"), {"how": "take-back"}),
        (("set", "window=20", "limit.tenant=3"), {"window": "20", "limit.tenant": "3"}),
        (("cancel", "mail.c"), {"entries": ["mail.c"], "running": False}),
        (("cancel", "--task=mail.*", "--running"), {"entries": ["mail.c"], "running": True}),
        (("requeue", "crm.b", "--unsafe"), {"entries": ["crm.b"], "unsafe": True}),
        (("requeue", "--failed"), {"entries": ["crm.b"], "unsafe": False}),
        (("requeue", "--cause=1"), {"entries": ["crm.b"], "unsafe": False}),
        (("requeue", "--task=crm.b"), {"entries": ["crm.b"], "unsafe": False}),
    ],
)
def test_a_command_reaches_the_run_and_its_answer_comes_back(
    run: Path, arguments: tuple[str, ...], data: dict[str, JsonValue]
) -> None:
    with followed(run) as seen:
        found = as_json("ctl", "last", *arguments, "--reason=db failover")
    assert found["run"] == run.stem
    assert (found["applied"], found["changed"]) == (True, True)
    assert found["message"] == f"{arguments[0]} is done"
    (command,) = seen
    assert (command.action, command.reason, command.data) == (arguments[0], "db failover", data)
    assert "@" in command.by
    assert found["command"] == command.number


def test_what_the_run_refuses_ends_with_1(run: Path) -> None:
    with followed(run, lambda _: Answer(False, False, "window=0: write it like window=200")):
        said = manifest("ctl", "last", "set", "window=0", status=1)
    assert said == "set: window=0: write it like window=200\n"


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("cancel", ["mail.c", "crm.a"]),
        ("cancel", ["crm.b"]),
        ("requeue", ["crm.b", "--unsafe"]),
        ("requeue", ["mail.c"]),
    ],
)
def test_what_is_kept_for_the_next_session_is_said_so(
    run: Path, action: str, given: list[str]
) -> None:
    found = as_json("ctl", "last", action, *given)
    assert found["applied"]
    said = str(found["message"])
    assert said.startswith("no pytest follows this run now: it is kept for pytest --manifest=")
    assert said.endswith(f" --manifest-resume --manifest-run={run.stem}")
    with Ledger.open(run) as ledger:
        assert [one.action for one in ledger.commands.open()] == [action]


def test_what_is_to_be_sent_again_can_be_cancelled_before_it_is(run: Path) -> None:
    """Though the run that is over has cancelled it: the later command counts."""
    made = write_manifest(run.parents[2] / "n.jsonl", {"id": "a", "task": "t", "idempotent": True})
    path = make_run(made, 2, ["cancelled"])
    assert "is cancelled already" in refusal("ctl", "last", "cancel", "a")
    assert as_json("ctl", "last", "requeue", "a")["applied"]
    with Ledger.open(path) as ledger:
        assert asked_of(ledger)[1].keys() == {"a"}
    assert as_json("ctl", "last", "cancel", "a")["applied"]
    with Ledger.open(path) as ledger:
        assert asked_of(ledger) == (frozenset({"a"}), {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cancel", "crm.a"), "nothing to cancel: each has passed, or is cancelled already"),
        (("requeue", "crm.a"), "nothing to requeue: 'crm.a': it has passed"),
        (
            ("requeue", "crm.b"),
            "'crm.b': it may have run and is not idempotent (--unsafe sends it all the same)",
        ),
        (("set", "window=2", "--dry-run"), "no pytest follows it, so there is nothing to set"),
        (("pause", "--dry-run"), "no pytest follows it, so there is nothing to pause"),
        *(((do,), f"so there is nothing to {do}") for do in ("pause", "resume", "drain", "stop")),
    ],
)
def test_what_no_resume_could_do_is_refused_and_not_kept(
    run: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal("ctl", "last", *arguments)
    with Ledger.open(run) as ledger:
        assert not ledger.commands.open()


@pytest.mark.parametrize("action", ["pause", "resume", "drain", "stop"])
def test_a_dry_run_is_asked_of_the_run_itself(run: Path, action: str) -> None:
    with followed(run) as seen:
        assert as_json("ctl", "last", action, "--dry-run")["applied"]
    assert [(one.action, one.data) for one in seen] == [(action, {"dry_run": True})]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cancel", "--task=*"), "1 entry would be cancelled"),
        (("cancel", "crm.a"), "0 entries would be cancelled"),
        (
            ("requeue", "crm.a", "crm.b"),
            "'crm.b': it may have run and is not idempotent (--unsafe sends it all the same)",
        ),
        (("requeue", "crm.b", "--unsafe"), "of which 1 entry might run twice"),
        (("requeue", "mail.c"), "'mail.c': it has no verdict yet, as it is waiting"),
    ],
)
def test_a_dry_run_says_what_would_happen_and_asks_for_nothing(
    run: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in manifest("ctl", "last", *arguments, "--dry-run")
    with Ledger.open(run) as ledger:
        assert not ledger.commands.open()


def test_what_is_quarantined_is_not_said_to_run_twice(run: Path) -> None:
    """It has killed its workers: by that it is sent again only where one insists."""
    made = write_manifest(run.parents[2] / "n.jsonl", {"id": "a", "task": "t", "idempotent": True})
    make_run(made, 2, ["quarantined"])
    asked = ("ctl", "last", "requeue", "a", "--dry-run")
    assert f"left: 'a': {DEADLY} (--unsafe sends it all the same)" in manifest(*asked)
    assert manifest(*asked, "--unsafe").splitlines()[-1].endswith("1 entry would be sent again")


@pytest.mark.parametrize(
    ("how", "runs"),
    [(None, True), ("retry", False), ("canvas", True)],
    ids=["it runs", "its next try waits", "its parts run"],
)
def test_what_waits_for_its_next_try_is_not_said_to_run(
    run: Path, how: str | None, runs: bool
) -> None:
    with Ledger.open(run, write=True) as ledger:
        [row] = ledger.attempts.of_entries(["mail.c"])
        stamped = stamp(row.task_id)
        ledger.events.add([Started(**stamped, execution="x1", pid=11)])
        if how is not None:
            ledger.events.add([HandedOn(**stamped, execution="x1", how=how)])
    said = manifest("ctl", "last", "cancel", "mail.c", "--dry-run")
    assert ("'mail.c' runs at this moment" in said) is runs
    place = "running" if runs else "waiting"
    assert f"no verdict yet, as it is {place}" in manifest(
        "ctl", "last", "requeue", "mail.c", "--dry-run"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "window"), "window: write it like window=200"),
        (("set", "window=1", "window=2"), "window is given twice"),
        (("cancel",), "name entries, or choose them by one option"),
        (("cancel", "crm.a", "--task=*"), "name entries, or choose them by one option"),
        (("cancel", "nobody"), "there is no entry 'nobody' in it"),
        (("cancel", "--task=x.*"), "no entry of run"),
        (("requeue", "--cause=9"), "--cause=9: there is no such cause"),
        (("stop", "--leave", "--take-back"), "exclude one another"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    run: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal("ctl", "last", *arguments)


def test_a_run_that_answers_nothing_in_time_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctl, "WAIT", 0.05)
    lock = RunLock(RunFiles(run).lock)
    lock.acquire("r")
    try:
        said = manifest("ctl", "last", "pause", status=1)
    finally:
        lock.release()
    assert "not answered yet" in said


def test_its_help_needs_no_run() -> None:
    assert "Send nothing new" in manifest("ctl", "any", "pause", "--help")


def test_a_second_operator_sees_what_is_kept(run: Path) -> None:
    manifest("ctl", "last", "cancel", "mail.c", "--reason=not today")
    with RunReader(run) as reader:
        (action,) = reader.look().actions
    assert (action.action, action.waits, action.reason) == ("cancel", True, "not today")
    assert action.data == {"entries": 1}
    assert "not carried out yet: not today" in manifest("status", "last")
