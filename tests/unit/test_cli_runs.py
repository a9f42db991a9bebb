"""``manifest show`` and ``export``: what runs have left."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.over_time import ManifestOverTime, RunsOverTime
from pytest_manifest.schema.run_facts import Throttled
from pytest_manifest.schema.summary import RunSummary
from tests.receipts_files import read_receipts
from tests.unit.cli_support import as_json, make_run, manifest, refusal, write_manifest

HOSTILE = "\x1b[31mred\u202eevil\u200b"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of three entries in the folder in which commands run."""
    monkeypatch.chdir(tmp_path)
    return write_manifest(
        Path("m.jsonl"),
        {"id": "a", "task": "shop.price", "kwargs": {"item": "茶"}, "tags": ["slow"]},
        {"id": "b", "task": "shop.price"},
        {"id": "c", "task": "shop.resize", "args": [1]},
    )


def ids(document: object) -> list[str]:
    assert isinstance(document, dict)
    return [entry["id"] for entry in document["entries"]]


def history_of(*arguments: str) -> ManifestOverTime:
    """The only manifest's history that a command prints."""
    (found,) = RunsOverTime.model_validate_json(manifest(*arguments, "--json")).manifests
    return found


def test_a_manifest_is_shown_by_task_and_tag(file: Path) -> None:
    """With as many entries as asked for, and the number of the others."""
    assert ids(as_json("show", "m.jsonl")) == ["a", "b", "c"]
    assert ids(as_json("show", "m.jsonl", "--task=shop.p*")) == ["a", "b"]
    assert ids(as_json("show", "m.jsonl", "--tag=slow")) == ["a"]
    limited = as_json("show", "m.jsonl", "--limit=1")
    assert (ids(limited), limited["matching"], limited["shown"]) == (["a"], 3, 1)
    lines = manifest("show", "m.jsonl", "--limit=2").splitlines()
    assert lines[0] == "m.jsonl: 3 entries"
    assert lines[2].split() == ["1", "a", "shop.price", "item='茶'", "slow"]
    assert lines[-1] == "and 1 more; --limit=0 shows all"


def test_the_verdicts_of_a_run_are_shown_by_status(file: Path) -> None:
    """A run is named by its id, the beginning of one, ``last``, or its ledger's path."""
    first = make_run(file, 1, ["passed", "failed", None])
    make_run(file, 2, ["passed", "passed", "passed"])
    for name in (first.stem, first.stem[:-1], str(first)):
        shown = as_json("show", name)
        assert (shown["run"], ids(shown)) == (first.stem, ["a", "b", "c"])
        assert shown["verdicts"] == {"passed": 1, "failed": 1}
    assert ids(as_json("show", first.stem, "--status=failed", "--status=pending")) == ["b", "c"]
    assert ids(as_json("show", "last", "--status=failed")) == []
    assert "sent, and without a verdict" in manifest("show", first.stem, "--status=pending")
    lines = manifest("show", first.stem, "--status=failed").splitlines()
    assert lines[2].split()[:3] == ["failed", "b", "shop.price"]


def test_what_held_a_run_back_is_shown(file: Path) -> None:
    """With its key, also of a run that goes on."""
    path = make_run(file, 1, ["passed", "failed", None])
    with Ledger.open(path, write=True) as ledger:
        held = Throttled(**stamp(), why="rate", detail="no more than 5/s", key="tenant=\u202ea")
        ledger.facts.append([(None, held)])
    shown = as_json("show", "last")["throttled"]
    assert isinstance(shown, list)
    (one,) = shown
    assert isinstance(one, dict)
    assert (one["why"], one["detail"], one["ended"]) == ("rate", held.detail, None)
    assert "slowed by its rate of tenant=\\u202ea, since" in manifest("show", "last")


def test_runs_are_found_from_a_folder_below(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest's configuration is, its runs are, wherever below it is started."""
    make_run(file, 1, ["passed", "failed", None])
    Path("pytest.ini").write_text("[pytest]\n", "utf-8")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert ids(as_json("show", "last")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "20261128T0300"], "'20261128T0300' begins several runs (20261128T030002-"),
        (
            ["show", "nothing"],
            "there is no file 'nothing', and no run of that name in",
        ),
        (["show", "typo.jsonl"], "there is no file 'typo.jsonl', and no run of that name in"),
        (["show", "x.sqlite"], "x.sqlite: there is no such ledger"),
        (["show", "last", "--status=bad"], "--status: there is no status 'bad'; there are: passed"),
        (["show", "m.jsonl", "--status=failed"], "a manifest has no statuses"),
        (["show", "last", "--in=other"], "there is no run in other"),
        (["show", "m.jsonl", "--runs", "--in=other"], "m.jsonl: there is no run of it in other"),
        (["show", "none.jsonl", "--runs"], "none.jsonl: there is no run of it in"),
        (["show", "last", "--tree=a", "--diff=last"], "--tree and --diff show different things"),
        (["export", "last", "--json"], "--json describes a file that was written"),
        (["export", "last", "-o", "m.jsonl"], "m.jsonl: is there already"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    arguments: list[str], sentence: str, file: Path
) -> None:
    """On stderr, with exit status 2."""
    make_run(file, 1, ["passed", "failed", None])
    make_run(file, 2, ["passed", "failed", None])
    told = refusal(*arguments)
    assert told.startswith("manifest: ")
    assert sentence in told


