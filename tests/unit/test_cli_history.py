"""``manifest history``: what the runs of a made-up shop say in a terminal, as JSON, to a gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator
from typer.testing import CliRunner

from benchmarks import nights
from pytest_manifest.analysis.digest import digests_of
from pytest_manifest.analysis.gates import Gate
from pytest_manifest.analysis.many_runs import by_manifest, over_time
from pytest_manifest.cli.main import app
from pytest_manifest.errors import PlanError
from pytest_manifest.ledger.files import RunFiles
from scripts.schemas import FOLDER
from tests.unit.cli_support import make_run, manifest, refusal, write_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of forty nights; see ``benchmarks.nights`` for what happens in which."""
    made = tmp_path_factory.mktemp("nights")
    nights.forty_nights(made)
    return made


def run_of(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status of ``manifest history``, and what it printed."""
    command = ["history", str(folder / "nightly.jsonl"), f"--in={folder / 'runs'}", *arguments]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.stdout, result.stderr


def test_forty_nights_are_told_in_a_terminal(folder: Path) -> None:
    """All that happened, and nothing else."""
    status, out, _ = run_of(folder)
    assert status == 0
    said = "3 entries are red since run 21 (12 Nov, 02:10), all of texts.translate"
    assert f"69 of 72 passed in the last run; {said}; its code changed in that run (ae5e" in out
    lines = [line.split() for line in out.splitlines()]
    kinds = {words[0]: " ".join(words[3:]) for words in lines if words[2:] and "F" in words[2]}
    assert {name: what for name, what in kinds.items() if "-" in name} == {
        "translate-00": "broken: red since run 21",
        "translate-04": "broken: red since run 21",
        "translate-german": "broken: red since run 21; formerly translate-08",
        "sync-07": "flaky: red in 7 of 40 runs",
        **dict.fromkeys(("pdf-00", "pdf-01", "pdf-02"), "red in run 14 alone"),
    }
    slower = [words for words in lines if "times" in words]
    assert [(words[0], words[-1]) for words in slower] == [("images.thumbnail", "28")]
    assert out.count("MB a job") == 1
    assert "shop-3@night grows by 3.15 MB a job since run 33" in out


def test_forty_nights_as_a_document(folder: Path) -> None:
    """By its schema; a part of the manifest is no run of a trend."""
    document = json.loads(run_of(folder, "--json")[1])
    schema = json.loads((FOLDER / "runs-over-time.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(document)
    (found,) = document["manifests"]
    assert [one["partial"] for one in found["runs"] if one["partial"]] == ["selection"]
    changes = {one["n"]: [each["what"] for each in one["changes"]] for one in found["runs"]}
    assert {n: what for n, what in changes.items() if what} == {21: ["code"], 30: ["manifest"]}
    (german,) = (one for one in found["entries"] if one["formerly"])
    assert german["states"] == f"{'.' * 20}FFF-{'F' * 16}"


def test_a_shorter_history(folder: Path) -> None:
    _, out, _ = run_of(folder, "--since=1h")
    assert "there is no run of it" in refusal_of(folder, "--since=0h")
    assert out == "" or "runs" in out
    assert "name a number of hours" in refusal_of(folder, "--since=soon")


def refusal_of(folder: Path, *arguments: str) -> str:
    command = ["history", str(folder / "nightly.jsonl"), f"--in={folder / 'runs'}", *arguments]
    return str(CliRunner().invoke(app, command).exception)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("broken", "3 broken entries: translate-00, translate-04, translate-german"),
        ("flaky", "1 flaky entry: sync-07"),
        ("slowing", "images.thumbnail takes 1.58 times as long since run 28"),
        ("growing", "shop-3@night grows by 3.15 MB a job"),
        ("failed > 2", "failed is 3, the limit 2"),
        ("p50(images.*) > 1.2 x median(39)", "p50 of images.thumbnail is 1.4 s, the limit 1.11 s"),
        ("p95(task) > 2", "p95 of crm.sync is 2.29 s, the limit 2 s"),
    ],
)
def test_a_gate_holds_the_last_run_against_those_before(
    folder: Path, condition: str, said: str
) -> None:
    status, _, told = run_of(folder, f"--fail-on={condition}")
    assert status == 1
    assert told.splitlines()[0].endswith(f"nightly.jsonl: {said}")


@pytest.mark.parametrize(
    "condition",
    ["new failures", "failed > 3", "p50(crm.*) > 1.5 x median(10)", "duration > 2 x median(10)"],
)
def test_a_gate_that_does_not_hold_says_nothing(folder: Path, condition: str) -> None:
    assert run_of(folder, f"--fail-on={condition}")[::2] == (0, "")


def test_a_new_failure_is_one_that_was_none_before(folder: Path) -> None:
    """Of the history as it was after the night in which something broke."""
    digests = digests_of(folder / "runs")
    for night, new in ((21, 3), (22, 0), (26, 1), (37, 1)):
        (runs,) = by_manifest(digests[:night])
        found = over_time([runs]).manifests[0]
        said = list(Gate("new failures").broken_by(found, runs))
        assert [one.split()[0] for one in said] == ([str(new)] if new else [])


@pytest.mark.parametrize("text", ["", "p95 > 3", "failed(a) > 1", "p95(a) > 2 x mean(3)", "worse"])
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    if text == "failed(a) > 1":
        text = "duration(a) > 1"
    with pytest.raises(PlanError, match='write "new failures", broken'):
        Gate(text)


def test_what_is_misspelt_passes_no_gate(folder: Path) -> None:
    """A manifest that has no run, though another one has, and a task that no run has."""
    there = str(folder / "nightly.jsonl"), f"--in={folder / 'runs'}"
    said = refusal("history", *there, "nosuch.jsonl", "--fail-on=broken")
    assert "nosuch.jsonl: there is no run of it in" in said
    said = refusal("history", *there, "--fail-on=p95(crm.synch) > 1")
    assert "no task of these runs is called so; there are billing.charge" in said
    free = [one.model_copy(update={"cost": None}) for one in digests_of(folder / "runs")]
    with pytest.raises(PlanError, match="no receipt of these runs has a cost"):
        Gate("cost > 1").check([], free)


def test_digests_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the ledgers say now; those that are there are read where nobody asks for that."""
    monkeypatch.chdir(tmp_path)
    file = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"})
    path = make_run(file, 1, ["failed"])
    assert "1 entry is red since run 1" in manifest("history")
    assert not RunFiles(path).digest.exists()
    manifest("history", "--rebuild")
    assert RunFiles(path).digest.exists()
    for one in RunFiles(path).all():
        if one != RunFiles(path).digest:
            one.unlink()
    assert "1 entry is red since run 1" in manifest("history", "m.jsonl")


def test_without_a_run_there_is_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ".manifest/runs; dispatch it" in refusal("history")
