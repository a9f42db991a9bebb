"""``manifest why``: the verdict, the rule, whether it is safe to send again, and what to run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.run_info import SHARD
from pytest_manifest.manifest import Shard, read_manifest
from pytest_manifest.plugin.options import ROWS
from pytest_manifest.processes import locked
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.resume import preview
from pytest_manifest.schema.run_facts import Segment
from pytest_manifest.schema.statuses import REQUEUE
from tests.house.conftest import ROOT
from tests.reports import add_starts
from tests.unit.cli_support import as_json, make_run, manifest, refusal, write_manifest
from tests.unit.ledger_support import start, verdict


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is over: one entry has passed, two have failed, of which one is idempotent."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(
        Path("m.jsonl"),
        {"id": "good", "task": "t"},
        {"id": "bad", "task": "t", "kwargs": {"password": "hunter-2-hunter"}},
        {"id": "again", "task": "t", "idempotent": True},
        {"id": "open", "task": "t"},
    )
    return make_run(file, 1, ["passed", "failed", "failed", None])


def test_a_verdict_is_explained(run: Path) -> None:
    """With its rule, the facts, and that nothing is to be done."""
    found = as_json("why", "good")
    assert found["run"] == run.stem
    assert (found["verdict"], found["outcome"], found["task"]) == ("passed", "passed", "t")
    assert (found["next"], found["insist"], found["attempts"]) == (None, None, 1)
    rule, facts = found["rule"], found["facts"]
    assert isinstance(rule, dict)
    assert isinstance(facts, list)
    kinds = {one["seq"]: one["what"] for one in facts if isinstance(one, dict)}
    fact = rule["fact"]
    assert isinstance(fact, int)
    assert kinds[fact] == "ended"
    shorter = as_json("why", "good", "--limit=1")
    assert (shorter["facts"], shorter["left_out"]) == (facts[-1:], len(facts) - 1)


def test_what_may_be_sent_again_is_said(run: Path) -> None:
    """What may have run and is not idempotent is not, and the command that insists is another."""
    assert as_json("why", "again")["again"] == {
        "safe": True,
        "reason": "running it twice does no harm",
        "idempotent": True,
        "might_run_twice": False,
    }
    assert as_json("why", "again")["next"] == "pytest --manifest=m.jsonl 'm.jsonl::entry[again]'"
    bad = as_json("why", "bad")
    assert bad["again"] == {
        "safe": False,
        "reason": "it may have run and is not idempotent",
        "idempotent": False,
        "might_run_twice": True,
    }
    assert bad["next"] == f"manifest show bad --facts --run={run.stem}"
    assert bad["insist"] == "pytest --manifest=m.jsonl 'm.jsonl::entry[bad]'"
    text = manifest("why", "bad")
    assert "safe to send again: no, it may have run and is not idempotent" in text
    assert "hunter-2" not in text + manifest("why", "bad", "--json")


def test_what_killed_its_worker_too_often_is_not_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is idempotent: a requeue leaves it, too, unless one insists."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "deadly", "task": "t", "idempotent": True})
    run = make_run(file, 1, ["quarantined"])
    with Ledger.open(run, write=True) as ledger:
        ledger.info.set_status("running")
    found = as_json("why", "deadly")
    assert found["again"] == {
        "safe": False,
        "reason": "it killed its worker too often",
        "idempotent": True,
        "might_run_twice": True,
    }
    assert found["insist"] == "pytest --manifest=m.jsonl --manifest-resume=unsafe"
    refused = refusal("ctl", run.stem, "requeue", "deadly")
    assert "it killed its worker too often" in refused
    assert "--unsafe" in refused


def test_the_command_is_for_whoever_has_the_run(run: Path) -> None:
    """A run that goes on is asked by ctl, one that was left is gone on with."""
    with Ledger.open(run, write=True) as ledger:
        ledger.info.set_status("running")
    assert as_json("why", "again")["next"] == "pytest --manifest=m.jsonl --manifest-resume"
    assert as_json("why", "bad")["insist"] == "pytest --manifest=m.jsonl --manifest-resume=unsafe"
    assert as_json("why", "open")["next"] == "pytest --manifest=m.jsonl --manifest-resume"
    with locked(run.with_suffix(".lock")):
        assert as_json("why", "again")["next"] == f"manifest ctl {run.stem} requeue again"
        assert as_json("why", "bad")["insist"] == f"manifest ctl {run.stem} requeue bad --unsafe"
        assert as_json("why", "open")["next"] == f"manifest status {run.stem}"


def test_a_command_calls_pytest_as_the_run_was_called(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With settings and stack of its last session; files and run are found from here."""
    stack = ["--manifest-app=b:app", "--manifest-broker=redis://h/1"]
    own = ["-c", str(tmp_path / "own.ini"), "--rootdir", str(tmp_path), *stack]
    with Ledger.open(run, write=True) as ledger:
        for given in (["-c", "/gone.ini"], own):
            stretch = Segment(**stamp(), kills=3, lifetime=60.0, arguments=given)
            ledger.facts.append([(None, stretch)])
    (tmp_path / "below").mkdir()
    monkeypatch.chdir("below")
    runs = "--in=../.manifest/runs"
    called = " ".join(["-c ../own.ini --rootdir ..", *stack])
    found = as_json("why", "bad", runs)
    assert found["insist"] == f"pytest --manifest=../m.jsonl '../m.jsonl::entry[bad]' {called}"
    assert found["next"] == f"manifest show bad --facts --run={run.stem} {runs}"
    assert f"recorded: manifest show bad --facts --run={run.stem} {runs}" in manifest(
        "why", "bad", runs
    )
    with Ledger.open(tmp_path / run, write=True) as ledger:
        ledger.info.set_status("running")
        ledger.info.set_meta(SHARD, Shard(1, 2).note)
    resume = f"pytest --manifest=../m.jsonl --manifest-shard=1/2 --manifest-resume {called}"
    assert as_json("why", "again", runs)["next"] == resume


