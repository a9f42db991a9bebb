"""The ledger: what is written is what is read, and only whole transactions are seen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import AttemptRow, Ledger, RunSegment, find_runs, utc_now
from pytest_manifest.ledger.files import file_system, next_run_number, refuse_network
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import Started, TakenUp
from tests.ledger_edits import add_merged
from tests.reports import add_receipts, add_starts, all_receipts, starts_by_task
from tests.unit.ledger_support import INFO, MOMENT, receipt, start, verdict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / f"{INFO.run}.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.create(path, INFO) as made:
        with made.transaction():
            made.attempts.plan([("t-a", "a", 1, 0), ("t-b", "b", 1, 1)])
        yield made


def test_a_run_is_described_as_it_was_created(ledger: Ledger, path: Path) -> None:
    """What a run is about survives the file, None included."""
    with Ledger.open(path) as reader:
        assert reader.info.read() == INFO
        assert reader.info.status == "running"
    assert path.stat().st_mode & 0o777 == 0o600


def test_sending_states_and_times_are_kept(ledger: Ledger) -> None:
    """Intent, then what came of it; a time once given stays."""
    moment = utc_now()
    ledger.attempts.mark(["t-a", "t-b"], "intent", sent_at=moment)
    ledger.attempts.mark(["t-a"], "sent")
    ledger.attempts.mark(["t-b"], "uncertain", note="connection reset")
    rows = {row.entry: row for row in ledger.attempts.all()}
    assert (rows["a"].state, rows["a"].sent_at) == ("sent", moment)
    assert (rows["b"].state, rows["b"].note) == ("uncertain", "connection reset")
    assert ledger.attempts.send_states() == {"sent": 1, "uncertain": 1}


def test_settled_entries_come_in_the_order_in_which_they_settled(ledger: Ledger) -> None:
    """A reader that remembers its position sees each settlement once."""
    ledger.verdicts.record([(verdict("b"), receipt("b"))])
    (first,) = ledger.verdicts.since(0)
    assert first[1] == "b"
    ledger.verdicts.record([(verdict("a", "lost"), None)])
    assert [entry for _, entry, _ in ledger.verdicts.since(first[0])] == ["a"]
    found = ledger.verdicts.of_entry("b")
    assert found is not None
    assert (found.verdict, found.receipt) == (verdict("b"), receipt("b"))
    assert [s.verdict.entry for s in ledger.queries.all_verdicts()] == ["a", "b"]
    assert ledger.verdicts.counts() == {"passed": 1, "lost": 1}


def test_what_may_change_counts_as_unsettled(ledger: Ledger) -> None:
    """Pending and unknown are no last words."""
    ledger.verdicts.record([(verdict("a", "pending"), None), (verdict("b"), receipt("b"))])
    assert [row.entry for row in ledger.attempts.all(undecided=True)] == ["a"]
    assert ledger.attempts.has_undecided()
    ledger.verdicts.record([(verdict("a"), receipt("a"))])
    assert not ledger.attempts.has_undecided()
    assert ledger.verdicts.counts() == {"passed": 2}


def test_starts_are_counted_once_each(ledger: Ledger) -> None:
    """The same start record read twice is one execution; another execution is another."""
    first = start("t-a", "x1")
    second = replace(first, execution="x2", redelivered=True)
    add_starts(ledger, [first, first])
    add_starts(ledger, [second, start("t-b", "x1"), replace(first, worker="another")])
    assert starts_by_task(ledger) == {"t-a": [first, second], "t-b": [start("t-b", "x1")]}
    assert ledger.events.starts("t-c") == []


EARLY = MOMENT - timedelta(minutes=4)


@pytest.mark.parametrize(
    "last",
    [
        replace(start("t-a", "x1"), started_at=EARLY, hop=1),
        replace(start("t-a", "x1"), started_at=EARLY, retries=1),
        replace(start("t-a", "x1"), started_at=EARLY, redelivered=True),
        start("t-a", "x1"),
    ],
    ids=["handed on", "retried", "redelivered", "later"],
)
def test_what_a_message_counts_comes_before_the_clocks_of_workers(
    ledger: Ledger, last: Started
) -> None:
    """The clock of the worker that has begun it last may be behind, whatever its name is."""
    first = replace(start("t-a", "x9"), started_at=MOMENT - timedelta(seconds=1))
    add_starts(ledger, [first, last])
    assert starts_by_task(ledger) == {"t-a": [first, last]}
    assert ledger.queries.histories(["a"])["a"].starts == {"t-a": ledger.events.starts("t-a")}


def test_an_attempt_that_another_follows_is_judged_and_its_entry_stays_open(
    ledger: Ledger,
) -> None:
    """Each attempt has its reason and verdict; the newest alone is still unsettled."""
    ledger.attempts.mark(["t-a"], "sent", sent_at=MOMENT, note="n")
    ledger.verdicts.end_attempt("t-a", verdict("a", "crashed"))
    ledger.attempts.plan([("t-a2", "a", 2, 0, "crashed")])
    first = AttemptRow(
        "t-a", "a", 1, 0, "sent", MOMENT, "n", None, "crashed", verdict("a", "crashed")
    )
    second = AttemptRow("t-a2", "a", 2, 0, "planned", None, None, "crashed")
    assert ledger.verdicts.of_entry("a") is None
    assert ledger.attempts.of_entry("a") == [first, second]
    assert ledger.attempts.get("t-a2") == second
    assert ledger.attempts.get("t-z") is None
    assert [row.task_id for row in ledger.attempts.all(undecided=True)] == ["t-a2", "t-b"]
    assert [row.task_id for row in ledger.attempts.newest()] == ["t-a2", "t-b"]
    assert ledger.attempts.reasons() == {"crashed": 1}
    assert ledger.attempts.count_entries() == 2


def test_settling_an_entry_judges_the_attempt_that_it_is_about(ledger: Ledger) -> None:
    """The attempt of the verdict's number, and the newest where that has none."""
    ledger.attempts.plan([("t-a2", "a", 2, 0, "lost")])
    ledger.verdicts.record(
        [(verdict("a", attempt=2), receipt("a", 2)), (verdict("b", "lost", None), None)]
    )
    judged = {row.task_id: (row.status, row.verdict) for row in ledger.attempts.all()}
    assert judged == {
        "t-a": (None, None),
        "t-a2": ("passed", verdict("a", attempt=2)),
        "t-b": ("lost", verdict("b", "lost", None)),
    }
    assert ledger.verdicts.statuses() == {"a": "passed", "b": "lost"}


