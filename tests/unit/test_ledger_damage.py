"""A ledger that somebody or something has changed is told by a sentence, and never believed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import pytest

from pytest_manifest.analysis.reading import read_records
from pytest_manifest.errors import LedgerError, ManifestToolError
from pytest_manifest.ledger import Ledger, files, find_runs
from pytest_manifest.ledger.database import unreadable
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.audit import audit_run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.judging import Costs
from tests.ledger_edits import edit
from tests.reports import add_starts, all_receipts, starts_by_task
from tests.unit.analysis_support import START, MadeRun, error
from tests.unit.ledger_support import NOTHING, start

NAMES = [f"e-{n}" for n in range(8)]
FAILED = "e-3"
FLIPS = 250
NOWHERE = StackAddress("", "", None, is_private=False)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The ledger of a run that has ended: one entry failed, the others passed."""
    folder = tmp_path / "runs"
    folder.mkdir()
    made = MadeRun(folder, [Entry(id=name, task="jobs.t") for name in NAMES])
    with made.ledger as ledger:
        ledger.info.begin_segment(START)
        made.plan(*NAMES)
        add_starts(ledger, [start(f"t-{name}-1", "x") for name in NAMES])
        for name in NAMES:
            if name == FAILED:
                made.settle(name, "failed", made.receipt(name, state="failed", error=error()))
            else:
                made.settle(
                    name,
                    "passed",
                    made.receipt(
                        name, 1, started_at=START, finished_at=START, sent_at=START, **NOTHING
                    ),
                )
        ledger.info.set_status("finished")
        ledger.compact()
    return ledger.path


@cache
def manifest_of(ledger: Path) -> Manifest:
    return read_manifest(ledger.with_name("m.jsonl"))


def audit(ledger: Path) -> dict[str, str]:
    """The verdicts after an audit without a stack."""
    manifest = manifest_of(ledger)
    settings = RunSettings(folder=ledger.parent)
    run = audit_run(manifest, ledger, NOWHERE, settings, wait=False)
    run.prepare()
    run.take_effect()
    run.start()
    with run.read() as reading:
        return {one.verdict.entry: one.verdict.verdict for one in reading.queries.all_verdicts()}


def read_everything(path: Path) -> None:
    """As a session, its reports and its summary do."""
    manifest = manifest_of(path)
    find_runs(path.parent, sha256=manifest.sha256)
    find_runs(path.parent, manifest.path)
    with Ledger.open(path) as ledger:
        (
            ledger.info.read(),
            ledger.info.status,
            ledger.info.shards(),
            ledger.info.merged(),
            ledger.info.segments(),
        )
        (
            ledger.attempts.send_states(),
            ledger.attempts.reasons(),
            ledger.verdicts.statuses(),
            ledger.verdicts.counts(),
        )
        (
            ledger.events.last_arrival(),
            starts_by_task(ledger),
            ledger.queries.histories(NAMES),
        )
        every: list[Iterator[object]] = [
            ledger.attempts.all(),
            iter(all_receipts(ledger)),
            ledger.queries.runtimes(),
            ledger.queries.all_verdicts(),
            ledger.queries.not_passed(NAMES),
            (one.parse() for _, one in ledger.verdicts.stored_from(NAMES[0], 20)),
        ]
        for rows in every:
            list(rows)
        Costs(ledger, manifest).total()
        for record in read_records(ledger, manifest):
            assert record.id
            assert record.outcome


def what_is_said_of(ledger: Path) -> str:
    """The sentence by which it is refused; "" where it can be read and audited."""
    try:
        audit(ledger)
        read_everything(ledger)
    except ManifestToolError as error:
        return str(error)
    return ""


def test_every_flipped_bit_is_told_by_a_sentence(made: Path) -> None:
    """None of them ends in a traceback, wherever it is."""
    rng, whole, told = random.Random(7), made.read_bytes(), 0
    used = [place for place, byte in enumerate(whole) if byte]  # the rest is free space
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[rng.choice(used)] ^= 1 << rng.randrange(8)
        for beside in made.parent.glob(f"{made.name}-*"):
            beside.unlink()
        made.write_bytes(damaged)
        told += made.name in what_is_said_of(made)
    assert told > FLIPS // 20


