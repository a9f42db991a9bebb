"""The system test's own checks against receipts that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.plugin.verdict_reader import ManifestRun
from pytest_manifest.schema import Entry, Header, Receipt, Verdict
from tasks.database import Database
from tasks.settings import Settings
from tests.workflows.crud_load import ROOT
from workflows.system_test import verify

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
DATA: dict[str, JsonValue] = {"title": "Alien", "year": 1979}
POOL: dict[str, JsonValue] = {
    "size": 5, "limit": 10, "checked_out": 1, "overflow": 0, "peak": 1
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """An empty database."""
    monkeypatch.setenv("MANIFEST_DATABASE_URL", f"sqlite:///{tmp_path}/verify.sqlite3")
    opened = Database(Settings())
    yield opened
    opened.close()


def entry_for(task: str, **kwargs: JsonValue) -> Entry:
    return Entry(id="one", task=task, kwargs=kwargs)


def receipt_of(entry: Entry, result: JsonValue, **fields: object) -> Receipt:
    common = {
        "run": "20261124T120000-00000000",
        "entry": entry.id,
        "attempt": 1,
        "task_id": "00000000-one",
        "task": entry.task,
        "state": "succeeded",
        "result": result,
        "started_at": NOON,
        "finished_at": NOON + timedelta(seconds=1),
        "runtime": 1.0,
        "executions": 1,
    }
    return Receipt.model_validate({**common, **fields})


def crud_result(database: Database, **changes: JsonValue) -> dict[str, JsonValue]:
    life = database.run_lifecycle("Alien", {"year": 1979})
    result: dict[str, JsonValue] = {
        "lifecycle": ["created", "verified", "deleted"],
        "row_id": life.row_id,
        "verified": {"title": "Alien", "fields": {"year": 1979}, "revision": 2, "rows_left": 0},
        "database": life.database,
        "slept": 0.5,
    }
    return {**result, **changes}


def test_echo() -> None:
    """Only the very message passes."""
    entry = entry_for("tasks.diagnostics.debug_task", msg="hello")
    verify.test_debug(entry, receipt_of(entry, {"echo": "hello"}))
    with pytest.raises(AssertionError):
        verify.test_debug(entry, receipt_of(entry, {"echo": "hallo"}))
    with pytest.raises(AssertionError):
        verify.test_debug(entry, receipt_of(entry, None))


def test_arguments_by_position() -> None:
    """A manifest written by hand may pass arguments by position."""
    entry = Entry(id="one", task="tasks.diagnostics.debug_task", args=["hello"])
    verify.test_debug(entry, receipt_of(entry, {"echo": "hello"}))


@pytest.mark.parametrize(
    "test",
    [verify.test_debug, verify.test_sleep],
)
def test_an_entry_that_expects_a_failure(
    test: Callable[[Entry, Receipt | None], None],
) -> None:
    """The generic verdict has said all there is to say; so it has where there is no receipt."""
    entry = entry_for("tasks.diagnostics.sleep_task", sec=-1)
    test(entry, receipt_of(entry, None, state="failed"))
    test(entry, None)


@pytest.mark.parametrize(("slept", "runtime"), [(0.4, 0.6), (0.5, 0.3), ("long", 0.6), (None, 0.6)])
def test_sleep_that_was_too_short(slept: JsonValue, runtime: float) -> None:
    """Neither the task's word nor its run time may stay below what was asked."""
    entry = entry_for("tasks.diagnostics.sleep_task", sec=0.5)
    verify.test_sleep(entry, receipt_of(entry, {"slept": 0.5}, runtime=0.5))
    with pytest.raises(AssertionError):
        verify.test_sleep(entry, receipt_of(entry, {"slept": slept}, runtime=runtime))


@pytest.mark.parametrize(
    "changes",
    [
        {"lifecycle": ["created", "deleted"]},
        {"verified": {"title": "Aliens", "fields": {"year": 1979}, "revision": 2}},
        {"verified": {"title": "Alien", "fields": {}, "revision": 2}},
        {"verified": {"title": "Alien", "fields": {"year": 1979}, "revision": 1}},
        {"row_id": None},
    ],
    ids=["step missing", "other title", "field missing", "not updated", "no row"],
)
def test_lifecycle_that_is_not_whole(database: Database, changes: dict[str, JsonValue]) -> None:
    """Each way of not having done all of it fails."""
    entry = entry_for("tasks.crud.fast_crud_task", data=DATA)
    verify.test_crud(entry, receipt_of(entry, crud_result(database)), database)
    with pytest.raises(AssertionError):
        verify.test_crud(entry, receipt_of(entry, crud_result(database, **changes)), database)


def test_a_row_that_is_still_there(database: Database) -> None:
    """The database itself is asked, whatever the task says."""
    entry = entry_for("tasks.crud.fast_crud_task", data=DATA)
    result = crud_result(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO system_test_record VALUES ({result['row_id']}, 'Alien', '{{}}', 1)"
        )
    with pytest.raises(AssertionError):
        verify.test_crud(entry, receipt_of(entry, result), database)


@pytest.mark.parametrize(
    "pool", [None, {**POOL, "peak": 11}, {**POOL, "checked_out": 0}], ids=["none", "above", "idle"]
)
def test_a_pool_out_of_bounds(database: Database, pool: JsonValue) -> None:
    """A pool above its limit, a connection not held, or no numbers at all from our worker fail."""
    entry = entry_for("tasks.crud.sleep_crud_task", sec=0.5, data=DATA)
    good = receipt_of(entry, crud_result(database), evidence={"pool": POOL})
    verify.test_sleep_crud(entry, good, database)
    bad = receipt_of(entry, crud_result(database), evidence={"pool": pool})
    with pytest.raises((AssertionError, KeyError)):
        verify.test_sleep_crud(entry, bad, database)


