"""``manifest merge``: the ledgers of a manifest's shards made one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.cli.main import app, main
from pytest_manifest.errors import LedgerError, ManifestToolError
from pytest_manifest.ledger import (
    SECRETS,
    Ledger,
    RunInfo,
    utc_now,
)
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.rows import microseconds
from pytest_manifest.ledger.tables import RUN
from pytest_manifest.manifest import read_manifest
from pytest_manifest.run import fact_log
from pytest_manifest.run.changes import keep_manifest, kept_manifest
from pytest_manifest.run.fact_log import record_code
from pytest_manifest.run.invariants import repetitions
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.merge import merge
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.verdict.judging import Costs, Judging
from pytest_manifest.verdict.reasons import read_reason
from tests.reports import add_receipts, add_starts, all_receipts, started, starts_by_task
from tests.unit.ledger_support import INFO, MOMENT, NOTHING, is_sound, verdict
from tests.unit.test_audits import audit

Make = Callable[..., Path]

CODE = "py3.11:" + "a" * 64
OWN = {"n", "seq"}
DESCRIBED = {
    *("ledger", "id", "status", "shard", "created_at", "receipt_keys", "manifest", "sha256"),
    *("workflow", "mode", "key_limits"),
}
"""Columns that are written anew, and those that say what else can be merged with a run."""


def run_id(number: int) -> str:
    return f"20261124T1500{number:02}-{number:08x}"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the ledger of a run, the ``number``-th of ``total`` shards of m.jsonl with so many
    ``entries``, each of which has passed unless it is ``left``."""
    runs = tmp_path / "runs"

    def make(
        number: int, total: int, *, entries: int = 10, left: Sequence[int] = (), **facts: object
    ) -> Path:
        manifest = tmp_path / "m.jsonl"
        if not manifest.exists():
            rows = [{"id": f"e{n}", "task": "t", "cost": 2} for n in range(entries)]
            manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        whole = read_manifest(manifest)
        info = replace(
            INFO,
            run=run_id(number),
            manifest=manifest,
            sha256=whole.sha256,
            created_at=MOMENT + timedelta(minutes=number),
            is_private=bool(facts.pop("owned", True)),
        )
        path = runs / f"{info.run}.sqlite"
        places = list(range(number - 1, entries, total))
        with Ledger.create(path, info) as ledger:
            keep_manifest(whole, path)
            _fill(ledger, info, places, [n for n in places if n not in left])
            ledger.info.set_meta("shard", f"{number}/{total}")
            ledger.info.set_status("stopped" if left else "finished")
            for key, value in facts.items():
                ledger.info.set_meta(key, str(value))
        return path

    return make


def _fill(ledger: Ledger, info: RunInfo, places: Sequence[int], done: Sequence[int]) -> None:
    ids = {n: attempt_of(info.run, Entry(id=f"e{n}", task="t"), 1).task_id for n in places}
    ledger.attempts.plan((ids[n], f"e{n}", 1, n) for n in places)
    ledger.attempts.mark(ids.values(), "sent", sent_at=MOMENT)
    host = f"host-{info.run[-1]}"
    add_starts(
        ledger,
        (
            started(ids[n], f"x{n}", MOMENT, 0, f"w@{host}", host, 1, redelivered=False)
            for n in done
        ),
    )
    receipts = {n: received(info.run, n, ids[n]) for n in done}
    add_receipts(ledger, ((ids[n], f"x{n}", receipts[n]) for n in done))
    ledger.verdicts.record((verdict(f"e{n}"), receipts[n]) for n in done)


