"""What the live page shows of a run: its figures, its entries by query, and commands for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.listing import Wanted
from pytest_manifest.manifest import read_manifest
from pytest_manifest.reporting.live_page import commands as shown
from pytest_manifest.reporting.live_page.content import RunContent
from pytest_manifest.schema.run_status import MOST_BYTES
from tests.player import Player, Script, made_ledger, obeying, playing
from tests.support import eventually

SECRET = "hunter2hunter2"
TEXT = f"password={SECRET} <img src=x onerror=alert(1)>"
"""What errors and logs of the run say."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a run of 260 entries, of which a worker has died."""
    folder = tmp_path_factory.mktemp("source")
    return made_ledger(folder, Script(entries=260, seconds=600, bad=0.4, text=TEXT))


@pytest.fixture
def player(source: Path, tmp_path: Path) -> Iterator[Player]:
    """A run in the middle."""
    with playing(source, tmp_path / "live" / source.name, begun=400) as made:
        yield made


@pytest.fixture
def content(player: Player, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunContent]:
    monkeypatch.chdir(player.path.parent)
    with closing(RunContent(StoredRun.open, control=True, path=player.path)) as made:
        yield made


def figures(content: RunContent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content.snapshot()[0])
    return found


def listed(content: RunContent, **query: str) -> dict[str, Any]:
    found = content.entries(query)
    assert isinstance(found, dict)
    return found


def test_its_numbers_are_those_of_the_ledger(content: RunContent, player: Player) -> None:
    """In the middle and at the end: what ``manifest show`` counts, and each entry once."""
    for upto in (400, 500, 1000):
        player.advance(upto)
        found = figures(content)
        with Ledger.open(player.path) as ledger:
            counts = dict(ledger.verdicts.counts())
            assert found["counts"] == counts
            assert found["done"] == sum(counts.values())
            parts = {one: ledger.listing.count(Wanted(one)) for one in ("running", "waiting")}
            assert {one: found[one] for one in parts} == parts
            assert ledger.listing.count(Wanted("not sent")) == found["unsent"]
        assert found["done"] + found["running"] + found["waiting"] + found["unsent"] == 260


def test_a_snapshot_is_small_and_shows_no_secret(content: RunContent) -> None:
    """At most 16 kB beside what the page adds; ASCII, so that no byte of it is obeyed."""
    text, is_over = content.snapshot()
    assert len(text.encode()) <= MOST_BYTES + 400
    assert text.isascii()
    assert not is_over
    found = json.loads(text)
    assert found["causes"]
    name = found["causes"][0]["example"]
    for one in (
        text,
        json.dumps(listed(content, state="bad")),
        json.dumps(content.entry({"id": name})),
    ):
        assert "***" in one
        assert SECRET not in one


@pytest.mark.parametrize("state", ["", "bad", "passed", "failed", "running", "waiting", "not sent"])
def test_entries_are_listed_by_state(content: RunContent, player: Player, state: str) -> None:
    """In the manifest's order, 200 at a time, with where each is."""
    first = listed(content, state=state)
    rest = listed(content, state=state, after="200")
    rows = first["rows"] + rest["rows"]
    assert len(first["rows"]) == min(200, first["total"])
    assert len(rows) == first["total"] == rest["total"]
    with Ledger.open(player.path) as ledger:
        statuses = ledger.verdicts.statuses()
    manifest = read_manifest(StoredRun.open(player.path).manifest.path)
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids, key=manifest.position_of)
    for row in rows:
        assert row["task"] == manifest[row["id"]].task
        assert row["state"] == statuses.get(row["id"], row["state"])
    if state in ("passed", "failed"):
        assert set(ids) == {name for name, one in statuses.items() if one == state}
    if state == "":
        assert set(ids) == set(manifest.ids)