AS_PASSED = "kind = 'passed'"
DOCUMENT = "verdict = json_set(verdict, '$.verdict', 'passed', '$.sentence', 'It passed.')"
RECEIPT = "receipt = json_set(receipt, '$.state', 'succeeded', '$.error', json('null'))"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (AS_PASSED, "'e-3' is recorded as passed, and its verdict says failed"),
        (
            f"{AS_PASSED}, {DOCUMENT}, {RECEIPT}",
            "'e-3' was judged by a receipt that it does not have",
        ),
    ],
    ids=["kind", "kind-verdict-receipt"],
)
def test_a_ledger_that_contradicts_itself_is_refused(made: Path, changed: str, words: str) -> None:
    """Whatever was written over: no audit is green by it, and it says what to do."""
    edit(made, f"UPDATE settled SET {changed} WHERE entry = 'e-3'")
    with pytest.raises(LedgerError, match=f"{words}.*--manifest-receipts"):
        audit(made)


def test_an_audit_judges_by_receipts(made: Path) -> None:
    """Kind and verdict agree that it passed, and the receipt says what it has always said."""
    edit(made, f"UPDATE settled SET {AS_PASSED}, {DOCUMENT} WHERE entry = 'e-3'")
    verdicts = audit(made)
    assert verdicts.pop("e-3") == "failed"
    assert set(verdicts.values()) == {"passed"}
    edit(made, f"UPDATE settled SET {AS_PASSED}, {DOCUMENT}, receipt = NULL WHERE entry = 'e-3'")
    assert audit(made)["e-3"] == "failed"
    edit(made, f"UPDATE settled SET {AS_PASSED}, {DOCUMENT}, receipt = NULL WHERE entry = 'e-3'")
    edit(made, "DELETE FROM receipts WHERE json_extract(receipt, '$.entry') = 'e-3'")
    assert audit(made)["e-3"] == "pending"


def test_what_is_no_document_is_a_sentence(made: Path) -> None:
    """Also where nothing of it is JSON, or of the right type."""
    for statement in (
        "UPDATE verdicts SET added = '{' WHERE job = 3",
        "UPDATE settled SET receipt = json_set(receipt, '$.runtime', 'long') WHERE entry = 'e-3'",
        "UPDATE settled SET verdict = x'ff00' WHERE entry = 'e-3'",
        "UPDATE run SET entries = 'x'",
        "UPDATE run SET broker = NULL",
        "UPDATE segments SET started = '[[1]]'",
        "UPDATE starts SET started_at = 'yesterday'",
        "UPDATE attempts SET sent_at = 5",
        "UPDATE receipts SET receipt = '{}'",
    ):
        whole = made.read_bytes()
        edit(made, statement)
        assert made.name in what_is_said_of(made)
        for beside in made.parent.glob(f"{made.name}-*"):
            with suppress(FileNotFoundError):
                beside.unlink()
        made.write_bytes(whole)


@pytest.mark.parametrize(
    ("words", "code", "of_environment"),
    [
        ("in use by another program", 5 | 1 << 8, True),  # SQLITE_BUSY_RECOVERY
        ("another word for the disk", 10 | 1 << 8, True),  # SQLITE_IOERR_READ
        ("database is locked", 11, False),  # SQLITE_CORRUPT
        ("database is locked", None, True),
        ("database disk image is malformed", None, False),
    ],
)
def test_damage_is_told_from_a_lock_by_the_code(
    words: str, code: int | None, of_environment: bool
) -> None:
    """By the words only on Python 3.10, where an error has no code."""
    error = sqlite3.OperationalError(words)
    if code is not None:
        vars(error)["sqlite_errorcode"] = code
    said = str(unreadable(Path("run.sqlite"), error))
    assert ("cannot be read now" in said) is of_environment


def test_a_ledger_that_is_kept_locked_cannot_be_read_now(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no damaged one, and its sentence says to try again."""
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(made, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE run SET status = status")
        with pytest.raises(LedgerError, match=r"cannot be read now \(.*; .*then try again"):
            Ledger.open(made)


def test_a_ledger_beside_which_nothing_can_be_made_is_no_damaged_one(made: Path) -> None:
    """As on a full disk, where SQLite's shared memory finds no room; but a file there must be."""
    error = sqlite3.OperationalError("unable to open database file")
    assert "cannot be read now" in str(unreadable(made, error))
    assert "not a ledger that can be read" in str(unreadable(made.with_name("none"), error))