def received(run: str, place: int, task_id: str) -> Receipt:
    document = {"run": run, "entry": f"e{place}", "attempt": 1, "task_id": task_id, "task": "t"}
    times = dict.fromkeys(("sent_at", "started_at", "finished_at"), MOMENT)
    known = {"state": "succeeded", "worker": f"w@{run[-1]}", "code": CODE, **times, **NOTHING}
    return Receipt.model_validate({**document, **known})


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_all_rows_are_there(make: Make) -> None:
    """Attempts in the manifest's order, starts, receipts and verdicts; the sources as they were."""
    sources = [make(1, 3), make(2, 3), make(3, 3)]
    before = [path.read_bytes() for path in sources]
    merged = merge(sources)
    assert merged.ledger.parent == sources[0].parent
    assert is_sound(merged.ledger)
    with Ledger.open(merged.ledger) as ledger:
        assert [row.entry for row in ledger.attempts.all()] == [f"e{n}" for n in range(10)]
        assert [s.verdict.entry for s in ledger.queries.all_verdicts()] == [
            f"e{n}" for n in range(10)
        ]
        assert len(starts_by_task(ledger)) == 10
        assert len(all_receipts(ledger)) == 10
        assert ledger.info.status == "finished"
        assert ledger.info.shard() is None
        assert ledger.info.merged() == [run_id(1), run_id(2), run_id(3)]
        assert [str(shard) for shard in ledger.info.shards()] == ["1/3", "2/3", "3/3"]
        info = ledger.info.read()
    assert (info.entries, info.created_at) == (10, MOMENT + timedelta(minutes=1))
    assert info.run == merged.ledger.stem
    assert [path.read_bytes() for path in sources] == before
    assert not merged.warnings
    for table in ("run", "segments", "jobs", "facts", "verdicts", "v_entries"):
        assert rows(merged.ledger, f"SELECT sql FROM sqlite_master WHERE name = '{table}'") == rows(
            sources[0], f"SELECT sql FROM sqlite_master WHERE name = '{table}'"
        )


def test_what_arrived_keeps_its_order_within_its_run(make: Make) -> None:
    """Facts, receipts and verdicts of one run are numbered as they were, after those of another."""
    sources = [make(1, 2), make(2, 2)]
    query = """
        SELECT seq FROM receipts UNION ALL SELECT seq FROM settled UNION ALL SELECT seq FROM starts
        ORDER BY 1
    """
    before = [[int(str(row[0])) for row in rows(path, query)] for path in sources]
    with Ledger.open(sources[0]) as ledger:
        last = ledger.facts.last_seq()
    made = merge(sources).ledger
    assert [int(str(row[0])) for row in rows(made, query)] == [
        *before[0],
        *(last + seq for seq in before[1]),
    ]
    with Ledger.open(sources[1]) as other, Ledger.open(made) as ledger:
        assert ledger.facts.last_seq() >= last + other.facts.last_seq()


def test_more_ledgers_than_sqlite_attaches(make: Make) -> None:
    """One after the other; an entry that two of them have is found."""
    total = 12
    sources = [make(number, total, entries=2 * total) for number in range(1, total + 1)]
    merged = merge(sources)
    with Ledger.open(merged.ledger) as ledger:
        assert [row.entry for row in ledger.attempts.all()] == [f"e{n}" for n in range(2 * total)]
        assert ledger.verdicts.counts() == {"passed": 2 * total}
    with closing(sqlite3.connect(sources[-1])) as db, db:
        db.execute("UPDATE jobs SET name = 'e0' WHERE name = ?", (f"e{total - 1}",))
    with pytest.raises(LedgerError, match=f"entry 'e0' is in {sources[0]} and in {sources[-1]}"):
        merge(sources)


def test_what_shards_lack_is_said(make: Make) -> None:
    """And shown as never sent."""
    merged = merge([make(1, 3), make(2, 3)])
    assert merged.warnings == [
        "3 entries of the manifest are in no ledger: they were never sent",
        "of 3 shards, no ledger was given of 3; one without entries has none",
    ]
    assert (merged.info.entries, merged.open) == (10, 3)


def test_a_merged_ledger_is_not_merged_again(make: Make) -> None:
    """Its shards are: what they know of their own jobs is theirs."""
    first = merge([make(1, 3), make(2, 3)]).ledger
    with pytest.raises(LedgerError) as refusal:
        merge([first, make(3, 3)])
    assert str(refusal.value) == (
        f"{first}: was merged of {run_id(1)}, {run_id(2)}; name the ledgers of these runs instead"
    )


def test_a_run_is_named_once(make: Make) -> None:
    """Also where its ledger was copied."""
    first = make(1, 2)
    again = shutil.copy(first, first.with_name("again.sqlite"))
    with pytest.raises(LedgerError, match=f"run {run_id(1)} is in .*, too; name one of these"):
        merge([first, Path(again)])