def test_many_entries_read_together_are_as_read_one_by_one(ledger: Ledger) -> None:
    """Whatever has been said of them, and in whatever order; what the run does not have is none."""
    ledger.attempts.plan([("t-c", "c'[\u00e9", 1, 2), ("t-d", "d", 1, 3)])
    ledger.attempts.mark(["t-a", "t-b"], "sent", sent_at=MOMENT)
    add_starts(ledger, [start("t-b", "x2"), start("t-a", "x1"), start("t-b", "x1")])
    for number in range(2):
        add_receipts(ledger, [("t-a", "x1", receipt("a", pid=number))])
    ledger.verdicts.record([(verdict("a", "failed"), receipt("a")), (verdict("b"), receipt("b"))])
    ledger.verdicts.end_attempt(
        "t-a", verdict("a", "crashed")
    )  # the entry's own verdict is another
    ledger.attempts.plan([("t-a2", "a", 2, 0, "crashed")])
    ledger.verdicts.record([(verdict("d", "skipped", None), None)])
    entries = ["d", "c'[\u00e9", "gone", "b", "a"]
    found = ledger.queries.histories(entries)
    assert sorted(found) == sorted(set(entries) - {"gone"})
    for entry, history in found.items():
        assert history.attempts == ledger.attempts.of_entry(entry)
        assert history.verdict == ledger.verdicts.of_entry(entry)
        for row in history.attempts:
            assert history.starts.get(row.task_id, []) == ledger.events.starts(row.task_id)
    assert [one.pid for one in found["a"].receipts.get("t-a", ())] == []  # it was judged
    assert ledger.queries.histories([]) == {}
    ledger.verdicts.reopen(["a"])
    assert [one.pid for one in ledger.queries.histories(["a"])["a"].receipts["t-a"]] == [0, 1]