def test_entries_are_listed_by_task_worker_and_id(content: RunContent) -> None:
    """Each query narrows what the others leave."""
    for worker in ("render-1@host", "render-4@host"):
        rows = listed(content, worker=worker)["rows"]
        assert rows
        assert {row["worker"].partition("#")[0] for row in rows} == {worker}
        few = listed(content, worker=worker, task="billing.charge", text="CHARGE-000")["rows"]
        wanted = [row["id"] for row in rows if row["id"].startswith("charge-000")]
        assert [row["id"] for row in few] == wanted
    assert listed(content, task="no.such.task") == {"rows": [], "total": 0}


def test_entries_are_listed_by_cause(content: RunContent) -> None:
    """By the number that the figures give it; with the others these are all that did not pass."""
    causes = figures(content)["causes"]
    found = {one["number"]: listed(content, cause=str(one["number"])) for one in causes}
    assert {number: one["total"] for number, one in found.items()} == {
        one["number"]: one["count"] for one in causes
    }
    assert len(causes) > 1
    names = sorted(row["id"] for one in found.values() for row in one["rows"])
    assert names == sorted(row["id"] for row in listed(content, state="bad")["rows"])
    assert listed(content, cause="99")["total"] == 0


@pytest.mark.parametrize(
    "query", [{"state": "') OR 1=1 --"}, {"cause": "1 OR 1"}, {"cause": "9" * 20}], ids=str
)
def test_a_strange_query_is_refused(content: RunContent, query: Mapping[str, str]) -> None:
    content.snapshot()
    with pytest.raises(PlanError, match=r"there is no (state|cause)"):
        content.entries(query)


def test_a_text_is_no_pattern_and_no_sql(content: RunContent) -> None:
    for text in ("%", "_", "' OR ''='", "\x00"):
        assert listed(content, text=text)["total"] == 0
    assert listed(content, after="-1")["rows"] == listed(content, after="x")["rows"]


def test_an_entry_is_shown_as_on_the_run_page(content: RunContent) -> None:
    """Verdict, arguments, error, log; also of one that is on its way."""
    name = listed(content, state="failed")["rows"][0]["id"]
    found = content.entry({"id": name})
    assert isinstance(found, dict)
    assert (found["state"], found["outcome"]) == ("failed", "failed")
    assert {"error", "log", "args", "expected", "actual", "attempts", "facts"} <= found.keys()
    for state in ("running", "waiting", "not sent"):
        name = listed(content, state=state)["rows"][0]["id"]
        found = content.entry({"id": name})
        assert isinstance(found, dict)
        assert (found["state"], found["outcome"]) == (state, None)
    with pytest.raises(PlanError, match="the run has no entry 'nothing'"):
        content.entry({"id": "nothing"})


def test_the_page_becomes_the_run_page_when_it_is_over(content: RunContent, player: Player) -> None:
    """Also without a reader of the stream; its policy is its own, and it may not be framed."""
    assert b"<h2>What goes wrong</h2>" in content.page()[0]
    player.end()
    assert figures(content)["is_over"]
    page, policy = content.page()
    assert b'<script type="application/json" id="data">' in page
    assert SECRET.encode() not in page
    assert policy == "frame-ancestors 'none'"


def test_a_run_whose_pytest_is_gone_is_still_shown(content: RunContent, player: Player) -> None:
    player.let_go()
    found = figures(content)
    assert (found["state"], found["is_over"]) == ("left", False)
    assert b"<h2>What goes wrong</h2>" in content.page()[0]


def test_before_there_is_a_run_that_is_said(player: Player) -> None:
    """pytest collects tests first; then it names the ledger."""
    with closing(RunContent(StoredRun.open)) as content:
        assert "pytest has sent nothing yet" in figures(content)["problem"]
        with pytest.raises(PlanError, match="pytest has sent nothing yet"):
            content.entries({})
        content.path = player.path
        assert figures(content)["total"] == 260


# Commands


def commands(path: Path) -> list[tuple[str, str, Mapping[str, object]]]:
    with Ledger.open(path) as ledger:
        return [(one.action, one.reason, one.data) for one in ledger.commands.open()]