def test_what_was_sent_on_request_stays_so(make: Make) -> None:
    """What a user has insisted on in a run is no contradiction of the merged run."""
    sources = [make(1, 2), make(2, 2)]
    asked_for = set()
    for number, path in enumerate(sources, 1):
        with Ledger.open(path, write=True) as ledger:
            name, run = f"e{number - 1}", run_id(number)
            again = attempt_of(run, Entry(id=name, task="t"), 2).task_id
            ledger.attempts.plan([(again, name, 2, number - 1, "failed")])
            ledger.attempts.mark([again], "sent", sent_at=MOMENT)
            add_starts(ledger, [started(again, "y", MOMENT, 0, "w", "h", 1, redelivered=False)])
            ledger.verdicts.record([(verdict(name, "failed", attempt=2), None)])
            ledger.info.add_sent_on_request([again])
            asked_for.add(again)
    merged = merge(sources)
    with Ledger.open(merged.ledger) as ledger:
        assert ledger.info.sent_on_request() == asked_for
        assert list(repetitions(ledger, read_manifest(merged.info.manifest))) == []


def test_the_secrets_of_each_run_stay_hidden(make: Make) -> None:
    """Reports of the merged run do not show them either."""
    sources = [make(1, 2, secrets='["correct horse"]'), make(2, 2, secrets='["battery staple"]')]
    with Ledger.open(merge(sources).ledger) as ledger:
        assert ledger.info.texts(SECRETS) == {"correct horse", "battery staple"}


def test_each_thing_that_is_known_of_a_run_is_merged(make: Make) -> None:
    """Under that run's name: whoever adds a column has it merged."""
    path = make(1, 2)
    of_type = {"TEXT": "'[]'", "INTEGER": "1", "REAL": "0.5"}
    given = ", ".join(
        f"{name} = {of_type[kind]}" for name, kind in RUN.items() if name not in OWN | DESCRIBED
    )
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE run SET {given}")
        query = f"SELECT {', '.join(set(RUN) - OWN)} FROM run WHERE id = '{run_id(1)}'"
        before = db.execute(query).fetchall()
    assert rows(merge([path, make(2, 2)]).ledger, query) == before


def test_the_manifest_is_kept_beside_it(make: Make, tmp_path: Path) -> None:
    """In another folder, too; where nobody has kept it, that is said."""
    sources = [make(1, 2), make(2, 2)]
    made = merge(sources, tmp_path / "elsewhere" / "runs")
    assert made.ledger.parent == tmp_path / "elsewhere" / "runs"
    kept = kept_manifest(made.ledger, made.info.sha256)
    assert kept is not None
    assert len(kept) == 10
    assert sorted(path.suffix for path in made.ledger.parent.iterdir()) == [
        ".jsonl",
        ".lock",
        ".sqlite",
    ]
    for path in sources:
        RunFiles(path).manifest(made.info.sha256).unlink()
    assert "no ledger has a copy of the manifest" in merge(sources).warnings[0]


@pytest.mark.parametrize(
    ("owned", "status", "expected"),
    [
        (True, "stopped", "stopped"),
        (True, "running", "stopped"),
        (False, "stopped", "stopped"),
        (False, "detached", "detached"),
    ],
)
def test_an_unfinished_shard_is_said(make: Make, owned: bool, status: str, expected: str) -> None:
    """Its entries without a verdict are counted, and the merged run is not finished either."""
    second = make(2, 2, left=[3, 5], owned=owned)
    with Ledger.open(second, write=True) as ledger:
        ledger.info.set_meta("status", status)
    merged = merge([make(1, 2), second])
    assert merged.warnings == [
        f"shard 2 of 2 (run {run_id(2)}) is unfinished: 2 of its 5 entries have no final verdict"
    ]
    with Ledger.open(merged.ledger) as ledger:
        assert ledger.info.status == expected


@pytest.mark.parametrize("owned", [True, False], ids=["private", "users"])
def test_what_a_shard_has_left_goes_on_there_alone(make: Make, owned: bool) -> None:
    """An audit of the merged run asks no stack, and advises what can be done of it."""
    now = utc_now().isoformat()  # so that reports are kept still
    first = make(1, 2, owned=owned, created_at=now)
    merged = merge([first, make(2, 2, left=[3], owned=owned, created_at=now)]).ledger
    audit(merged, read_manifest(merged.parent.parent / "m.jsonl"))
    with Ledger.open(merged) as ledger:
        found = ledger.verdicts.reasons(["e3"])["e3"]
    assert found.status == "pending"
    said = read_reason(found.reason).advice("pending")
    assert said == "go on with that one, then merge again"