def test_verdicts_are_taken_back(ledger: Ledger) -> None:
    """Of the entries named; the attempts keep theirs."""
    ledger.verdicts.record(
        [(verdict("a", "unknown"), None), (verdict("b", "failed"), receipt("b"))]
    )
    ledger.verdicts.reopen(["a"])
    assert ledger.verdicts.statuses() == {"b": "failed"}
    ledger.verdicts.record([(verdict("a", "unknown"), None)])
    ledger.verdicts.reopen(["b", "z"])
    assert ledger.verdicts.statuses() == {"a": "unknown"}
    assert [row.status for row in ledger.attempts.all()] == ["unknown", "failed"]
    ledger.verdicts.reopen([])
    assert ledger.verdicts.statuses() == {"a": "unknown"}


@pytest.mark.parametrize(
    ("why", "taken_up"), [("resume", ["t-a", "t-b"]), ("audit", ["t-a"]), ("keys", ["t-a"])]
)
def test_what_goes_on_is_taken_up_by_a_resume_alone(
    ledger: Ledger, why: Literal["resume", "audit", "keys"], taken_up: list[str]
) -> None:
    """An audit that looks at it again takes nothing back; what it waits for once more it does."""
    ledger.verdicts.record([(verdict("a", "timed_out"), None), (verdict("b", "pending"), None)])
    ledger.verdicts.reopen(["a", "b"], why=why)
    found = list(ledger.facts.of_kind(TakenUp))
    assert [one.why for one in found if isinstance(one, TakenUp)] == [why] * len(taken_up)
    assert [one.job for one in found] == taken_up


def test_an_attempt_that_is_sent_again_keeps_its_verdict_until_the_next(ledger: Ledger) -> None:
    """What was said last of an attempt counts, whichever way it was said."""

    def said() -> str | None:
        (row,) = ledger.attempts.of_entry("a")
        assert row.verdict is not None
        assert row.verdict.verdict == row.status
        return row.status

    ledger.verdicts.record([(verdict("a", "lost"), None)])
    ledger.verdicts.reopen(["a"])
    ledger.attempts.mark(["t-a"], "planned")
    assert said() == "lost"
    ledger.verdicts.record([(verdict("a", "failed"), receipt("a"))])
    assert said() == "failed"
    ledger.verdicts.end_attempt("t-a", verdict("a", "crashed"))
    assert said() == "crashed"
    assert ledger.verdicts.statuses() == {"a": "failed"}
    ledger.verdicts.reopen(["a"])
    assert said() == "crashed"


def test_an_earlier_attempt_keeps_its_verdict_when_the_entry_gets_another(ledger: Ledger) -> None:
    """Without the entry having been reopened in between, and where nothing was sent for it too."""
    ledger.attempts.plan([("t-a2", "a", 2, 0, "lost")])
    ledger.verdicts.record([(verdict("a", "lost"), None), (verdict("b", "failed"), None)])
    ledger.verdicts.record([(verdict("a", attempt=2), None), (verdict("b", "unknown", None), None)])
    judged = {row.task_id: row.verdict for row in ledger.attempts.all()}
    assert judged == {
        "t-a": verdict("a", "lost"),
        "t-a2": verdict("a", attempt=2),
        "t-b": verdict("b", "unknown", None),
    }


def test_verdicts_are_only_added(ledger: Ledger) -> None:
    """The last one of an entry counts; one without a status takes it up again."""
    said = "SELECT status FROM verdicts WHERE entry = 1 ORDER BY seq"
    for kind in ("unknown", "passed"):
        ledger.verdicts.record([(verdict("a", kind), receipt("a"))])
    assert ledger.verdicts.statuses() == {"a": "passed"}
    ledger.verdicts.reopen(entry for entry in "ab")
    assert ledger.verdicts.statuses() == {}
    ledger.verdicts.record([(verdict("a", "failed"), None)])
    found = ledger._db.connection.execute(said).fetchall()
    assert found == [("unknown",), ("passed",), (None,), ("failed",)]


