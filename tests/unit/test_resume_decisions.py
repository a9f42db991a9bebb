"""What is decided of each entry of a resumed run: by ledger, manifests, search and stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.fact_log import note_emptied
from pytest_manifest.run.resume import Known, decisions, preview
from pytest_manifest.run.resume_rules import Decision
from pytest_manifest.schema import Entry, Header, Receipt, VerdictStatus
from pytest_manifest.schema.statuses import OF_ITS_PROCESS
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.verdict.judging import Judging
from tests.reports import add_receipts, add_starts
from tests.unit.ledger_support import INFO, MOMENT, start, verdict

NAMES = ("a", "b", "c")
RISKY = "; it may have run and is not idempotent"
DOUBLE = "rejected, but its message is there twice"
GOES_ON = "its job has ended, and tasks that it started may still run"
UNKNOWN = "it may still be queued or running"


def entry(name: str, **fields: Any) -> Entry:
    return Entry.model_validate({"id": name, "task": "t", "idempotent": False, **fields})


def written(path: Path, *entries: Entry) -> Manifest:
    return write_manifest(path, Header(), entries)


def receipt(name: str, state: str = "succeeded", **fields: Any) -> Receipt:
    known = {
        "run": INFO.run,
        "entry": name,
        "attempt": 1,
        "task_id": f"t-{name}",
        "task": "t",
        "state": state,
        "executions": 1,
        "children": 0,
        "args_sha256": arguments_sha256([], {}),
        "result_sha256": json_sha256(None),
        **dict.fromkeys(("sent_at", "started_at", "finished_at"), MOMENT),
        "runtime": 0.0,
    }
    return Receipt.model_validate({**known, **fields})


def denial(name: str, state: str = "rejected") -> Receipt:
    """A worker's word that it has not begun the job."""
    bare = {"run": INFO.run, "entry": name, "attempt": 1, "task_id": f"t-{name}", "task": "t"}
    return Receipt.model_validate({**bare, "state": state})


class Resumed:
    """A run that was sent with three entries, and is to be resumed."""

    def __init__(self, folder: Path, *, is_private: bool = True) -> None:
        self.folder = folder
        self.manifest = written(folder / "m.jsonl", *map(entry, NAMES))
        self.path = folder / "run.sqlite"
        info = replace(INFO, sha256=self.manifest.sha256, is_private=is_private)
        with Ledger.create(self.path, info) as ledger:
            ledger.attempts.plan((f"t-{name}", name, 1, n) for n, name in enumerate(NAMES))
            ledger.attempts.mark([f"t-{name}" for name in NAMES], "sent", sent_at=MOMENT)
            ledger.info.set_status("stopped")
        self.ledger = Ledger.open(self.path, write=True)

    def judge(self, name: str, status: VerdictStatus, told: Receipt | None = None) -> None:
        if told is not None:
            if told.state in OF_ITS_PROCESS:
                self.begin(name)
            add_receipts(self.ledger, [(f"t-{name}", "x", told)])
        self.ledger.verdicts.record([(verdict(name, status), told)])

    def begin(self, name: str) -> None:
        add_starts(self.ledger, [start(f"t-{name}", "x")])

    def add_child(self, name: str) -> None:
        """A task that its job has started, of which nobody has told the end."""
        root = f"t-{name}"
        self.ledger.descendants.add([Descendant(f"{root}-1", root, root, "u", "call")])

    def keep(self, manifest: Manifest) -> None:
        """Keep a manifest as that of the run."""
        kept = RunFiles(self.path).manifest(self.manifest.sha256)
        shutil.copy(manifest.path, kept)

    def decide(
        self,
        selected: Sequence[str] = ("a",),
        unsafe: bool = False,
        *,
        manifest: Manifest | None = None,
        **known: Any,
    ) -> list[Decision]:
        last = {row.entry: row for row in self.ledger.attempts.newest()}
        made = Known(last, self.ledger.verdicts.statuses(), **known)
        entries = (manifest or self.manifest).some(selected)
        judged = Judging(self.ledger).each(entries)
        return [decision for _, decision in decisions(made, judged, unsafe=unsafe)]

    def preview(
        self,
        selected: Sequence[str] = ("a",),
        unsafe: bool = False,
        *,
        gone: bool = False,
        manifest: Manifest | None = None,
    ) -> list[Decision]:
        return preview(
            self.path, manifest or self.manifest, iter(selected), unsafe=unsafe, stack_is_gone=gone
        )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Resumed]:
    made = Resumed(tmp_path)
    yield made
    made.ledger.close()


def sends(reason: str = "lost", name: str = "a", *, unsafe: bool = False) -> Decision:
    return Decision(name, "send", reason, unsafe=unsafe)


def leaves(reason: str, name: str = "a") -> Decision:
    return Decision(name, "leave", reason, unsafe=True)


def waits(reason: str, name: str = "a") -> Decision:
    return Decision(name, "wait", reason)


# What is known


def test_each_entry_is_decided_in_the_given_order(run: Resumed) -> None:
    """By its own verdict and its own place."""
    run.judge("a", "passed", receipt("a"))
    run.judge("c", "revoked", denial("c", "revoked"))
    assert run.decide(["c", "b", "a"], locations={"t-b": "queued"}) == [
        sends("revoked", "c"),
        waits("still queued", "b"),
        Decision("a", "keep", "passed"),
    ]


def test_what_was_never_planned_was_never_sent(run: Resumed) -> None:
    """There is nothing of it to look at."""
    more = written(run.folder / "n.jsonl", *map(entry, NAMES), entry("d"))
    assert run.decide(["d"], manifest=more) == [sends("never sent", "d")]