def test_each_receipt_is_held_against_its_own_run(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and costs are its own, too."""
    monkeypatch.setattr(fact_log, "code_digest", lambda _task: CODE)
    sources = [make(1, 2, budget="3"), make(2, 2, budget="4.5")]
    with Ledger.open(sources[1], write=True) as ledger:
        record_code(ledger, ["t"], {"t": object()})
    made = merge(sources).ledger
    manifest = read_manifest(made.parent.parent / "m.jsonl")
    with Ledger.open(made) as ledger:
        judging = Judging(ledger)
        for row in ledger.attempts.all():
            assert judging.of(manifest[row.entry]).judgement.status == "passed"
        codes = [[one.code for one in judging.run_facts(run_id(n)).tasks] for n in (1, 2)]
        assert codes == [[], [CODE]]
        assert ledger.info.get_meta("budget") == "7.5"
        assert Costs(ledger, manifest).total() == 20.0


def test_a_late_receipt_of_its_own_run_is_believed(make: Make) -> None:
    """Where the harness had spoken for want of a receipt; one of another run changes nothing."""
    source = make(1, 2, left=[0])
    with Ledger.open(source, write=True) as ledger:
        ledger.verdicts.record([(verdict("e0", "lost"), None)])
    made = merge([source, make(2, 2)]).ledger
    manifest = read_manifest(made.parent.parent / "m.jsonl")
    with Ledger.open(made, write=True) as ledger:
        [row] = ledger.attempts.of_entry("e0")
        for run, status in ((ledger.info.read().run, "pending"), (run_id(1), "passed")):
            add_receipts(ledger, [(row.task_id, None, received(run, 0, row.task_id))])
            assert Judging(ledger).of(manifest["e0"]).judgement.status == status


# What is refused


def refused(*ledgers: Path, into: Path | None = None) -> str:
    """The sentence; nothing is left behind."""
    folder = into or ledgers[0].parent
    before = set(folder.glob("*")) | set(folder.glob(".*")) if folder.is_dir() else set()
    with pytest.raises(ManifestToolError) as caught:
        merge(ledgers, into)
    after = set(folder.glob("*")) | set(folder.glob(".*")) if folder.is_dir() else set()
    assert {path for path in after - before if not path.name.endswith(("-shm", "-wal"))} == set()
    return str(caught.value)


def test_ledgers_of_two_manifests(make: Make, tmp_path: Path) -> None:
    """Both are named."""
    first = make(1, 2)
    (tmp_path / "m.jsonl").unlink()
    assert "is of another manifest (m.jsonl, " in refused(first, make(2, 2, entries=11))


def test_an_entry_in_two_ledgers(make: Make) -> None:
    """The entry and both ledgers are named."""
    first, second = make(1, 2), make(2, 3)
    sentence = refused(first, second)
    assert f"is in {first} and in {second}: it was sent twice" in sentence
    assert "entry 'e4'" in sentence


def test_the_same_ledger_twice(make: Make) -> None:
    """Also by another path; and a copy of it."""
    path = make(1, 2)
    other = path.parent / ".." / path.parent.name / path.name
    assert "was named twice" in refused(path, other)
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    assert f"run {run_id(1)} is in {path}, too" in refused(path, copy)


def test_what_is_no_ledger(make: Make, tmp_path: Path) -> None:
    """A file of something else, none at all, a folder, one of a later version."""
    first = make(1, 2)
    text = tmp_path / "text.sqlite"
    text.write_text("no ledger\n" * 100, "utf-8")
    assert "this is not a ledger that can be read" in refused(first, text)
    assert "there is no such file" in refused(first, tmp_path / "none.sqlite")
    assert "is a folder; name the ledgers in it" in refused(first, tmp_path)
    later = make(2, 2)
    with Ledger.open(later, write=True) as ledger:
        ledger.info.set_meta("ledger", "99")
    assert "the ledger has version 99, this program reads version" in refused(first, later)


def test_a_run_that_is_going_on(make: Make) -> None:
    """While somebody holds its lock, its ledger is not read; afterwards it is."""
    first, second = make(1, 2), make(2, 2)
    lock = RunLock(second.with_suffix(".lock"))
    lock.acquire("")
    assert f"run {run_id(2)} is being followed by another pytest" in refused(first, second)
    lock.release()
    assert merge([first, second]).info.entries == 10


def test_a_folder_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    """The sentence says what to do."""
    blocked = tmp_path / "file"
    blocked.touch()
    assert "name another folder with --into" in refused(make(1, 1), into=blocked / "runs")


# The command


def test_the_command_says_what_to_do_next(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the manifest and the folder as they would be typed here."""
    sources = [str(make(1, 2)), str(make(2, 2, left=[3]))]
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["merge", *sources, "--into=.manifest/runs"])
    lines = told.output.splitlines()
    [made] = Path(".manifest/runs").glob("*.sqlite")
    command = f"pytest --manifest=m.jsonl --manifest-audit --manifest-run={made.stem}"
    assert lines == [
        f"merged 2 runs into {made}",
        "  10 entries, 9 of them with a final verdict",
        f"  shard 2 of 2 (run {run_id(2)}) is unfinished: 1 of its 5 entries have no final verdict",
        f"to judge it, with any report: {command}",
    ]
    told = CliRunner().invoke(app, ["merge", *sources, "-o", "build/runs"])
    assert told.output.endswith(" -o manifest_dir=build\n")
    told = CliRunner().invoke(app, ["merge", *sources, "-o", "build/merged"])
    assert "pytest finds it in .manifest/runs alone" in told.output