def test_a_receipt_is_kept_once(ledger: Ledger) -> None:
    """A verdict points to it, and has beside it only what the starts of the job know."""
    received = receipt("a", executions=0)
    add_receipts(ledger, [("t-a", None, received)])
    counted = received.model_copy(update={"executions": 1})
    ledger.verdicts.record([(verdict("a"), counted)])
    query = 'SELECT added, (SELECT receipt FROM facts f WHERE f.seq = "end") FROM verdicts'
    added, kept = ledger._db.connection.execute(query).fetchone()
    assert (json.loads(added), Receipt.model_validate_json(kept)) == ({"executions": 1}, received)
    found = ledger.verdicts.of_entry("a")
    assert found is not None
    assert found.receipt == counted


@pytest.mark.parametrize("claim", [{"retries": 2}, {"replaced": True}], ids=str)
def test_a_claim_that_is_struck_contradicts_nothing(ledger: Ledger, claim: dict[str, int]) -> None:
    """A worker's receipt may claim a try that no start shows: the verdict is by what is left."""
    counted = receipt("a")
    add_receipts(ledger, [("t-a", None, counted.model_copy(update=claim))])
    ledger.verdicts.record([(verdict("a"), counted)])
    ledger.verdicts.refuse_contradictions()
    found = ledger.verdicts.of_entry("a")
    assert found is not None
    assert found.receipt == counted


def test_receipts_are_kept_as_they_arrive(ledger: Ledger) -> None:
    """Second ones too, of every attempt, in order."""
    late = receipt("a", result={"n": 1})
    add_receipts(ledger, [("t-b", None, receipt("b")), ("t-a", "x1", receipt("a"))])
    add_receipts(ledger, [("t-a", "x2", late)])
    assert ledger.events.receipts("t-a") == [("x1", receipt("a")), ("x2", late)]
    assert ledger.events.receipts("t-z") == []
    assert all_receipts(ledger) == [
        ("t-b", None, receipt("b")),
        ("t-a", "x1", receipt("a")),
        ("t-a", "x2", late),
    ]


def test_the_order_is_that_of_the_newest_attempts(ledger: Ledger) -> None:
    """After a change of the manifest the verdicts come in its present order."""
    ledger.attempts.plan([("t-a2", "a", 2, 9, "expectation changed")])
    ledger.verdicts.record([(verdict("a", attempt=2), None), (verdict("b"), None)])
    assert [s.verdict.entry for s in ledger.queries.all_verdicts()] == ["b", "a"]
    assert [row.task_id for row in ledger.attempts.newest()] == ["t-b", "t-a2"]


def test_the_parts_of_a_run_are_kept(ledger: Ledger) -> None:
    """When each began, and when one was stopped; an older ledger knows of none."""
    assert ledger.info.segments() == []
    ledger.info.begin_segment(MOMENT)
    ledger.info.stop_segment(MOMENT + timedelta(seconds=1))
    ledger.info.begin_segment(MOMENT + timedelta(hours=8))
    assert ledger.info.segments() == [
        RunSegment(MOMENT, MOMENT + timedelta(seconds=1)),
        RunSegment(MOMENT + timedelta(hours=8)),
    ]


def test_a_stop_is_kept_where_the_parts_beginning_is_not(ledger: Ledger) -> None:
    ledger.info.stop_segment(MOMENT)
    assert ledger.info.segments() == [RunSegment(INFO.created_at, MOMENT)]


def test_a_copy_is_exact_and_leaves_the_run_alone(
    ledger: Ledger, path: Path, tmp_path: Path
) -> None:
    """It holds what is committed; what is written into it stays in it."""
    ledger.verdicts.record([(verdict("a"), receipt("a"))])
    target = tmp_path / "scratch" / "copy.sqlite"
    with Ledger.open(path) as reader:
        reader.copy_to(target)
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(target)) as two:
        assert list(one.iterdump()) == list(two.iterdump())
    with Ledger.open(target, write=True) as copy:
        copy.verdicts.record([(verdict("b"), receipt("b"))])
    assert ledger.verdicts.of_entry("b") is None
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LedgerError, match="cannot be copied there"):
        ledger.copy_to(target)
    with Ledger.open(target) as copy:
        assert copy.verdicts.statuses() == {"a": "passed", "b": "passed"}


