"""``manifest show`` and ``export`` of runs whose jobs started other tasks; facts."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.cli.show import of_descendant
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import FactSource, Nowhere, Started, Stored, Withheld
from pytest_manifest.schema.run_facts import RunOver, Segment, StoreFact, TaskFact
from pytest_manifest.verdict.problems import StackEnded
from pytest_manifest.verdict.reasons import UNEXPLAINED
from pytest_manifest.verdict.tree import ByDescendant
from tests.reports import add_receipts
from tests.unit.cli_support import as_json, make_run, manifest, refusal, write_manifest
from tests.unit.ledger_support import MOMENT, verdict
from tests.unit.tree_support import descendant_receipt, times

MOMENT_SHOWN = "2026-11-24 15:00:01.123"


def add_tree(path: Path, entry: str, ends: dict[str, VerdictStatus]) -> str:
    """Have an entry's job start a task, which starts the others; returns the attempt's task id."""
    with Ledger.open(path, write=True) as ledger:
        root = ledger.attempts.of_entry(entry)[0].task_id
        parent = root
        for task_id, status in ends.items():
            one = Descendant(task_id, root, parent, f"shop.{task_id}", "call", spawned_at=MOMENT)
            ledger.descendants.add([one])
            ledger.descendants.end({task_id: verdict(entry, status)})
            found = descendant_receipt(one, entry, times(0, 2))
            add_receipts(ledger, [(task_id, None, found)])
            parent = next(iter(ends))
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two entries, the second with a tree."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"}, {"id": "b", "task": "t"})
    path = make_run(file, 1, ["passed", "failed"])
    add_tree(path, "b", {"c1": "passed", "c2": "failed", "c3": "passed"})
    return path


def test_an_entrys_tree_is_shown(run: Path) -> None:
    """Each task below what started it, no more than wanted."""
    lines = manifest("show", "last", "--tree=b").splitlines()
    assert "(failed): 3 descendants: 1 failed, 2 passed" in lines[0]
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["passed", "shop.c1"], ["failed", "shop.c2"], ["passed", "shop.c3"]),
    ]
    assert lines[3].index("shop.c2") == lines[2].index("shop.c1") + 2
    assert manifest("show", "last", "--tree=b", "--limit=1").splitlines()[-1] == (
        "and 2 more; --limit=0 shows all"
    )
    shown = as_json("show", run.stem, "--tree=b")
    assert (shown["matching"], shown["shown"], shown["verdict"]) == (3, 3, "failed")
    assert isinstance(shown["descendants"], list)
    first = shown["descendants"][0]
    assert isinstance(first, dict)
    assert (first["depth"], first["task"], first["runtime"]) == (1, "shop.c1", 2.0)


def test_a_tree_says_where_it_is_not_known(run: Path) -> None:
    """And what cannot be meant is refused."""
    assert "(passed): descendants: not known (its worker" in manifest("show", "last", "--tree=a")


def test_a_tree_of_no_entry_is_refused(run: Path) -> None:
    """In a sentence."""
    told = refusal("show", "last", "--tree=x")
    assert f"run {run.stem}: there is no entry 'x' in it" in told


def test_a_run_counts_descendants(run: Path) -> None:
    """Where there are some."""
    assert "1 failed, 1 passed; 3 descendants: 1 failed, 2 passed" in manifest("show", "last")
    assert as_json("show", "last")["descendants"] == {"passed": 2, "failed": 1}
    make_run(Path("m.jsonl"), 2, ["passed", "passed"])
    assert "descendants: " not in manifest("show", "last")


def test_an_export_has_descendants(run: Path) -> None:
    """The table their numbers, the receipts a line each, the summary all counts."""
    rows = list(csv.DictReader(io.StringIO(manifest("export", "last", "--format=csv"))))
    assert [(row["descendants"], row["descendants_failed"]) for row in rows] == [
        *(("", ""), ("3", "1")),
    ]
    lines = manifest("export", "last").splitlines()
    assert [line.startswith('{"descendant": 1,') for line in lines] == [False] * 2 + [True] * 3
    assert '"number": 3' in manifest("export", "last", "--format=summary")


# All that is recorded of an entry


def test_the_facts_of_an_entry_are_shown_in_order(run: Path) -> None:
    """Each with who knows it, of the run, the job and its tree; no more than the newest wanted,
    and nothing of other tasks."""
    with Ledger.open(run, write=True) as ledger:
        nowhere = Nowhere(seq=0, at=MOMENT, source=FactSource.SEARCH, job="c3", as_of=7)
        other = TaskFact(seq=0, at=MOMENT, task="shop.another", code="x")
        emptied = StoreFact(seq=0, at=MOMENT, what="emptied")
        ledger.facts.append([("b", nowhere), (None, other), (None, emptied)])
    lines = manifest("show", "b", "--facts").splitlines()
    assert lines[0] == f"b of run {run.stem} (failed): 1 attempt, 13 facts"
    assert [re.split("  +", line.strip())[:5] for line in lines[2:5]] == [
        ["5", MOMENT_SHOWN, "controller", "attempt 1", "planned"],
        ["6", MOMENT_SHOWN, "controller", "attempt 1", "sending"],
        ["6", MOMENT_SHOWN, "controller", "attempt 1", "send result"],
    ]
    assert "state=failed" in lines[5]
    assert "search      shop.c3 c3  nowhere" in lines[-3]
    assert lines[-2].endswith("what=emptied")
    assert re.fullmatch(
        r"judged pending by fact 7: awaits_tree, rule J \(.*, verdict/tree.py\)", lines[-1]
    )
    few = manifest("show", "b", "--facts", f"--run={run.stem}", "--limit=2").splitlines()
    assert (few[:2], len(few)) == (
        [lines[0], "11 earlier ones are left out; --limit=0 shows all"],
        6,
    )
    assert [line.split() for line in few[3:]] == [line.split() for line in lines[-3:]]


def test_each_verdict_that_an_entry_had_is_shown(run: Path) -> None:
    """An audit that knows better takes no earlier one away."""
    with Ledger.open(run, write=True) as ledger:
        ledger.verdicts.record([(verdict("a", "timed_out"), None)])
        ledger.verdicts.reopen(["a"], why="audit")
        ledger.verdicts.record([(verdict("a", "failed"), None)])
    lines = manifest("show", "a", "--facts").splitlines()
    told = [line.partition("status=")[2].partition(",")[0] for line in lines if "status=" in line]
    assert told == ["passed", "timed_out", "failed"]


def test_facts_say_why_an_entry_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing decides yet; then the reason that an audit has recorded, with its rule."""
    monkeypatch.chdir(tmp_path)
    path = make_run(write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"}), 1, [None])
    last = manifest("show", "a", "--facts").splitlines()[-1]
    assert last == "not judged yet: nothing that is recorded says what became of it"
    with Ledger.open(path, write=True) as ledger:
        reason = StackEnded(why=UNEXPLAINED).document()
        known = verdict("a", "pending").model_copy(update={"reason": reason})
        ledger.facts.append([(None, RunOver(seq=0, at=MOMENT, why="ended"))])
        over = ledger.facts.last_seq()
        ledger.verdicts.record([(known, None)])
    last = manifest("show", "a", "--facts").splitlines()[-1]
    assert last.startswith(f"judged pending by fact {over}: stack_ended, rule F (")


def test_an_entry_was_planned_as_its_run_began(run: Path) -> None:
    """Not only as it was sent, which is later."""
    began = MOMENT - timedelta(minutes=2)
    with closing(sqlite3.connect(run)) as db, db:
        db.execute("UPDATE run SET created_at = ?", (began.isoformat(),))
    lines = manifest("show", "a", "--facts").splitlines()
    planned = next(line for line in lines if " planned " in line)
    assert began.strftime("%Y-%m-%d %H:%M:%S") in planned


def test_what_held_an_entry_back_is_named(run: Path) -> None:
    """As the fact that decided."""
    with Ledger.open(run, write=True) as ledger:
        ledger.attempts.plan([("again", "a", 2, 0)])
        ledger.attempts.mark(["again"], "withheld")
        held = Withheld(
            seq=0, at=MOMENT, source=FactSource.CONTROLLER, job="again", code="after", names=("b",)
        )
        ledger.facts.append([("a", held)])
    shown = manifest("show", "a", "--facts").splitlines()
    seq = next(line.split()[0] for line in shown if "withheld" in line)
    assert re.match(rf"judged skipped by fact {seq}: waits_for, rule B ", shown[-1])


def test_the_start_that_was_one_too_many_is_named(run: Path) -> None:
    """Of a job that kills its workers."""
    with Ledger.open(run, write=True) as ledger:
        ledger.attempts.plan([("again", "a", 2, 0)])
        ledger.attempts.mark(["again"], "sent")
        starts = [
            Started(
                seq=0,
                at=MOMENT,
                source=FactSource.WORKER,
                job="again",
                execution=f"x-{n}",
                started_at=MOMENT + timedelta(seconds=n),
                redelivered=n > 0,
                host="h",
                pid=n + 1,
            )
            for n in range(9)
        ]
        begun = Segment(seq=0, at=MOMENT, kills=3, lifetime=60.0, deadline=9.5)
        ledger.facts.append([(None, begun), *(("a", one) for one in starts)])
        seq = ledger.facts.last_seq()
    shown = manifest("show", "a", "--facts").splitlines()
    assert shown[-1].startswith(f"judged quarantined by fact {seq}: kills_workers, rule F (")


def test_the_fact_of_the_descendant_is_named(run: Path) -> None:
    """By which the attempt is judged, not the end of its own job."""
    reason = ByDescendant(
        task="shop.c2", task_id="c2", parent="t", ended="failed", why=UNEXPLAINED, total=3
    )
    with Ledger.open(run) as ledger:
        attempts = ledger.jobs.of_entry("b")
    (facts,) = (one.facts for one in attempts[0].descendants if one.job.task_id == "c2")
    assert of_descendant(reason, attempts) == facts[-1].seq
    assert of_descendant(UNEXPLAINED, attempts) is None


def test_a_program_gets_the_facts_whole(run: Path) -> None:
    """Receipts, too, and without what is hidden."""
    shown = as_json("show", "a", "--facts")
    assert (shown["verdict"], shown["matching"], shown["shown"]) == ("passed", 5, 5)
    rule = shown["rule"]
    assert isinstance(rule, dict)
    # The record has no start.
    assert (rule["letter"], rule["code"]) == ("C", "end_without_start")
    facts = shown["facts"]
    assert isinstance(facts, list)
    found = [one for one in facts if isinstance(one, dict) and one["what"] == "ended"]
    (task_id,) = {one["task_id"] for one in found}
    assert shown["task_ids"] == [task_id]
    fields = found[0]["fields"]
    assert isinstance(fields, dict)
    told = fields["receipt"]
    assert isinstance(told, dict)
    assert (told["state"], told["entry"]) == ("succeeded", "a")
    assert "args_sha256" not in told


def test_facts_show_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its name, nor where an error's message repeats what an argument holds."""
    monkeypatch.chdir(tmp_path)
    secret = "hunter2-and-more"
    entry: dict[str, JsonValue] = {"id": "a", "task": "t", "kwargs": {"password": secret}}
    path = make_run(write_manifest(Path("m.jsonl"), entry), 1, ["passed"])
    with Ledger.open(path, write=True) as ledger:
        job = ledger.attempts.of_entry("a")[0].task_id
        fault = f"no {secret}"
        stored = Stored(seq=0, at=MOMENT, job=job, source=FactSource.STORE, unreadable=fault)
        ledger.facts.append([("a", stored)])
    for arguments in (["--json"], []):
        assert secret not in manifest("show", "a", "--facts", *arguments)


def test_facts_of_no_entry_are_refused(run: Path) -> None:
    told = refusal("show", "x", "--facts")
    assert f"run {run.stem}: there is no entry 'x' in it" in told