def test_the_users_rules_hold(run: Resumed) -> None:
    """For each entry."""
    run.begin("a")
    assert run.decide() == [leaves(f"lost in flight{RISKY}")]
    assert run.decide(unsafe=True) == [sends("lost in flight", unsafe=True)]


def test_what_a_worker_has_begun_may_have_run(run: Resumed) -> None:
    """Of this attempt; that another job was begun says nothing of it."""
    run.begin("b")
    assert run.decide(["a", "b"]) == [sends(), leaves(f"lost in flight{RISKY}", "b")]


def test_without_all_reports_any_job_may_have_run(run: Resumed) -> None:
    """Where some may be lost."""
    assert run.decide() == [sends()]
    note_emptied(run.ledger)
    assert run.decide() == [leaves(f"lost in flight{RISKY}")]


def test_workers_of_others_report_starts_if_one_did(tmp_path: Path) -> None:
    """On a private stack they always do."""
    run = Resumed(tmp_path, is_private=False)
    assert run.decide() == [leaves(f"lost in flight{RISKY}")]
    run.begin("b")
    assert run.decide() == [sends()]
    run.ledger.close()


def test_all_that_arrived_of_an_attempt_says_whether_it_may_have_run(run: Resumed) -> None:
    """And not of another."""
    ended = receipt("b", "failed", error={"type": "E", "message": "no"})
    run.begin("b")
    add_receipts(run.ledger, [("t-a", None, denial("a")), ("t-b", "x", ended)])
    note_emptied(run.ledger)
    found = run.decide(["a", "b", "c"])
    assert found == [
        sends("rejected"),
        leaves("failed; it has run and is not idempotent", "b"),
        leaves(f"lost in flight{RISKY}", "c"),
    ]


def test_of_what_lies_nobody_knows_whether_it_has_run(run: Resumed) -> None:
    """Its writer need not have been the job's worker."""
    run.judge("b", "forged", receipt("b", args_sha256="0" * 64))
    assert run.decide(["b"]) == [leaves(f"forged{RISKY}", "b")]


def test_what_is_judged_otherwise_now_is_decided_by_that(run: Resumed) -> None:
    """That a ledger says so is no proof; what is not final leaves its verdict as it is."""
    run.judge("a", "passed", receipt("a", args_sha256="0" * 64))
    run.judge("b", "failed")
    assert run.decide(["a", "b"]) == [leaves(f"forged{RISKY}"), sends("failed", "b")]


def test_what_was_turned_away_and_is_there_all_the_same_is_left(run: Resumed) -> None:
    """It has another message."""
    run.judge("a", "rejected", denial("a"))
    there = {"t-a": "queued"}
    assert run.decide(locations=there) == [waits("still queued")]
    assert run.decide(locations=there, turned_away={"t-a"}) == [leaves(DOUBLE)]
    assert run.decide(locations=there, turned_away={"t-b"}) == [waits("still queued")]


def test_a_tree_that_goes_on_is_waited_for(run: Resumed) -> None:
    """Where its job has ended with a verdict; else the job itself is what is waited for."""
    there = {"t-a": "unknown"}
    held = frozenset({"t-a"})
    assert run.decide(locations=there, held=held) == [waits(UNKNOWN)]
    run.judge("a", "failed", denial("a"))
    assert run.decide(locations=there, held=held) == [
        Decision("a", "wait", GOES_ON, sends_later=True)
    ]
    assert run.decide(locations=there, held=frozenset({"t-b"})) == [waits(UNKNOWN)]


# What the ledger alone says


def test_without_a_look_what_was_sent_may_be_under_way(run: Resumed) -> None:
    """Unless its stack is gone; what was not sent is nowhere."""
    run.ledger.attempts.mark(["t-b"], "planned")
    run.ledger.attempts.mark(["t-c"], "withheld")
    never = [sends("never sent", "c"), sends("never sent", "b")]
    assert run.preview(["c", "a", "b"]) == [never[0], waits(UNKNOWN), never[1]]
    assert run.preview(["c", "a", "b"], gone=True) == [never[0], sends(), never[1]]


def test_without_a_look_a_run_that_goes_on_may_run_anything(run: Resumed) -> None:
    """Its reports are not all read."""
    run.ledger.info.set_status("running")
    assert run.preview(gone=True) == [leaves(f"lost in flight{RISKY}")]
    assert run.preview(unsafe=True, gone=True) == [sends("lost in flight", unsafe=True)]


def test_verdicts_that_are_none_are_looked_at_anew(run: Resumed) -> None:
    """Nobody knows what became of these."""
    run.judge("a", "pending")
    run.judge("b", "unknown")
    run.judge("c", "crashed")
    assert run.preview(NAMES) == [waits(UNKNOWN), waits(UNKNOWN, "b"), sends("crashed", "c")]
    gone = [sends(), sends(name="b"), sends("crashed", "c")]
    assert run.preview(NAMES, gone=True) == gone


def test_an_old_tree_may_go_on_where_its_stack_does(run: Resumed) -> None:
    """Of an entry that is selected."""
    run.judge("a", "timed_out", denial("a"))
    run.add_child("a")
    assert run.preview() == [Decision("a", "wait", GOES_ON, sends_later=True)]
    assert run.preview(gone=True) == [sends("timed_out")]
    ignoring = entry("a", expect={"descendants": "ignored"})
    careless = written(run.folder / "n.jsonl", ignoring, *map(entry, ("b", "c")))
    assert run.preview(manifest=careless) == [sends("rejected")]


def test_receipts_are_of_the_run_itself(run: Resumed) -> None:
    """One of another run is no end of the job, whatever was said before."""
    run.judge("a", "passed", receipt("a", run="20200101T000000-0badcafe"))
    assert run.preview() == [leaves(f"unknown{RISKY}")]
