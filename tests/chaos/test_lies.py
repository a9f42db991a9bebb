"""A table of lies: each turns exactly the right entries red, and the sentence names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import message_faults, report
from tests.chaos import receipt_faults as receipts
from tests.chaos.executions import read_lines
from tests.chaos.record import Told
from tests.chaos.scenario import Round, Scenario, play, staged
from tests.chaos.stacks import Setup
from tests.chaos.stage import Stage
from tests.chaos.workload import EXTRA, PASSED, Allowed, Group, kinds, plain, safe

pytestmark = [pytest.mark.chaos, pytest.mark.live, pytest.mark.timeout(900)]

ANOTHER = "20200101T000000-0badcafe"
FORGED = kinds("forged")
UNTOLD = kinds("lost", "unknown")


@dataclass(frozen=True)
class Lie:
    """What some receipts say, in the fields that ``change`` gives, and a phrase that names it.

    Without one it is no report of the job: what the result store has of that counts.
    """

    name: str
    change: Callable[[receipts.Receipt], dict[str, object]]
    phrase: str = ""


LIES = (
    Lie("the result was changed", lambda r: {"result": {"key": "stolen"}}, "digest"),
    Lie("its digest was changed", lambda r: {"result_sha256": "0" * 64}, "digest"),
    Lie("it is of another run", lambda r: {"run": ANOTHER}),
    Lie("it is of another attempt", lambda r: {"attempt": 7}),
    Lie("it is of another task", lambda r: {"task": "chaos.huge"}, "of another task"),
    Lie("it ran other arguments", lambda r: {"args_sha256": "0" * 64}, "other arguments"),
    Lie(
        "it is older than the message",
        lambda r: {
            "started_at": "2020-01-01T00:00:00.000000+00:00",
            "finished_at": "2020-01-01T00:00:01.000000+00:00",
        },
        "before it was sent",
    ),
    Lie(
        "it is of an earlier message",
        lambda r: {"sent_at": "2020-01-01T00:00:00.000000+00:00"},
        "of a message sent at",
    ),
)


def red(played: Round) -> dict[str, Told]:
    """The entries that did not pass, and why."""
    return {name: told for name, told in played.verdicts.items() if told.kind != "passed"}


def assert_named(played: Round, phrase: str) -> None:
    """The phrase is in the sentence of each red entry, on the terminal, and in the JUnit file."""
    for name, told in red(played).items():
        assert phrase in told.sentence, name
        assert phrase in played.stage.session.output(), name
    assert phrase in played.stage.session.junit.read_text("utf-8")


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lying_receipt(lie: Lie, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The entries whose receipts lie are forged, and no others."""
    aimed = FORGED if lie.phrase else PASSED
    groups = (plain(12, aimed=aimed), safe(6, aimed=aimed))
    fault = receipts.edit_receipts(receipts.saying(lie.change), 2)
    played = play(Scenario(f"lie: {lie.name}", groups, fault), 1, tmp_path / "project")
    report.check(played, request.node)
    assert set(red(played)) == (played.stage.aimed if lie.phrase else set())
    if lie.phrase:
        assert_named(played, lie.phrase)