def test_a_failed_transaction_leaves_nothing(ledger: Ledger, path: Path) -> None:
    """Records of a transaction that raises are not seen by anyone."""

    def fail_in_the_middle() -> None:
        with ledger.transaction():
            ledger.verdicts.record([(verdict("a"), receipt("a"))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    with Ledger.open(path) as reader:
        assert reader.verdicts.since(0) == []


def test_a_method_that_writes_does_so_in_whole(ledger: Ledger) -> None:
    """Outside of a transaction too: where the second row cannot be written, the first is not."""
    rows = [("t-c", "c", 1, 2), ("t-a", "a", 1, 0)]
    with pytest.raises(LedgerError, match=r"cannot be written \(NOT NULL.*--manifest-resume"):
        ledger.attempts.plan(rows)
    assert ledger.attempts.get("t-c") is None


def test_what_follows_a_failed_record_is_not_written(ledger: Ledger) -> None:
    """Where SQLite took a transaction back, the rest of it is refused, not written alone."""

    def go_on_regardless() -> None:
        with ledger.transaction():
            ledger.info.set_meta("shard", "1/2")
            ledger._db.connection.execute("ROLLBACK")  # as SQLite does by itself on a full disk
            ledger.info.set_meta("accepted", "2")

    with pytest.raises(LedgerError, match="an earlier record of the transaction failed"):
        go_on_regardless()
    assert (ledger.info.get_meta("shard"), ledger.info.get_meta("accepted")) == (None, None)


def test_a_reader_cannot_write(ledger: Ledger, path: Path) -> None:
    """Opened for reading, the ledger refuses changes, in a sentence."""
    with (
        Ledger.open(path) as reader,
        pytest.raises(LedgerError, match=r"cannot be written \(.*readonly.*--manifest-resume"),
    ):
        reader.info.set_status("finished")


def test_what_is_no_ledger_is_refused(tmp_path: Path, ledger: Ledger, path: Path) -> None:
    """A missing file, another kind of file and another version each have a sentence."""
    with pytest.raises(LedgerError, match=r"missing\.sqlite: this is not a ledger"):
        Ledger.open(tmp_path / "missing.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("hello, this is no database\n" * 50)
    with pytest.raises(LedgerError, match="not a ledger that can be read"):
        Ledger.open(text)
    ledger.info.set_meta("ledger", "99")
    with pytest.raises(LedgerError, match="version 99, this program reads version 1"):
        Ledger.open(path)
    with pytest.raises(LedgerError, match="cannot be created"):
        Ledger.create(path, INFO)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost mount counts; SQLite's locks are not to be trusted across a network."""
    share = tmp_path / "my share"
    share.mkdir()
    mounts = tmp_path / "mounts"
    where = str(share.resolve()).replace(" ", "\\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/x {where} nfs4 rw 0 0\n")
    assert file_system(share / "runs", mounts) == "nfs4"
    assert file_system(tmp_path, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "absent") == ""
    monkeypatch.setattr("pytest_manifest.ledger.files.file_system", lambda _folder: "nfs4")
    with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*manifest_dir"):
        Ledger.create(share / "runs" / "r.sqlite", INFO)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        *((name, True) for name in ("nfs", "nfs4", "cifs", "smb3", "fuse.glusterfs", "fuse.sshfs")),
        *((name, True) for name in ("ceph", "fuse.ceph-fuse", "lustre", "9p", "autofs")),
        *((name, False) for name in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.ntfs", "")),
    ],
)
def test_every_network_file_system_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, refused: bool
) -> None:
    """By the kernel's names and by FUSE's; of the local ones none is taken for one."""
    monkeypatch.setattr("pytest_manifest.ledger.files.file_system", lambda _folder: kind)
    if refused:
        with pytest.raises(LedgerError, match=f"network file system \\({kind}\\)"):
            refuse_network(tmp_path)
    else:
        refuse_network(tmp_path)


def test_what_is_mounted_by_an_automounter_is_looked_at(tmp_path: Path) -> None:
    """The mount on top counts, and not the one that waits below it, whatever the place's name."""
    home = tmp_path / "a\tb c"
    home.mkdir()
    where = str(home.resolve()).replace("\t", "\\011").replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    lines = ["root / ext4 rw 0 0", f"auto {where} autofs rw 0 0", f"s:/h {where} nfs4 rw 0 0"]
    mounts.write_text("\n".join(lines))
    assert file_system(home, mounts) == "nfs4"
    mounts.write_text("\n".join(lines[:2]))
    assert file_system(home / "runs", mounts) == "autofs"


def test_the_order_of_runs_is_not_the_clocks(tmp_path: Path) -> None:
    """A clock that was set back makes no run an older one; those without a number came first."""
    moments = {"x": (0, 59), "a": (1, 50), "c": (2, 30), "b": (3, 10)}
    for name, (number, second) in moments.items():
        moment = INFO.created_at.replace(second=second)
        info = replace(INFO, run=name, created_at=moment, number=number)
        Ledger.create(tmp_path / f"{name}.sqlite", info).close()
    assert [path.stem for path in find_runs(tmp_path, sha256=INFO.sha256)] == [
        "x",
        "a",
        "c",
        "b",
    ]
    assert next_run_number(tmp_path) == 4
    (tmp_path / "damaged.lock").write_text("7")
    (tmp_path / "b.lock").write_text("")
    assert next_run_number(tmp_path) == 8


def test_runs_of_a_manifest_are_found_by_its_digest(tmp_path: Path) -> None:
    """Oldest first; other manifests' runs and broken files are passed over."""
    names = ["20261124T150000-0000000a", "20261124T150001-0000000b", "20261124T150002-0000000c"]
    for name, digest in zip(names, ["1" * 64, "2" * 64, "1" * 64], strict=True):
        Ledger.create(tmp_path / f"{name}.sqlite", replace(INFO, run=name, sha256=digest)).close()
    (tmp_path / "20261124T150003-broken.sqlite").write_bytes(b"")
    assert [path.stem for path in find_runs(tmp_path, sha256="1" * 64)] == [names[0], names[2]]
    assert find_runs(tmp_path / "nowhere", sha256="1" * 64) == []


def test_runs_of_a_manifest_are_found_by_its_path(tmp_path: Path) -> None:
    """Oldest first, whatever was in it then."""
    ours, others = tmp_path / "m.jsonl", tmp_path / "other.jsonl"
    for name, manifest, digest in [("2", ours, "1"), ("1", ours, "2"), ("3", others, "1")]:
        moment = INFO.created_at.replace(second=int(name))
        info = replace(INFO, run=name, manifest=manifest, sha256=digest * 64, created_at=moment)
        Ledger.create(tmp_path / f"x{digest}{name}.sqlite", info).close()
    found = find_runs(tmp_path, tmp_path / "." / "m.jsonl")
    assert [path.stem for path in found] == ["x21", "x12"]
    assert find_runs(tmp_path, tmp_path / "none.jsonl") == []


def test_a_ledger_is_there_with_its_entries_or_not_at_all(path: Path) -> None:
    """What a pytest that is killed while it plans leaves is no run to a later one."""
    with Ledger.create(path, INFO, deferred=True) as made:
        made.attempts.plan([("t-a", "a", 1, 0)])
        assert find_runs(path.parent, sha256=INFO.sha256) == []
    assert list(path.parent.iterdir()) == []
    with Ledger.create(path, INFO, deferred=True) as made:
        made.attempts.plan([("t-a", "a", 1, 0)])
        made.commit_deferred()
    assert find_runs(path.parent, sha256=INFO.sha256) == [path]
    with Ledger.open(path) as read:
        assert read.attempts.count_entries() == 1


def test_a_ledger_that_cannot_be_made_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next try finds no half of one in its way."""
    monkeypatch.setattr("pytest_manifest.ledger.ledger.TABLES", ["CREATE TABLE run (key)", "bad"])
    with pytest.raises(LedgerError, match=r"cannot be created.*manifest_dir"):
        Ledger.create(path, INFO)
    assert not path.exists()


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_merged_run_comes_after_those_that_it_is_of(tmp_path: Path, first: str) -> None:
    """It is as old as the oldest of them, and may have been made in the same second."""
    names = {"a": "20261124T150000-0000000a", "b": "20261124T150000-0000000b"}
    for key, name in names.items():
        with Ledger.create(tmp_path / f"{name}.sqlite", replace(INFO, run=name)) as ledger:
            if key != first:
                add_merged(ledger, names[first])
    found = [path.stem for path in find_runs(tmp_path, sha256=INFO.sha256)]
    assert found == [names[first], *(name for name in names.values() if name != names[first])]