def test_what_nobody_knows_the_end_of_is_said_as_a_resume_decides(run: Path) -> None:
    """A resume looks for it; where it may have run, only --manifest-resume=unsafe sends it."""
    whole = read_manifest(Path("m.jsonl"))
    with Ledger.open(run, write=True) as ledger:
        ledger.verdicts.record([(verdict("open", "unknown"), None)])
        (job,) = [row.task_id for row in ledger.attempts.newest() if row.entry == "open"]
    (sent,) = preview(run, whole, ["open"], stack_is_gone=True)
    assert (sent.action, sent.unsafe) == ("send", False)
    found = as_json("why", "open")
    assert found["next"] == "pytest --manifest=m.jsonl --manifest-resume"
    assert found["insist"] is None
    with Ledger.open(run, write=True) as ledger:
        add_starts(ledger, [start(job, "x")])
    (left,) = preview(run, whole, ["open"], stack_is_gone=True)
    assert (left.action, left.unsafe) == ("leave", True)
    found = as_json("why", "open")
    assert found["again"] == as_json("why", "bad")["again"]
    assert found["next"] == f"manifest show open --facts --run={run.stem}"
    assert found["insist"] == "pytest --manifest=m.jsonl --manifest-resume=unsafe"
    made = as_json("new", "--from-run=last", "--failed", "-o", "again.jsonl")
    assert made["might_run_twice"] == ["bad", "open"]
    for more in ((), ("--unsafe",)):
        said = as_json("ctl", run.stem, "requeue", "bad", "open", "--dry-run", *more)
        assert isinstance(said["data"], dict)
        assert "open" in str(said["data"]["left"])
    with locked(run.with_suffix(".lock")):
        assert as_json("why", "open")["insist"] is None  # refused there, too


def test_an_entry_that_waits_in_vain_names_the_one_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_manifest(
        Path("m.jsonl"),
        {"id": "boom", "task": "t"},
        {"id": "waits", "task": "t", "after": ["boom"]},
    )
    path = make_run(file, 1, ["failed", None])
    with Ledger.open(path, write=True) as ledger:
        ledger.attempts.mark([row.task_id for row in ledger.attempts.newest()][1:], "withheld")
        ledger.verdicts.record([(verdict("waits", "skipped"), None)])
        ledger.info.set_status("stopped")
    found = as_json("why", "waits")
    assert found["again"] == {
        "safe": False,
        "reason": "it waits for 'boom', which has not passed",
        "idempotent": False,
        "might_run_twice": False,
    }
    assert (found["next"], found["insist"]) == (f"manifest why boom --run={path.stem}", None)


def test_what_was_cancelled_is_asked_for_by_a_requeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the command, the sentence and ``manifest ctl RUN requeue`` say alike; no resume and no
    new run is named. ``gone``: no receipt of it came, so whoever sends it looks for it before."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(
        Path("m.jsonl"),
        {"id": "risky", "task": "t"},
        {"id": "safe", "task": "t", "idempotent": True},
        {"id": "gone", "task": "t", "idempotent": True},
    )
    path = make_run(file, 1, ["cancelled", "cancelled", None])
    with Ledger.open(path, write=True) as ledger:
        told = f"where it is wanted after all, have it sent by {REQUEUE}"
        one = verdict("risky", "cancelled").model_copy(update={"sentence": told})
        ledger.verdicts.record([(one, None), (verdict("gone", "cancelled"), None)])
    for name in ("risky", "safe", "gone"):
        found, again = as_json("why", name), as_json("why", name)["again"]
        asked = as_json("ctl", path.stem, "requeue", name, "--dry-run")["data"]
        assert isinstance(again, dict)
        assert isinstance(asked, dict)
        assert asked["left"] == ({} if again["safe"] else {name: again["reason"]})
        command = f"manifest ctl {path.stem} requeue {name}"
        insist = None if again["safe"] else f"{command} --unsafe"
        assert found["insist"] == insist
        assert again["safe"] == (name != "risky")
        assert found["next"] == (
            command if again["safe"] else f"manifest show {name} --facts --run={path.stem}"
        )
    assert f"have it sent by manifest ctl {path.stem} requeue risky --unsafe" in str(
        as_json("why", "risky")["sentence"]
    )


def test_an_entry_that_is_not_there_is_named(run: Path) -> None:
    assert "there is no entry 'none' in it" in refusal("why", "none")


def test_what_agents_are_told_to_run_is_there() -> None:
    """Each command and option in the text that is to be copied into AGENTS.md."""
    page = (ROOT / "docs/how-to/scripts-and-agents.md").read_text("utf-8")
    text = page.partition("```markdown")[2].partition("```")[0]
    told = re.findall(r"`((?:manifest|pytest) [^`]+)`", text)
    assert len(told) >= 8
    flags = {row.flag for row in ROWS.values()} | {"--collect-only"}
    for command in told:
        options = set(re.findall(r"--[a-z-]+", command))
        if command.startswith("pytest"):
            assert options <= flags, command
        else:
            known = manifest(command.split()[1], "--help")
            assert [one for one in options if one not in known] == [], command