def test_the_command_names_what_it_made_as_json(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are found by the beginnings of their ids, too."""
    runs = [make(1, 2), make(2, 2)]
    monkeypatch.chdir(tmp_path)
    first = ["merge", runs[0].stem[:-1], str(runs[1]), "--in=runs", "--json"]
    told = CliRunner().invoke(app, first)
    document = json.loads(told.stdout)
    assert Path(document["ledger"]).is_file()
    assert [document[name] for name in ("runs", "entries", "judged")] == [2, 10, 10]
    assert document["warnings"] == []


def test_the_command_tells_errors_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, as for a wrong argument."""
    missing = str(tmp_path / "none.sqlite")
    for arguments in (["merge", missing], ["merge"]):
        monkeypatch.setattr("sys.argv", ["manifest", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        told = capsys.readouterr()
        assert not told.out
        assert told.err.startswith(("manifest: ", "Usage: manifest merge"))


def test_what_no_ledger_has_is_planned_and_unsent(make: Make) -> None:
    """So every report shows it."""
    first = merge([make(1, 2)])
    with Ledger.open(first.ledger, write=True) as ledger:
        assert (ledger.info.status, ledger.info.read().entries) == ("stopped", 10)
        assert ledger.attempts.send_states()["planned"] == 5


def test_a_merged_ledger_beside_its_sources_is_left_out(make: Make) -> None:
    """As ``*.sqlite`` names all of a folder."""
    sources = [make(1, 2), make(2, 2)]
    made = merge(sources)
    again = merge([*sources, made.ledger])
    assert again.runs == 2
    assert again.warnings == [f"{made.ledger.name} is left out: it was merged of runs named here"]


def test_pauses_between_runs_are_known(make: Make) -> None:
    """A run that ended without a word about it has ended with its last receipt."""
    sources = [make(1, 2), make(2, 2)]
    for path, day in zip(sources, ("01", "05"), strict=True):
        moment = f"2026-01-{day}T10:00:00.000000+00:00"
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE run SET created_at = ?", (moment,))
            arrived = datetime.fromisoformat(moment.replace("10:", "11:"))
            db.execute("UPDATE facts SET at = ?", (microseconds(arrived),))
    with Ledger.open(merge(sources).ledger) as ledger:
        parts = ledger.info.segments()
    assert [(part.started.day, part.started.hour) for part in parts] == [(1, 10), (5, 10)]
    assert [part.stopped is not None and part.stopped.hour for part in parts] == [11, 11]


@pytest.mark.parametrize("text", ["9/2", "x/y"])
def test_a_damaged_ledger_is_a_sentence(make: Make, text: str) -> None:
    """Which file, and what to do: no traceback."""
    sources = [make(1, 2), make(2, 2)]
    with closing(sqlite3.connect(sources[1])) as db, db:
        db.execute("UPDATE run SET shard = ?", (text,))
    with pytest.raises(LedgerError, match=f"{sources[1]}: the ledger is damaged, .*restore it"):
        merge(sources)