def test_a_worker_that_knows_nothing_of_us(database: Database) -> None:
    """Its receipts carry no evidence, and what they do carry is checked all the same."""
    entry = entry_for("tasks.crud.sleep_crud_task", sec=0.5, data=DATA)
    verify.test_sleep_crud(
        entry, receipt_of(entry, crud_result(database), source="backend"), database
    )


def test_another_database(database: Database) -> None:
    """Rows of a database that the worker did not use prove nothing: that is an error."""
    entry = entry_for("tasks.crud.fast_crud_task", data=DATA)
    same = crud_result(database)
    verify.refuse_another_database(receipt_of(entry, same), database)
    verify.refuse_another_database(None, database)
    with pytest.raises(pytest.fail.Exception, match="the worker used another database"):
        verify.refuse_another_database(receipt_of(entry, {**same, "database": "other"}), database)


def run_of(
    folder: Path,
    spans: list[tuple[float, float]],
    *,
    workers: int | None,
    sec: float = 1.0,
    processes: int = 1,
) -> ManifestRun:
    """A run of sleeping entries that ran from, to (seconds after noon), in turn in the processes
    of one worker."""
    task = "tasks.diagnostics.sleep_task"
    entries = [Entry(id=f"{n}", task=task, kwargs={"sec": sec}) for n in range(len(spans))]
    manifest: Manifest = write_manifest(folder / "m.jsonl", Header(), entries)
    settled = [
        EntryVerdict(
            number,
            Verdict(verdict="passed", entry=entry.id, sentence="passed"),
            receipt_of(
                entry,
                {"slept": sec},
                started_at=NOON + timedelta(seconds=begin),
                finished_at=NOON + timedelta(seconds=end),
                worker="celery@one",
                pid=100 + number % processes,
            ),
        )
        for number, (entry, (begin, end)) in enumerate(zip(entries, spans, strict=True))
    ]
    return ManifestRun(manifest, settled, workers, owned=True)


def test_side_by_side(tmp_path: Path) -> None:
    """Jobs that overlap pass; jobs that only ever ran one after the other do not."""
    verify.test_workers_ran_side_by_side(run_of(tmp_path, [(0, 1), (0.5, 1.5)], workers=2))
    with pytest.raises(AssertionError):
        verify.test_workers_ran_side_by_side(run_of(tmp_path, [(0, 1), (1, 2)], workers=2))


def test_processes_of_one_worker_run_side_by_side(tmp_path: Path) -> None:
    """On a stack of others nobody says how many there are: the receipts name the processes."""
    alone = run_of(tmp_path, [(0, 1), (1, 2)], workers=None, processes=1)
    with pytest.raises(pytest.skip.Exception, match="1 process"):
        verify.test_workers_ran_side_by_side(alone)
    two = run_of(tmp_path, [(0, 1), (0.5, 1.5)], workers=None, processes=2)
    verify.test_workers_ran_side_by_side(two)
    queued = run_of(tmp_path, [(0, 1), (1, 2)], workers=None, processes=2)
    with pytest.raises(AssertionError):
        verify.test_workers_ran_side_by_side(queued)


@pytest.mark.parametrize(("workers", "sec"), [(1, 1.0), (2, 0.1)])
def test_too_little_to_tell(tmp_path: Path, workers: int, sec: float) -> None:
    """One worker, or next to no work, is no ground for a verdict: it is skipped, and says why."""
    with pytest.raises(pytest.skip.Exception, match="too little to tell"):
        verify.test_workers_ran_side_by_side(
            run_of(tmp_path, [(0, 1), (1, 2)], workers=workers, sec=sec)
        )


def test_rows_left(tmp_path: Path, database: Database) -> None:
    """Any row in the table fails the run."""
    run = run_of(tmp_path, [(0, 1)], workers=1)
    verify.test_no_row_is_left(run, database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO system_test_record VALUES (1, 'x', '{}', 1)")
    with pytest.raises(AssertionError):
        verify.test_no_row_is_left(run, database)


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([(0, 1)], 1),
        ([(0, 1), (1, 2)], 1),
        ([(0, 3), (1, 2), (2, 4)], 2),
        ([(0, 9), (1, 8), (2, 7)], 3),
    ],
)
def test_most_at_once(spans: list[tuple[int, int]], most: int) -> None:
    """Ends that touch do not overlap."""
    assert (
        verify.most_at_once(
            (NOON + timedelta(seconds=begin), NOON + timedelta(seconds=end)) for begin, end in spans
        )
        == most
    )


def test_each_task_is_verified_by_one_test() -> None:
    """The tests of entries share the tasks out among them, without gap or overlap."""
    tasks = {
        "tasks.diagnostics.debug_task",
        "tasks.diagnostics.sleep_task",
        "tasks.crud.fast_crud_task",
        "tasks.crud.sleep_crud_task",
    }
    marks = [
        mark.kwargs["task"]
        for value in vars(verify).values()
        for mark in getattr(value, "pytestmark", ())
        if mark.name == "entries" and "task" in mark.kwargs
    ]
    for task in tasks:
        assert len([glob for glob in marks if fnmatchcase(task, glob)]) == 1
    assert len(marks) == len(tasks)
    assert (ROOT / "workflows" / "system_test" / "verify.py").samefile(verify.__file__)