def test_workers_on_other_code(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What an older edition of a module ran fails; what is the same on both sides passes."""
    extra = Group("extra", 4, Allowed(done=kinds("failed")), task="chaos.extra")
    scenario = Scenario(
        "lie: workers on other code",
        (plain(8), extra),
        setup=Setup("valkey", workers=1, cwd="deployed"),
    )
    deployed = tmp_path / "project" / "deployed"
    deployed.mkdir(parents=True)
    played = play(scenario, 1, tmp_path / "project", prepare=lambda stage: deploy(stage, deployed))
    report.check(played, request.node)
    assert set(red(played)) == {f"extra-{n}" for n in range(4)}
    assert_named(played, "other code")


def deploy(stage: Stage, folder: Path) -> None:
    """Give the workers the same app, and another edition of one module."""
    for name in ("chaosapp.py", "chaostrees.py", "app.json"):
        (folder / name).write_text((stage.folder / name).read_text("utf-8"), encoding="utf-8")
    other = EXTRA.replace("return run(self, key, sec)", "return {**run(self, key, sec)}")
    (folder / "chaosextra.py").write_text(other, encoding="utf-8")


def test_a_broker_that_was_flushed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What it held is gone and not called passed; what was read before stays as it is."""
    groups = (plain(18, never=UNTOLD, done=kinds("passed", "unknown")),)
    fault = message_faults.flush
    scenario = Scenario("lie: broker flushed", groups, fault, Setup(workers=1))
    played = play(scenario, 1, tmp_path / "project")
    report.check(played, request.node)
    ran = {line.key for line in read_lines(played.stage.folder)}
    assert set(red(played)) >= set(played.stage.members) - ran
    assert_named(played, "emptied")


# What nothing may be sent for


PATIENCE = 300  # s; a session takes a few on a quiet machine
QUIET = Scenario("nothing is sent", (plain(6),))


def seal(stage: Stage) -> Path:
    """Give the manifest a header with count and digest, as a planner writes it."""
    path = stage.folder / "m.jsonl"
    body = path.read_bytes()
    header = {"manifest": 1, "entries": len(stage.members)}
    header |= {"sha256": hashlib.sha256(body).hexdigest()}  # type: ignore[dict-item]  # JSON
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    return path


def test_a_manifest_edited_after_planning(tmp_path: Path) -> None:
    """It is refused before anything starts, with the digest as the reason."""
    with staged(QUIET, 1, tmp_path / "project") as stage:
        path = seal(stage)
        path.write_text(path.read_text("utf-8").replace("plain-3", "plain-x", 1), encoding="utf-8")
        session = stage.launch(())
        assert session.wait(PATIENCE)
    assert session.process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "sha256" in session.output()
    assert "changed" in session.output()
    assert stage.starts() == []
    assert stage.ledgers() == []
    assert stage.leftovers == []


def test_a_manifest_edited_after_its_run(tmp_path: Path) -> None:
    """It is not resumed as if it were the same; nothing is sent."""
    with staged(QUIET, 1, tmp_path / "project") as stage:
        assert stage.launch(()).wait(PATIENCE)
        path = stage.folder / "m.jsonl"
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        entries[0]["expect"] = {"result": {"key": "something else"}}
        path.write_text("".join(json.dumps(one) + "\n" for one in entries), encoding="utf-8")
        session = stage.launch(("--manifest-resume",))
        assert session.wait(PATIENCE)
    assert session.process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "was changed since run" in session.output()
    assert "--manifest-reuse=" in session.output()
    assert len(stage.starts()) == 6
    assert stage.leftovers == []


@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_everything_deselected(tmp_path: Path, xdist: tuple[str, ...]) -> None:
    """That is no success: nothing is sent, and the session is not green."""
    with staged(QUIET, 1, tmp_path / "project") as stage:
        session = stage.launch(("-k", "nothing_of_the_kind", *xdist))
        assert session.wait(PATIENCE)
    assert session.process.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert stage.starts() == []
    assert stage.ledgers() == []
    assert stage.leftovers == []


def test_a_visibility_timeout_that_is_too_short(tmp_path: Path) -> None:
    """Jobs would run twice: it is refused before anything is sent, and says which entry and why."""
    waits = Group("waits", 2, fields={"countdown": 30})
    scenario = Scenario(
        "visibility timeout",
        (plain(4), waits),
        app={"broker_transport_options": {"visibility_timeout": 5}},
    )
    with staged(scenario, 1, tmp_path / "project") as stage:
        session = stage.launch(())
        assert session.wait(PATIENCE)
    assert session.process.returncode not in (0, 1)
    assert "raise visibility_timeout" in session.output()
    assert "'waits-" in session.output()
    assert stage.starts() == []
    assert stage.leftovers == []