def test_nothing_that_a_terminal_would_obey_is_printed(file: Path) -> None:
    """Arguments are foreign: what is invisible or turns text around is escaped, in JSON, too."""
    write_manifest(file, {"id": "茶", "task": "t", "kwargs": {"x": HOSTILE}})
    for told in (manifest("show", "m.jsonl"), manifest("show", "m.jsonl", "--json")):
        assert not {"\u202e", "\u200b", "\x1b"} & set(told)
    entries = as_json("show", "m.jsonl")["entries"]
    assert isinstance(entries, list)
    [entry] = entries
    assert isinstance(entry, dict)
    assert (entry["id"], entry["kwargs"]) == ("茶", {"x": HOSTILE})


def test_the_last_runs_are_shown_as_history_shows_them(file: Path) -> None:
    """Of the last so many runs, oldest first, by their ledgers where there are no digests."""
    statuses: list[VerdictStatus] = ["passed", "failed", "passed", "failed"]
    for number, status in enumerate(statuses, 1):
        make_run(file, number, ["passed", status, "passed"])
    whole = history_of("show", "m.jsonl", "--runs")
    assert whole == history_of("history", "m.jsonl")
    assert [(one.id, one.kind, one.states) for one in whole.entries] == [("b", "flaky", ".F.F")]
    two = history_of("show", "m.jsonl", "--runs", "--last=2")
    assert [one.states for one in two.entries] == [".F"]
    lines = manifest("show", "m.jsonl", "--runs").splitlines()
    assert " ".join(lines[-1].split()) == "b shop.price .F.F flaky: red in 2 of 4 runs"


def test_two_runs_are_compared(file: Path) -> None:
    """Verdicts and results, in either order."""
    before = make_run(file, 1, ["passed", "failed", "passed"], results=[1, 1, 1])
    after = make_run(file, 2, ["failed", "passed", "passed"], results=[1, 1, 2])
    found = as_json("show", "last", f"--diff={before.stem}")
    for name, expected in {"newly_failing": "a", "fixed": "b", "changed_results": "c"}.items():
        rows = found[name]
        assert isinstance(rows, list)
        assert [row["id"] for row in rows if isinstance(row, dict)] == [expected], name
    lines = manifest("show", after.stem, f"--diff={before.stem}").splitlines()
    assert f"  since run {before.stem}" in lines
    assert any("a  passed -> failed" in line for line in lines)
    assert any("1 other results: c" in line for line in lines)
    backwards = as_json("show", before.stem, f"--diff={after.stem}")
    assert len(backwards["fixed"]) == 1  # type: ignore[arg-type]  # a list


def test_a_run_is_exported_in_each_format(file: Path) -> None:
    """To standard output, or to a file that is not replaced unasked."""
    path = make_run(file, 1, ["passed", "failed", None])
    rows = list(csv.DictReader(io.StringIO(manifest("export", "last", "-f", "csv"))))
    assert [(row["id"], row["verdict"], row["tags"]) for row in rows] == [
        ("a", "passed", "slow"),
        ("b", "failed", ""),
        ("c", "", ""),
    ]
    assert rows[0]["worker"] == "w@host"
    made = as_json("export", "last", "-o", "r.jsonl")
    assert (made["run"], made["bytes"]) == (path.stem, Path("r.jsonl").stat().st_size)
    assert [receipt.entry for receipt in read_receipts(Path("r.jsonl"))] == ["a", "b"]
    summary = RunSummary.model_validate_json(manifest("export", "last", "-f", "summary"))
    assert (summary.run.run, summary.statistics.entries) == (path.stem, 3)
    assert summary.run.manifest == "m.jsonl"
    assert "1 of 3 entries failed" in manifest("export", "last", "-f", "markdown")
    manifest("export", "last", "-f", "page", "-o", "page.html")
    assert path.stem in Path("page.html").read_text("utf-8")
    again = ("export", "last", "-f", "csv", "-o", "page.html", "--force")
    assert "csv of run" in manifest(*again)
    assert Path("page.html").read_text("utf-8").startswith("id,task,line")


def test_a_run_is_read_with_the_manifest_that_it_had(file: Path) -> None:
    """The file may have been changed since; its copy beside the ledger has not."""
    make_run(file, 1, ["passed", "failed", "passed"])
    write_manifest(file, {"id": "other", "task": "t"})
    assert ids(as_json("show", "last")) == ["a", "b", "c"]
    for copy in Path(".manifest/runs").glob("*.manifest.jsonl"):
        copy.unlink()
    assert "is another version of it, or none; copy" in refusal("export", "last", "-f", "summary")


def test_a_run_that_is_merged_again_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a shard has gone on; the newest merge stands for its parts."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(tmp_path / "m.jsonl", {"id": "a", "task": "t"})
    make_run(file, 1, ["failed"])
    ids = iter(("20261128T040000-00000001", "20261128T040001-00000000"))
    monkeypatch.setattr("pytest_manifest.run.merge.new_run_id", lambda: next(ids))
    first = as_json("merge", "last")["run"]
    part = sorted(path.stem for path in (tmp_path / ".manifest/runs").glob("*.sqlite"))
    second = as_json("merge", next(one for one in part if one != first))["run"]
    found = history_of("show", "m.jsonl", "--runs")
    assert [one.run for one in found.runs] == [second]
    assert as_json("show", "last")["run"] == second  # and "last" is no part of it
