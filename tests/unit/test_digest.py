"""Digests: a run that is over in 50 kB, which stays when its ledger goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator

from pytest_manifest.analysis.digest import (
    as_json,
    digests_of,
    make_digest,
    read_digest,
    without_parts,
    write_digest,
)
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.files import RunFiles, next_run_number
from pytest_manifest.schema import run_digest
from pytest_manifest.schema.models import Entry
from pytest_manifest.schema.run_digest import MOST_BYTES, RunDigest, work_of
from scripts.schemas import FOLDER
from tests.unit.following_support import MadeRun, Make

MB = 1 << 20


def digest_of(run: MadeRun) -> RunDigest:
    """The digest as it is read from its file, which its schema accepts."""
    path = write_digest(make_digest(run.path), run.path)
    assert path.stat().st_mode & 0o777 == 0o600
    found = read_digest(path)
    assert found is not None
    schema = json.loads((FOLDER / "run-digest.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(json.loads(path.read_text("utf-8")))
    return found


def test_a_digest_has_what_did_not_pass_and_figures_of_the_rest(make: Make) -> None:
    run = make(entries=40, tasks=("shop.price", "shop.resize"))
    code = f"py3.12:{'a' * 64}"
    passed = [f"e{n}" for n in range(2, 40)]
    run.send("e0", "e1", *passed)
    for n, name in enumerate(passed):
        run.judge(name, runtime=float(n), code=code, max_rss=(100 + n) * MB)
    run.judge("e0", "failed", code=code)
    run.infer("e1", "lost")
    run.stop()
    found = digest_of(run)
    assert (found.entries, found.partial, found.passed, found.bad) == (40, None, 38, 2)
    assert found.verdicts == {"passed": 38, "failed": 1, "lost": 1}
    assert [(one.id, one.verdict, one.cause) for one in found.listed] == [
        ("e0", "failed", 0),
        ("e1", "lost", 1),
    ]
    assert [one.kind for one in found.causes] == ["failed", "lost"]
    price, resize = found.tasks
    assert (price.task, price.count, price.passed, price.bad) == ("shop.price", 20, 19, 1)
    assert (price.samples, price.p50, resize.p50) == (19, 18.0, 19.0)
    assert price.code == ["py3.12:" + "a" * 13]
    (worker,) = found.workers
    assert (worker.worker, worker.jobs) == ("w1@h", 38)
    assert [one // MB for one in worker.memory] == [100, 108, 118, 127, 137]
    assert all(f"e{n}" in found.ids for n in range(40))
    assert sum(f"x{n}" in found.ids for n in range(1000)) < 50


def test_what_is_not_the_whole_manifest_is_partial(make: Make) -> None:
    """Stopped, or held back in part; what an operator cancelled leaves the rest whole."""
    run = make(entries=10)
    run.do(*(f"e{n}" for n in range(7)))
    for n in range(7, 10):
        run.infer(f"e{n}", "cancelled")
    run.stop("stopped")
    assert make_digest(run.path).partial == "stopped"
    run.stop()
    assert make_digest(run.path).partial is None
    for n in (8, 9):
        run.infer(f"e{n}", "skipped")
    assert make_digest(run.path).partial == "unsent"


def test_a_digest_is_small_whatever_the_run_is(make: Make) -> None:
    """Of the entries that failed as many are listed as fit, and the others are counted."""
    tasks = [f"{'shop.' * 8}task{n}" for n in range(200)]
    run = make(entries=2500, tasks=tasks)
    names = [f"e{n}" for n in range(2500)]
    run.send(*names)
    with run.ledger.transaction():
        for name in names:
            run.infer(name, "lost")
    run.stop()
    found = make_digest(run.path)
    size = len(as_json(found))
    assert MOST_BYTES * 0.9 < size <= MOST_BYTES
    assert len(found.listed) > 100
    assert [one.id for one in found.listed[:2]] == ["e0", "e1"]
    assert found.unlisted == 2500 - len(found.listed)


def test_work_is_what_is_done_whatever_it_is_called() -> None:
    def work(**fields: object) -> str:
        return work_of(Entry.model_validate({"id": "a", "task": "t", **fields}))

    assert work() == work(id="b") == work(expect={"state": "failed"}) == work(queue="q")
    assert work() not in (work(task="u"), work(args=[1]), work(kwargs={"a": 1}))


def test_a_digest_has_the_work_that_one_entry_alone_has(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is known under another id; where entries are too many, none."""
    run = make(entries=3, tasks=("shop.price", "shop.resize", "shop.resize"))
    run.do("e0", "e1", "e2")
    run.stop()
    found = digest_of(run)
    assert found.works is not None
    assert [work_of(one) in found.works for one in run.manifest] == [True, False, False]
    monkeypatch.setattr(run_digest, "MOST_WORKS", 2)
    assert digest_of(run).works is None


def test_digests_of_a_manifest_are_read_without_what_was_merged(make: Make, tmp_path: Path) -> None:
    """Nor what is damaged; oldest first by their numbers."""
    first, second = make(number=1), make(number=2)
    for run in (second, first):
        run.do(*(f"e{n}" for n in range(10)))
        run.stop()
        write_digest(make_digest(run.path), run.path)
    folder = first.path.parent
    (folder / "20200101T000000-00000000.digest.json").write_text("{", "utf-8")
    of = digests_of(folder, tmp_path / "m.jsonl")
    assert [one.run for one in of] == [first.run, second.run]
    assert digests_of(folder, tmp_path / "other.jsonl") == []
    merged = of[1].model_copy(update={"run": "m", "number": 3, "merged": [first.run]})
    again = merged.model_copy(update={"run": "n", "number": 4})
    assert [one.run for one in without_parts([*of, merged, again])] == [second.run, "n"]


def test_numbers_go_on_where_only_digests_are_left(make: Make) -> None:
    run = make(number=7)
    run.do("e0")
    run.stop()
    write_digest(make_digest(run.path), run.path)
    run.close()
    for path in RunFiles(run.path).all():
        if not path.name.endswith(".digest.json"):
            path.unlink()
    assert next_run_number(run.path.parent) == 8


def test_a_run_without_its_manifest_has_no_digest(make: Make) -> None:
    run = make()
    RunFiles(run.path).manifest(run.manifest.sha256).unlink()
    assert make_digest(run.path).entries == 10
    run.manifest.path.write_text('{"id": "a", "task": "t"}\n', "utf-8")
    with pytest.raises(LedgerError, match="the manifest that it was made of is not beside it"):
        make_digest(run.path)