@pytest.mark.parametrize(
    ("action", "given", "data"),
    [
        ("pause", {"more": 1}, {}),
        ("resume", {}, {}),
        (
            "set",
            {"limits": {"window": "200", "max-failed": "2%"}},
            {"window": "200", "max-failed": "2%"},
        ),
        ("stop", {"how": "take-back"}, {"how": "take-back"}),
        ("stop", {}, {}),
        ("cancel", {"entries": ["a"], "running": True}, {"entries": ["a"], "running": True}),
        ("requeue", {"entries": ["a"], "unsafe": True, "x": 1}, {"entries": ["a"], "unsafe": True}),
    ],
)
def test_a_command_is_written_into_the_ledger(
    content: RunContent,
    player: Player,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    given: dict[str, object],
    data: dict[str, object],
) -> None:
    """With its reason, and no more than it may have; its answer is shown."""
    monkeypatch.setattr(shown, "ANSWER_SECONDS", 0.0)
    asked: Any = {"action": action, "data": given, "reason": "why"}
    assert "no pytest has answered" in str(content.act(asked))
    assert commands(player.path) == [(action, "why", data)]
    monkeypatch.undo()
    monkeypatch.chdir(player.path.parent)
    with obeying(player.path):
        assert content.act(asked) == {"text": f"did {action}"}


def test_an_answer_shows_no_secret(content: RunContent) -> None:
    """Whatever the run says."""
    found = content.act({"action": "requeue", "data": {"cause": f"password={SECRET}"}})
    assert found == {"text": "there is no cause 'password=***'"}


def test_entries_of_a_cause_are_sent_again(
    content: RunContent, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "ANSWER_SECONDS", 0.0)
    cause = figures(content)["causes"][0]
    content.act({"action": "requeue", "data": {"cause": cause["number"]}, "reason": ""})
    ((_, _, data),) = commands(player.path)
    assert data == {
        "entries": [row["id"] for row in listed(content, cause=str(cause["number"]))["rows"]]
    }


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"action": "drop", "data": {}}, "there is no such command"),
        ({"action": "pause"}, "there is no such command"),
        ({"action": "set", "data": {}}, "fill in what is to be set"),
        ({"action": "cancel", "data": {}}, "there is no entry that this is about"),
        ({"action": "requeue", "data": {"cause": "77"}}, "there is no entry that this is about"),
    ],
)
def test_what_is_no_command_is_refused(
    content: RunContent, player: Player, asked: dict[str, Any], why: str
) -> None:
    content.snapshot()
    assert content.act(asked) == {"text": why}
    assert commands(player.path) == []


def test_where_pytest_is_gone_only_what_is_kept_is_taken(
    content: RunContent, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody would obey is refused; what the next session does is kept for it, and said: at
    once, as there is nobody to wait for."""
    monkeypatch.setattr(shown, "ANSWER_SECONDS", float("inf"))
    player.let_go()
    content.snapshot()
    ask = partial(content.act)
    assert ask({"action": "pause", "data": {}}) == {"text": "nobody would obey: the run is left"}
    said = ask({"action": "cancel", "data": {"entries": ["a"]}})
    assert said == {
        "text": "no pytest has answered; it is kept for the session that resumes the run"
    }
    assert [one for one, _, _ in commands(player.path)] == ["cancel"]


def test_a_replay_ends_as_the_run_that_it_is_of(source: Path, tmp_path: Path) -> None:
    """The player is no judge: at a thousand times the speed all is there, and in its order."""
    with playing(source, tmp_path / "copy.sqlite", speed=1000) as player:
        thread_done = eventually(player.advance, what="all is played")
        assert thread_done
        player.end()
        with Ledger.open(source) as before, Ledger.open(player.path) as after:
            assert before.verdicts.counts() == after.verdicts.counts()
            assert before.attempts.send_states() == after.attempts.send_states()
            assert before.facts.last_seq() == after.facts.last_seq()
            assert after.info.status == "finished"
